"""Laws of the repository: what imports what, what is declared, and what the documents say of the code."""

from __future__ import annotations

import ast
import functools
import json
import os
import re
import shlex
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "petra_optuna"
SOURCES = sorted(PACKAGE.rglob("*.py"))
PAGES = sorted(str(path.relative_to(ROOT)) for path in (ROOT / "studies" / "results").glob("*.md"))
DOCUMENTS = [
    *("README.md", "CONTRIBUTING.md", "ARCHITECTURE.md", "storage/README.md", "studies/RESULTS.md"),
    *PAGES,
]
MODULE_OF = {
    "optuna-dashboard": "optuna_dashboard",
    "pillow": "PIL",
    "scikit-learn": "sklearn",
    "torch-pruning": "torch_pruning",
}
NOT_IMPORTED = {"lightgbm"}  # pyproject.toml says why beside each
# Someone's home or working folder; temporary folders are everybody's.
MACHINE_PATH = re.compile(r"(?<![\w.:/-])/(?:home|root|Users|work|workspace)/[\w.-]")
COMMAND_LINE = re.compile(r"^\s*(?:[$>] )?(?:\.venv/bin/|\$\(BIN\)/)?(petra\s.*)$", re.MULTILINE)
PROBE = """
import contextlib, io, json, sys
from petra_optuna.cli import main

found = []
for name in sys.argv[1:]:
    sys.argv[1:] = [name, "--help"]
    text, code = io.StringIO(), 0
    with contextlib.redirect_stdout(text), contextlib.redirect_stderr(text):
        try:
            main()
        except SystemExit as end:
            code = end.code or 0
    found.append((name, code, text.getvalue()))
print(json.dumps(found))
"""


def run(*command: str) -> subprocess.CompletedProcess[str]:
    # Wide and plain, so that help texts hold option names in one piece.
    environment = {**os.environ, "COLUMNS": "240", "TERM": "dumb", "NO_COLOR": "1"}
    return subprocess.run(
        command, cwd=ROOT, capture_output=True, text=True, check=False, env=environment, timeout=120
    )


@functools.cache
def tracked_files() -> tuple[Path, ...]:
    # A checkout made by another user is no danger to a listing.
    listed = run("git", "-c", "safe.directory=*", "ls-files", "-z", "-co", "--exclude-standard")
    if listed.returncode != 0:
        pytest.skip(f"not a git checkout: {listed.stderr.strip()}")
    paths = (ROOT / name for name in listed.stdout.split("\0") if name)
    return tuple(path for path in paths if path.is_file())


def read(name: str) -> str:
    """A file of the repository; nothing where there is none."""
    path = ROOT / name
    return path.read_text(encoding="utf-8") if path.is_file() else ""


def project() -> Any:
    return tomllib.loads(read("pyproject.toml"))["project"]


def pinned_versions() -> dict[str, str]:
    lines = read("constraints.txt").splitlines()
    pins = [line.split("==") for line in lines if line and not line.startswith("#")]
    return {canonicalize_name(name): version for name, version in pins}


def imports_of(path: Path) -> list[tuple[str, int]]:
    """Dotted names imported anywhere in a file, with the depth of the function they are imported in."""
    found: list[tuple[str, int]] = []

    def visit(node: ast.AST, depth: int) -> None:
        if isinstance(node, ast.Import):
            found.extend((alias.name, depth) for alias in node.names)
        if isinstance(node, ast.ImportFrom):
            found.append(("." * node.level + (node.module or ""), depth))
        inside = isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        for child in ast.iter_child_nodes(node):
            visit(child, depth + inside)

    visit(ast.parse(path.read_text(encoding="utf-8")), 0)
    return found


def shell_commands(text: str) -> list[list[str]]:
    """Every ``petra ...`` line of a document's code blocks, or of a makefile, as arguments."""
    blocks = re.findall(r"^```(?:bash|sh|console|shell)\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    joined = "\n".join(blocks).replace("\\\n", " ") if blocks else ""
    return [shlex.split(match, comments=True)[1:] for match in COMMAND_LINE.findall(joined)]


def documented_commands() -> list[tuple[str, list[str]]]:
    found = [(name, command) for name in DOCUMENTS for command in shell_commands(read(name))]
    recipes = re.sub(r"^\t", "", read("Makefile"), flags=re.MULTILINE)
    return found + [("Makefile", command) for command in shell_commands(f"```sh\n{recipes}```")]


@pytest.fixture(scope="module")
def helps() -> dict[str, tuple[int, str]]:
    """Exit code and help of every documented command, from one process: torch is slow to load."""
    names = {command[0] for _, command in documented_commands()}
    done = run(sys.executable, "-c", PROBE, *sorted(names))
    assert done.returncode == 0, done.stderr
    return {name: (code, text) for name, code, text in json.loads(done.stdout)}


def test_imports_go_one_way() -> None:
    checked = run(str(Path(sys.executable).with_name("lint-imports")), "--no-cache", "--no-logo")
    assert checked.returncode == 0, checked.stdout + checked.stderr


@pytest.mark.parametrize("module", ["pipeline", "evolution", "samplers", "measurement", "measurement.worker"])
def test_module_loads_without_torch(module: str) -> None:
    code = f"import sys, petra_optuna.{module}; sys.exit('torch' in sys.modules)"
    done = run(sys.executable, "-c", code)
    assert done.returncode == 0, done.stderr or f"petra_optuna.{module} loads torch"


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_own_package_is_imported_at_the_top_only(path: Path) -> None:
    late = [name for name, depth in imports_of(path) if depth and name.startswith((".", "petra_optuna"))]
    assert late == []


def test_every_package_says_what_it_holds() -> None:
    silent = [
        str(folder.relative_to(ROOT))
        for folder in {path.parent for path in SOURCES}
        if not ast.get_docstring(ast.parse(read(f"{folder.relative_to(ROOT)}/__init__.py")))
    ]
    assert silent == []


def test_declared_dependencies_are_the_imported_ones() -> None:
    names = [Requirement(text).name for text in project()["dependencies"]]
    declared = {MODULE_OF.get(name, name.replace("-", "_")) for name in names if name not in NOT_IMPORTED}
    imported = {name.split(".")[0] for path in SOURCES for name, _ in imports_of(path)}
    assert imported - set(sys.stdlib_module_names) - {"petra_optuna"} == declared


def test_every_requirement_is_pinned_within_its_bounds() -> None:
    extras = project()["optional-dependencies"]
    texts = [*project()["dependencies"], *(text for group in extras.values() for text in group)]
    pins = pinned_versions()
    for requirement in map(Requirement, texts):
        assert pins.get(canonicalize_name(requirement.name), "none") in requirement.specifier


def test_pins_are_plain_versions() -> None:
    # A local version such as +cpu is on no public index, and a URL is someone's machine.
    odd = {name: pin for name, pin in pinned_versions().items() if not re.fullmatch(r"\d+(\.\w+)*", pin)}
    assert odd == {}


def test_no_file_names_a_machine_path() -> None:
    found = []
    for path in tracked_files():
        text = path.read_bytes().decode("utf-8", errors="ignore")
        found += [f"{path.relative_to(ROOT)}: {match[0]}" for match in MACHINE_PATH.finditer(text)]
    assert found == []


@pytest.mark.parametrize("folder", ["home", "root", "Users", "work"])
@pytest.mark.parametrize("before", ["in ", '"', "(", "=", ""])
def test_machine_paths_are_recognised(folder: str, before: str) -> None:
    assert MACHINE_PATH.search(f"{before}/{folder}/ada")
    assert not MACHINE_PATH.search(f"https://example.org/{folder}/ada")


@pytest.mark.parametrize(("document", "command"), documented_commands(), ids=lambda value: str(value))
def test_documented_command_exists(
    document: str, command: list[str], helps: dict[str, tuple[int, str]]
) -> None:
    code, text = helps[command[0]]
    assert code == 0, f"{document}: petra {shlex.join(command)}: {text}"
    flags = {word.split("=")[0] for word in command if re.match(r"--?[A-Za-z]", word)}
    unknown = [flag for flag in flags if not re.search(rf"(?<![\w-]){flag}(?![\w-])", text)]
    assert not unknown, f"{document}: petra {command[0]} has no {', '.join(unknown)}"


def test_readme_shows_commands() -> None:
    subcommands = {command[0] for command in shell_commands(read("README.md"))}
    assert {"run", "resume", "front", "export", "dashboard"} <= subcommands


def test_documented_make_targets_exist() -> None:
    targets = set(re.findall(r"^([a-z]+):", read("Makefile"), re.MULTILINE))
    for name in [*DOCUMENTS, ".ci/run"]:
        text = read(name)
        named = set(re.findall(r"(?:^|`)make ([a-z]+)", text, re.MULTILINE))
        assert named <= targets, f"{name} names make {', '.join(sorted(named - targets))}"


def test_every_page_of_results_is_in_the_contents_and_has_its_headings() -> None:
    headings = ["Question", "Command", "Machine", "Table", "Reading", "Limits"]
    for name in PAGES:
        assert f"](results/{Path(name).name})" in read("studies/RESULTS.md"), name
        if Path(name).name != "history.md":
            assert re.findall(r"^## (.*)$", read(name), re.MULTILINE) == headings, name


def test_documents_link_to_files_that_exist() -> None:
    for name in DOCUMENTS:
        text = read(name)
        links = re.findall(r"\]\((?!https?:|#)([^)#]+)", text)
        missing = [link for link in links if not (ROOT / name).parent.joinpath(link).exists()]
        assert missing == [], name
