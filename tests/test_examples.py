"""The worked examples of CONTRIBUTING.md and README.md do what the text says."""

from __future__ import annotations

import ast
import importlib
import json
import re
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import optuna
import pytest
import torch
from torch import nn

from petra_optuna.errors import OperationFailed, TaskError
from petra_optuna.inference.call_times import CallTimes
from petra_optuna.inference.scenarios import recommend
from petra_optuna.nn.counting import count_parameters
from petra_optuna.operations import Context, Prune, default_space
from petra_optuna.pipeline import Pipeline, Recipe, SearchSpace, decode, encode

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture
def example(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> ModuleType:
    """The code block under the heading that the test names, imported as a module."""
    heading = request.param
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    section = text.split(f"\n## {heading}\n")[1].split("\n## ")[0]
    (code,) = re.findall(r"^```python\n(.*?)^```", section, re.MULTILINE | re.DOTALL)
    name = "example_" + heading.lower().replace(" ", "_")
    (tmp_path / f"{name}.py").write_text(code, encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    return importlib.import_module(name)


@pytest.mark.parametrize("example", ["An operation"], indirect=True)
def test_example_operation(example: ModuleType) -> None:
    clip = example.ClipWeights(deviations=2.0)
    space = SearchSpace((example.ClipWeights,))
    assert decode(encode(Pipeline((clip,)), space), space) == Pipeline((clip,))

    model = nn.Sequential(nn.Linear(8, 8))
    with torch.no_grad():
        model[0].weight.zero_()[0, 0] = 64.0
    weight = model[0].weight.detach().clone()
    context = Context(task=None, recipe=Recipe(), seed=0, epochs=0)  # type: ignore[arg-type]
    applied = clip.apply(model, context)
    assert torch.equal(model[0].weight, weight)
    bound = float(weight.numpy().mean() + 2.0 * weight.numpy().std(ddof=1))
    assert float(applied.model[0].weight.detach().max()) == pytest.approx(bound, rel=1e-5)
    assert applied.report == {"changed": True, "weights_moved": 1}

    even = nn.Sequential(nn.Linear(2, 2))
    nn.init.eye_(even[0].weight)
    assert clip.apply(even, context).report["changed"] is False
    with pytest.raises(OperationFailed):
        clip.apply(nn.Sequential(nn.ReLU()), context)


@pytest.mark.parametrize("example", ["A task"], indirect=True)
def test_example_task(example: ModuleType, tmp_path: Path) -> None:
    task = example.build(cache_dir=tmp_path)
    assert len(task.train) + len(task.selection) + len(task.test) == 178

    def predict(inputs: tuple[torch.Tensor, ...]) -> np.ndarray:
        with torch.inference_mode():
            return np.asarray(task.model(*inputs))

    assert task.evaluate(predict, task.selection) > 0.9
    assert example.build(cache_dir=tmp_path).fingerprint == task.fingerprint


@pytest.mark.parametrize("example", ["A mutation"], indirect=True)
def test_example_mutation(example: ModuleType) -> None:
    reset, rng = example.ResetNode(), np.random.default_rng(0)
    child = reset(Pipeline((Prune(removed=0.3),)), default_space(), rng)
    assert child == Pipeline((Prune(),))
    assert reset(child, default_space(), rng) is None


@pytest.mark.parametrize("example", ["A workload"], indirect=True)
def test_example_workload(example: ModuleType, tmp_path: Path) -> None:
    workload = example.build(data_root=None, cache_dir=tmp_path, seed=0)
    width = workload.model_space["width"].high
    widest = workload.network({"width": width}, seed=0)
    outputs = widest(*workload.task.example)
    assert outputs.shape[1:] == (10,)
    assert count_parameters(workload.task.model) < count_parameters(widest)
    with pytest.raises(TaskError):
        example.build(data_root=tmp_path, cache_dir=tmp_path, seed=0)


@pytest.mark.parametrize("example", ["A search algorithm"], indirect=True)
def test_example_search_algorithm(example: ModuleType) -> None:
    study = optuna.create_study(sampler=example.SOBOL.sampler(0, {}))
    study.optimize(lambda trial: trial.suggest_float("x", 0, 1), n_trials=9)
    eighths = {int(8 * trial.params["x"]) for trial in study.trials[1:]}
    assert len(eighths) == 8  # one of the first point, which Optuna draws without the sequence, is left out


@pytest.mark.parametrize("example", ["A scenario"], indirect=True)
def test_example_scenario(example: ModuleType) -> None:
    times = CallTimes({batch: [0.004, 0.0044] for batch in (1, 8)})  # a full call takes as long as one sample
    best = recommend(example.ClosedGroups(8), times, np.random.default_rng(0), repetitions=4, samples=400)
    assert best.policy.batch == 8
    assert best.response.mean_ms.value == pytest.approx(4.2, rel=0.02)
    assert not best.response.saturated


@pytest.mark.parametrize("page", sorted((ROOT / "docs").rglob("*.md")), ids=lambda page: page.name)
def test_python_of_a_page_imports_what_exists(page: Path) -> None:
    blocks = re.findall(r"^```python\n(.*?)^```", page.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
    nodes = [node for block in blocks for node in ast.walk(ast.parse(block))]
    for node in nodes:
        if isinstance(node, ast.ImportFrom):
            module = importlib.import_module(str(node.module))
            assert [alias.name for alias in node.names if not hasattr(module, alias.name)] == []


@pytest.fixture(scope="module")
def readme_run(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """Folder and output of the README's example, cut to the first two trials."""
    folder = tmp_path_factory.mktemp("readme")
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    (code,) = re.findall(r"^```python\n(.*?)^```", readme, re.MULTILINE | re.DOTALL)
    assert "trials=24" in code
    return folder, run_script(folder, code.replace("trials=24", "trials=2"))


def run_script(folder: Path, code: str) -> str:
    (folder / "script.py").write_text(code, encoding="utf-8")
    done = subprocess.run(
        [sys.executable, "script.py"], cwd=folder, capture_output=True, text=True, check=False, timeout=150
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_readme_example_prints_a_front(readme_run: tuple[Path, str]) -> None:
    folder, output = readme_run
    assert "accuracy" in output
    assert "size_bytes" in output
    assert (folder / "storage" / "mine.db").is_file()


def test_notebook_reads_a_finished_study(readme_run: tuple[Path, str]) -> None:
    folder, _ = readme_run
    cells = json.loads((ROOT / "notebooks" / "read_front.ipynb").read_text(encoding="utf-8"))["cells"]
    code = "\n".join("".join(cell["source"]) for cell in cells if cell["cell_type"] == "code")
    assert "../storage/digits.db" in code
    printed = run_script(folder, code.replace("../storage/digits.db", "storage/mine.db"))
    assert "size_bytes" in printed  # of each row of the front


def test_notebook_is_kept_without_outputs() -> None:
    cells = json.loads((ROOT / "notebooks" / "read_front.ipynb").read_text(encoding="utf-8"))["cells"]
    assert not any(cell.get("outputs") or cell.get("execution_count") for cell in cells)
