"""Laws of the repository: what imports what, what is declared, and what the documents say of the code."""

from __future__ import annotations

import ast
import functools
import io
import os
import re
import shlex
import subprocess
import sys
import tomllib
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from petra_optuna import cli

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "petra_optuna"
SOURCES = sorted(PACKAGE.rglob("*.py"))
PAGES = sorted(str(path.relative_to(ROOT)) for path in (ROOT / "studies" / "results").glob("*.md"))
LINE_WIDTH = 110
README_LINES = 150
MODULE_OF = {
    "optuna-dashboard": "optuna_dashboard",
    "pillow": "PIL",
    "scikit-learn": "sklearn",
    "torch-pruning": "torch_pruning",
}
NOT_IMPORTED: set[str] = set()  # pyproject.toml says why beside each
# Someone's home or working folder; temporary folders are everybody's.
MACHINE_PATH = re.compile(r"(?<![\w.:/-])/(?:home|root|Users|work|workspace)/[\w.-]")
COMMAND = re.compile(
    r"(?:[$>] )?(?:\w+=\S+ )*(?:\.venv/bin/|\$\(BIN\)/)?(petra|make|python -m) (?!\.\.\.)(.+)"
)
FENCED = re.compile(r"^( *)```(\w*)\n(.*?)^\1```", re.MULTILINE | re.DOTALL)
INLINE = re.compile(r"(?<!`)`([^`\n]+(?:\n[^`\n]+)?)`(?!`)")
LINK = re.compile(r"\]\((?!https?:)([^)#\s]*)(?:#([^)\s]+))?\)")
PATH_SPAN = re.compile(r"(?:[\w.-]+/)+[\w.-]+\.(?:py|md|toml|json|ipynb)")
PRAGMA = re.compile(r"  # (?:type: ignore|noqa).*")  # has to stand on the line that it is for
LINK_TARGET = re.compile(r"\]\([^)]*\)")
PLAIN = {"COLUMNS": "240", "TERM": "dumb", "NO_COLOR": "1"}
SHELLS = {"bash", "sh", "console", "shell"}


def run(*command: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command,
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, **PLAIN},
        timeout=120,
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


@functools.cache
def parsed(path: Path) -> ast.Module:
    """The syntax tree of a source."""
    return ast.parse(path.read_text(encoding="utf-8"))


@functools.cache
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

    visit(parsed(path), 0)
    return found


@functools.cache
def documents() -> tuple[str, ...]:
    """Every Markdown file of the repository."""
    return tuple(str(path.relative_to(ROOT)) for path in tracked_files() if path.suffix == ".md")


def code_lines(text: str) -> list[str]:
    """Lines of a document's shell blocks and indented blocks, then its spans of code."""
    blocks = [block for _, language, block in FENCED.findall(text) if language in SHELLS]
    prose = FENCED.sub("", text)
    blocks.append("\n".join(re.findall(r"^    (?! )(.+(?:\n      .+)*)", prose, re.MULTILINE)))
    spans = [" ".join(span.split()) for span in INLINE.findall(prose)]
    return [line.strip() for block in blocks for line in block.replace("\\\n", " ").splitlines()] + spans


def commands(text: str, program: str) -> list[list[str]]:
    """Arguments of every documented call of ``petra``, ``make`` or ``python -m``."""
    matches = [COMMAND.fullmatch(line) for line in code_lines(text)]
    return [shlex.split(match[2], comments=True) for match in matches if match and match[1] == program]


def documented_commands() -> list[tuple[str, list[str]]]:
    """Every call of ``petra`` in a document or in the makefile, with where it stands."""
    documented = [(name, command) for name in documents() for command in commands(read(name), "petra")]
    recipes = re.sub(r"^\t", "", read("Makefile"), flags=re.MULTILINE)
    return documented + [("Makefile", command) for command in commands(f"```sh\n{recipes}```", "petra")]


DOCS = [name for name in documents() if name.startswith("docs/")]


def headings(text: str) -> set[str]:
    """The anchors that a Markdown viewer makes of a document's headings."""
    titles = re.findall(r"^#+ (.+)$", FENCED.sub("", text), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


def prose_lines(text: str) -> list[tuple[int, str]]:
    """Lines of a document, numbered from 1, without tables, targets of links and what holds a URL."""
    numbered = [(number, LINK_TARGET.sub("]", line)) for number, line in enumerate(text.splitlines(), 1)]
    return [(number, line) for number, line in numbered if not line.startswith("|") and "://" not in line]


@pytest.fixture(scope="module")
def helps() -> dict[str, tuple[int, str]]:
    """Exit code and help of every documented command."""
    return {name: help_of(name) for name in {command[0] for _, command in documented_commands()}}


def help_of(command: str) -> tuple[int, str]:
    """Exit code and output of ``petra COMMAND --help``, wide and plain: option names in one piece."""
    text, code = io.StringIO(), 0
    with pytest.MonkeyPatch.context() as patch, redirect_stdout(text), redirect_stderr(text):
        for name, value in PLAIN.items():
            patch.setenv(name, value)
        patch.setattr(sys, "argv", ["petra", command, "--help"])
        try:
            cli.main()
        except SystemExit as end:
            code = int(end.code or 0)
    return code, text.getvalue()


def test_imports_go_one_way() -> None:
    checked = run(str(Path(sys.executable).with_name("lint-imports")), "--no-cache", "--no-logo")
    assert checked.returncode == 0, checked.stdout + checked.stderr


def test_modules_load_without_torch() -> None:
    names = ("pipeline", "evolution", "samplers", "measurement", "measurement.worker", "inference.replay")
    code = "import importlib, sys\n"
    for name in names:
        module = f"petra_optuna.{name}"
        code += f"importlib.import_module({module!r})\n"
        code += f"if 'torch' in sys.modules: sys.exit({f'{module} loads torch'!r})\n"
    done = run(sys.executable, "-c", code)
    assert done.returncode == 0, done.stderr


def test_own_package_is_imported_at_the_top_only() -> None:
    late = [
        f"{path.relative_to(ROOT)}: {name}"
        for path in SOURCES
        for name, depth in imports_of(path)
        if depth and name.startswith((".", "petra_optuna"))
    ]
    assert late == []


def test_text_is_read_and_written_in_an_encoding_that_is_named() -> None:
    """Without a name it is that of the locale, and a file written here is another one elsewhere."""
    nameless = [
        f"{path.relative_to(ROOT)}:{node.lineno}"
        for path in SOURCES
        for node in ast.walk(parsed(path))
        if isinstance(node, ast.Call)
        and getattr(node.func, "attr", None) in ("read_text", "write_text")
        and "encoding" not in {word.arg for word in node.keywords}
    ]
    assert nameless == []


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
    subcommands = {command[0] for command in commands(read("README.md"), "petra")}
    assert {"run", "resume", "front", "export", "dashboard"} <= subcommands


@pytest.mark.parametrize("name", [*documents(), ".ci/run"])
def test_documented_make_targets_exist(name: str) -> None:
    targets = set(re.findall(r"^([a-z]+):", read("Makefile"), re.MULTILINE))
    text = read(name)
    calls = commands(text if name.endswith(".md") else f"```sh\n{text}```", "make")
    assert {call[0] for call in calls if "=" not in call[0]} <= targets


def test_every_page_of_results_is_in_the_contents_and_has_its_headings() -> None:
    expected = ["Question", "Command", "Machine", "Table", "Reading", "Limits"]
    for name in PAGES:
        assert f"](results/{Path(name).name})" in read("studies/RESULTS.md"), name
        if Path(name).name != "history.md":
            assert re.findall(r"^## (.*)$", read(name), re.MULTILINE) == expected, name


@pytest.mark.parametrize("name", documents())
def test_documented_modules_exist(name: str) -> None:
    modules = {call[0] for call in commands(read(name), "python -m") if call[0].startswith("studies")}
    missing = [
        module
        for module in sorted(modules)
        if not (ROOT / f"{module.replace('.', '/')}.py").is_file()
        and not (ROOT / module.replace(".", "/") / "__main__.py").is_file()
    ]
    assert missing == []


@pytest.mark.parametrize("name", documents())
def test_links_lead_to_files_and_headings_that_exist(name: str) -> None:
    for target, anchor in LINK.findall(FENCED.sub("", read(name))):
        path = (ROOT / name).parent.joinpath(target) if target else ROOT / name
        assert path.exists(), f"{name} links to {target}"
        if anchor:
            assert anchor in headings(path.read_text(encoding="utf-8")), f"{name} links to {target}#{anchor}"


@pytest.mark.parametrize("name", ["README.md", "ARCHITECTURE.md", "CONTRIBUTING.md", *DOCS])
def test_named_files_exist(name: str) -> None:
    spans = [span for span in INLINE.findall(FENCED.sub("", read(name))) if PATH_SPAN.fullmatch(span)]
    own = [span for span in spans if not span.startswith(("storage/", "tests/operations/test_clip"))]
    assert [span for span in own if not any((folder / span).is_file() for folder in (ROOT, PACKAGE))] == []


def test_pages_can_be_reached_from_the_readme() -> None:
    reached, waiting = set(), [ROOT / "README.md"]
    while waiting:
        page = waiting.pop()
        if page in reached or page.suffix != ".md" or not page.is_file():
            continue
        reached.add(page)
        links = LINK.findall(page.read_text(encoding="utf-8"))
        waiting += [page.parent.joinpath(target).resolve() for target, _ in links if target]
    assert [name for name in DOCS if ROOT / name not in reached] == []


@pytest.mark.parametrize("name", documents())
def test_markdown_lines_are_short(name: str) -> None:
    assert [number for number, line in prose_lines(read(name)) if len(line) > LINE_WIDTH] == []


def test_python_lines_are_short() -> None:
    paths = [path for path in tracked_files() if path.suffix == ".py"]
    long = [
        f"{path.relative_to(ROOT)}:{number}"
        for path in paths
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1)
        if len(PRAGMA.sub("", line)) > LINE_WIDTH and "://" not in line
    ]
    assert long == []


def test_readme_fits_its_length() -> None:
    assert len(read("README.md").splitlines()) <= README_LINES
