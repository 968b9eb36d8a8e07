"""Write PetraSampler as a package for OptunaHub's registry, and print the files written.

    python -m studies.tools.optunahub_package FOLDER

The package runs without petra-optuna. FOLDER/package/samplers/petra holds the sampler's own modules with
their imports made relative, a README with front matter, an example, tests, requirements and the licence, in
the registry's style. A second run replaces what the first one wrote, which FOLDER/.petra_package lists; if
that was changed since, or the place holds anything else, the command refuses.
"""

from __future__ import annotations

import ast
import hashlib
import importlib.metadata
import json
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path

import optuna

import petra_optuna
from petra_optuna.errors import UserError
from studies import script

NAME = "petra_optuna"
SOURCES = ("aliases.py", "errors.py", "noise.py", "pipeline", "evolution", "samplers")
"""Modules that the package takes over; they must not import anything else of ours."""
TEMPLATES = Path(__file__).parent / "optunahub"
PACKAGE = Path("package", "samplers", "petra")
TEMPLATE_TARGETS = {
    "readme.md": "README.md",
    "init.txt": "__init__.py",
    "example.txt": "example.py",
    "test_sampler.txt": "tests/test_sampler.py",
}
MANIFEST = ".petra_package"
"""Lists, beside the package, the files that were written, with the SHA-256 of each."""
STYLE = (
    "line-length=99",
    "lint.isort.force-single-line=true",
    "lint.isort.force-sort-within-sections=true",
    "lint.isort.lines-after-imports=2",
)
"""Settings of ruff that give what black and isort give under the registry's."""
DISTRIBUTIONS = {"sklearn": "scikit-learn"}
"""Names of distributions that differ from those of their modules."""


def main() -> None:
    """Write the package and print its files."""
    parser = script.parser(__doc__)
    parser.add_argument("folder", type=Path, help="folder of the registry, or an empty one")
    print("\n".join(map(str, write_package(parser.parse_args().folder))))


def write_package(folder: Path) -> list[Path]:
    """Write the package below a folder.

    Returns:
        The files written, sorted.

    Raises:
        UserError: When its place is taken by something else.
    """
    target, manifest = folder / PACKAGE, folder / MANIFEST
    files = _formatted(_texts())
    if target.exists():
        _check_ours(target, manifest)
        shutil.rmtree(target)
    for name, data in files.items():
        path = target / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    digests = {name: hashlib.sha256(data).hexdigest() for name, data in files.items()}
    manifest.write_text(json.dumps(digests, indent=2) + "\n", encoding="utf-8")
    return sorted(target / name for name in files)


def relative_imports(text: str, module_path: Path) -> str:
    """The text of a module with its absolute imports of petra_optuna made relative.

    Args:
        text: Source text of the module.
        module_path: Path of the module's file, below the package.

    Raises:
        UserError: When the module imports what the package does not hold.
    """
    lines = text.splitlines(keepends=True)
    for node in _imports(text):
        if isinstance(node, ast.Import):
            if any(_top(alias.name) == NAME for alias in node.names):
                raise UserError(f"{module_path}, line {node.lineno}: write `from ... import ...` instead")
            continue
        module = node.module or ""
        if node.level or _top(module) != NAME:
            continue
        inner = module.split(".")[1:]
        if not inner or not {inner[0], f"{inner[0]}.py"} & set(SOURCES):
            raise UserError(f"{module_path}, line {node.lineno}: {module} is not part of the package")
        dots = "." * len(module_path.parts)
        row = node.lineno - 1
        lines[row] = lines[row].replace(f"from {module} ", f"from {dots}{'.'.join(inner)} ", 1)
    return "".join(lines)


def _texts() -> dict[str, str]:
    """Text of every file by its path below the package."""
    root = Path(petra_optuna.__file__).parent
    texts = {}
    for source in SOURCES:
        for path in [root / source] if source.endswith(".py") else sorted((root / source).glob("*.py")):
            inner = path.relative_to(root)
            texts[inner.as_posix()] = relative_imports(path.read_text(encoding="utf-8"), inner)
    texts["requirements.txt"] = "".join(f"{line}\n" for line in _requirements(texts.values()))
    texts["LICENSE"] = (TEMPLATES.parents[2] / "LICENSE").read_text(encoding="utf-8")
    for template, target in TEMPLATE_TARGETS.items():
        text = (TEMPLATES / template).read_text(encoding="utf-8")
        texts[target] = text.replace("@OPTUNA@", optuna.__version__)
    return texts


def _requirements(texts: Iterable[str]) -> list[str]:
    """Requirements of the modules beyond Optuna, with the versions that petra-optuna asks for."""
    modules = {
        _top(name) for text in texts for node in _imports(text) for name in _names(node) if _top(name) != NAME
    }
    needed = {DISTRIBUTIONS.get(name, name) for name in modules - sys.stdlib_module_names - {"optuna"}}
    declared = importlib.metadata.requires("petra-optuna") or []
    required = [line for line in declared if _distribution(line) in needed and ";" not in line]
    missing = needed - set(map(_distribution, required))
    if missing:
        raise UserError(f"petra-optuna does not declare what its sampler imports: {', '.join(missing)}")
    return sorted(required)


def _formatted(texts: dict[str, str]) -> dict[str, bytes]:
    """The files as they are written, in the registry's style."""
    with tempfile.TemporaryDirectory() as folder:
        for name, text in texts.items():
            path = Path(folder, name)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8")
        settings = [word for setting in STYLE for word in ("--config", setting)]
        for command in (["format"], ["check", "--select=I", "--fix"]):
            ruff = [sys.executable, "-m", "ruff", *command, "--isolated", "--no-cache", "--quiet"]
            done = subprocess.run([*ruff, *settings, folder], capture_output=True, text=True, check=False)
            if done.returncode:
                raise UserError(f"ruff cannot format the package: {(done.stdout + done.stderr).strip()}")
        return {name: Path(folder, name).read_bytes() for name in texts}


def _check_ours(target: Path, manifest: Path) -> None:
    """Refuse to remove what this command did not write, or what was changed since."""
    digests = json.loads(manifest.read_text(encoding="utf-8")) if manifest.is_file() else {}
    present = sorted(target.rglob("*")) if target.is_dir() else [target]
    for path in filter(Path.is_file, present):
        name = path.relative_to(target).as_posix()
        if "__pycache__" in path.parts:
            continue
        if name not in digests or hashlib.sha256(path.read_bytes()).hexdigest() != digests[name]:
            raise UserError(
                f"{path} was not written by this command, or changed since; "
                "move it away or give another folder"
            )


def _imports(text: str) -> Iterator[ast.Import | ast.ImportFrom]:
    return (node for node in ast.walk(ast.parse(text)) if isinstance(node, ast.Import | ast.ImportFrom))


def _names(node: ast.Import | ast.ImportFrom) -> list[str]:
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    return [] if node.level else [node.module or ""]


def _top(module: str) -> str:
    return module.partition(".")[0]


def _distribution(requirement: str) -> str:
    return requirement.partition(">")[0].strip()


if __name__ == "__main__":
    script.run(main)
