"""Laws of the project's language: what docstrings, names and errors may not do."""

from __future__ import annotations

import ast
import functools
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


@functools.cache
def parsed(path: Path) -> ast.Module:
    """The syntax tree of a source."""
    return ast.parse(path.read_text(encoding="utf-8"))


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


def test_a_line_of_a_docstring_stands_alone() -> None:
    fragments = [
        f"{path.relative_to(ROOT)}:{number}: {line.strip()}"
        for path in (*SOURCES, *SCRIPTS)
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1)
        if FRAGMENT.match(line)
    ]
    assert fragments == []


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


def test_the_library_names_arguments_and_only_the_command_names_options() -> None:
    commands = ROOT / "petra_optuna" / "cli"
    options = [
        f"{path.relative_to(ROOT)}:{line}: {text}"
        for path in SOURCES
        if not path.is_relative_to(commands)
        for line, text in strings(parsed(path))
        if OPTION.search(text)
    ]
    assert options == []


def test_locals_say_what_they_hold() -> None:
    hits = {
        f"{path.relative_to(ROOT)}:{line}: {name}"
        for path in SOURCES
        for function in ast.walk(parsed(path))
        if isinstance(function, ast.FunctionDef)
        for line, name in long_lived(function)
    }
    assert sorted(hits) == []
