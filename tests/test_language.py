"""Laws of the project's language: what docstrings, names and errors may not do."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
SOURCES = sorted((ROOT / "petra_optuna").rglob("*.py"))
SCRIPTS = sorted((ROOT / "studies").rglob("*.py"))

FRAGMENT = re.compile(
    r"^\s*(?:\w+(?:, \w+)*: |\"\"\")(?:Of|By|In|At|As|From|That|On|For)\b(?:\s+\S+){0,3}\.(?:\"\"\")?$"
)
"""A line that is read only as a continuation of the name before it: ``key: Of the trial.``"""

PLACEHOLDERS = {"found", "kind", "each", "place", "known"}
"""Names that say nothing of what they hold. A comprehension may use them, a function body may not."""
NEAR = 3
"""Lines within which a placeholder can be seen as a whole."""

OPTION = re.compile(r"(?<![\w-])--[a-z][a-z-]+|\bpetra (?:run|resume|front|confirm|export|dashboard)\b")


def strings(tree: ast.AST) -> Iterator[tuple[int, str]]:
    """Every string of a file that is no docstring, with its line."""
    documents = {
        id(node.value)
        for node in ast.walk(tree)
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in documents:
            yield node.lineno, node.value


def long_lived(function: ast.FunctionDef) -> Iterator[tuple[int, str]]:
    """Placeholders of a function that are used more than ``NEAR`` lines after they got their value."""
    lines: dict[str, list[int]] = {}
    for node in ast.walk(function):
        if isinstance(node, ast.Name) and node.id in PLACEHOLDERS:
            lines.setdefault(node.id, []).append(node.lineno)
    for name, uses in lines.items():
        if max(uses) - min(uses) > NEAR:
            yield min(uses), name


@pytest.mark.parametrize("path", [*SOURCES, *SCRIPTS], ids=lambda path: str(path.relative_to(ROOT)))
def test_a_line_of_a_docstring_stands_alone(path: Path) -> None:
    lines = path.read_text(encoding="utf-8").splitlines()
    assert [f"{number}: {line.strip()}" for number, line in enumerate(lines, 1) if FRAGMENT.match(line)] == []


@pytest.mark.parametrize(
    "line",
    [
        "        key: Of the trial.",
        "    seed: Of every node.",
        '    """Of the study."""',
        "    a, b: As before.",
    ],
)
def test_fragments_are_recognised(line: str) -> None:
    assert FRAGMENT.match(line)
    assert not FRAGMENT.match(line.replace(": ", ": Key ").replace('"""', '"""Key '))


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_the_library_names_arguments_and_only_the_command_names_options(path: Path) -> None:
    if path.is_relative_to(ROOT / "petra_optuna" / "cli"):
        return
    tree = ast.parse(path.read_text(encoding="utf-8"))
    assert [f"{line}: {text}" for line, text in strings(tree) if OPTION.search(text)] == []


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_locals_say_what_they_hold(path: Path) -> None:
    functions = [
        node
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.FunctionDef)
    ]
    assert sorted({hit for function in functions for hit in long_lived(function)}) == []
