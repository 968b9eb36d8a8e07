"""The package for OptunaHub runs without petra-optuna and searches as it does."""

from __future__ import annotations

import hashlib
import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import optuna
import pytest

from petra_optuna.errors import UserError
from petra_optuna.samplers import PetraSampler
from studies.tools.optunahub_package import MANIFEST, PACKAGE, relative_imports, write_package

optuna.logging.set_verbosity(optuna.logging.ERROR)

LOADER = """
import importlib.util, sys, types

for parent in ("optunahub_registry", "optunahub_registry.package", "optunahub_registry.package.samplers"):
    sys.modules[parent] = types.ModuleType(parent)

def load_local_module(package, *, registry_root):
    name = "optunahub_registry.package." + package.replace("/", ".")
    spec = importlib.util.spec_from_file_location(name, f"{registry_root}/{package}/__init__.py")
    module = sys.modules[name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
"""
"""What optunahub.load_local_module does; it comes with a Git client that nothing else here needs."""

OBJECTIVE = """
def objective(trial):
    if trial.suggest_categorical("kind", ["near", "far"]) == "near":
        x = trial.suggest_float("x", 0.0, 1.0)
        return x**2, (x - 2) ** 2
    depth = trial.suggest_int("depth", 1, 9)
    return float(depth), 1 / depth
"""
SEARCH = f"""
import json, sys, optuna, optunahub
petra = optunahub.load_local_module("samplers/petra", registry_root=sys.argv[1])
{OBJECTIVE}
optuna.logging.set_verbosity(optuna.logging.ERROR)
study = optuna.create_study(directions=["minimize"] * 2, sampler=petra.PetraSampler(None, seed=4))
study.optimize(objective, n_trials=30)
print(json.dumps([trial.params for trial in study.trials]))
"""


@pytest.fixture
def package(tmp_path: Path) -> Path:
    write_package(tmp_path)
    return tmp_path / PACKAGE


def _run(package: Path, *arguments: str) -> str:
    """Run Python where petra_optuna cannot be imported."""
    modules = package.parents[2] / "modules"
    modules.mkdir()
    (modules / "optunahub.py").write_text(LOADER)
    (modules / "petra_optuna.py").write_text("raise ImportError('the package must not need it')")
    environment = {**os.environ, "PYTHONPATH": str(modules)}
    command = [sys.executable, *arguments]
    done = subprocess.run(
        command, cwd=package, env=environment, capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_its_own_tests_pass(package: Path) -> None:
    said = _run(
        package, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-k", "search or parents or pickle", "tests"
    )
    assert " passed" in said
    assert " failed" not in said


def test_its_example_runs(package: Path) -> None:
    said = _run(package, "example.py")
    assert said.count("trials on the front") == 2


def test_it_searches_as_the_original_does(package: Path) -> None:
    params = json.loads(_run(package, "-c", SEARCH, str(package.parents[1])))
    names: dict[str, Any] = {}
    exec(OBJECTIVE, names)
    study = optuna.create_study(directions=["minimize"] * 2, sampler=PetraSampler(None, seed=4))
    study.optimize(names["objective"], n_trials=30)
    assert params == [trial.params for trial in study.trials]


def test_it_holds_what_the_registry_asks_for(package: Path) -> None:
    assert {"README.md", "LICENSE", "__init__.py", "example.py", "requirements.txt", "tests"} <= {
        path.name for path in package.iterdir()
    }
    front_matter = (package / "README.md").read_text().split("---")[1]
    for key in ("author", "title", "description", "tags", "optuna_versions", "license"):
        assert f"\n{key}: " in front_matter
    assert f"[{optuna.__version__}]" in front_matter
    required = {line.partition(">")[0] for line in (package / "requirements.txt").read_text().splitlines()}
    assert required == {"moocore", "numpy", "plotly", "scikit-learn", "sqlalchemy"}


def test_a_second_run_replaces_what_the_first_wrote(package: Path) -> None:
    root = package.parents[2]
    before = {path: path.read_bytes() for path in package.rglob("*") if path.is_file()}
    # A module that has been renamed since: the manifest knows it, the package does not any more.
    old = package / "samplers" / "old_name.py"
    old.write_text("pass\n")
    digests = json.loads((root / MANIFEST).read_text())
    digests["samplers/old_name.py"] = hashlib.sha256(old.read_bytes()).hexdigest()
    (root / MANIFEST).write_text(json.dumps(digests))
    write_package(root)
    assert {path: path.read_bytes() for path in package.rglob("*") if path.is_file()} == before


@pytest.mark.parametrize("place", ["mine.py", "README.md"])
def test_what_it_did_not_write_is_kept(package: Path, place: str) -> None:
    (package / place).write_text("precious")
    with pytest.raises(UserError, match=re.escape(place)):
        write_package(package.parents[2])
    assert (package / place).read_text() == "precious"


def test_a_package_of_somebody_else_is_kept(package: Path) -> None:
    """The names of its files are the same, but no manifest says that they are ours."""
    (package.parents[2] / MANIFEST).unlink()
    with pytest.raises(UserError, match="was not written by this command"):
        write_package(package.parents[2])
    assert (package / "README.md").is_file()


def test_it_is_in_the_style_of_the_registry(package: Path) -> None:
    lines = [line for path in package.rglob("*.py") for line in path.read_text().splitlines()]
    assert max(map(len, lines)) > 90  # longer lines than the registry's would be those of this project
    assert not [line for line in lines if line.startswith("from ") and "," in line]


def test_only_imports_are_rewritten_and_only_to_what_is_there() -> None:
    text = '"""from petra_optuna.samplers import x"""\nfrom petra_optuna.samplers.state import (\n    a,\n)\n'
    place = Path("samplers", "plots.py")
    assert relative_imports(text, place).splitlines()[:2] == [
        '"""from petra_optuna.samplers import x"""',
        "from ..samplers.state import (",
    ]
    with pytest.raises(UserError, match=r"line 1: petra_optuna\.study is not part"):
        relative_imports("from petra_optuna.study import a\n", place)
    with pytest.raises(UserError, match="line 1"):
        relative_imports("import petra_optuna.errors\n", place)
