"""The script of an exported folder runs on every kind of input and output, and export runs it itself."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from support.loaders import apart
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from petra_optuna.deploy import lower
from petra_optuna.errors import StudyError
from petra_optuna.nn.inputs import take
from petra_optuna.results.run_script import RUN_FILE, _run, check_script, describe_output, run_script
from petra_optuna.tasks import Metric, Task

RUNTIME = ("onnxruntime", "cpu")
CLOSE = Metric("distance", "minimize", lambda outputs, targets: 0.0)
SERIES = torch.randn(32, 3, 6, generator=torch.Generator().manual_seed(0))
IMAGES = torch.randn(32, 2, 4, 4, generator=torch.Generator().manual_seed(0))


class _Scale(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(()))

    def forward(self, inputs: Tensor) -> Tensor:
        return inputs * self.scale


class _Pair(_Scale):
    def forward(self, left: Tensor, right: Tensor) -> Tensor:  # type: ignore[override]
        return (left * right).mean(2) * self.scale


class _Two(_Scale):
    def forward(self, inputs: Tensor) -> tuple[Tensor, Tensor]:  # type: ignore[override]
        return inputs, inputs.mean(2) * self.scale


class _Cumulative(nn.Module):
    def forward(self, inputs: Tensor) -> Tensor:
        return inputs.cumsum(2).transpose(1, 2)


def _loader(*tensors: Tensor, names: tuple[str, ...] = ()) -> DataLoader[object]:
    def collate(samples: list[tuple[Tensor, ...]]) -> object:
        parts = [torch.stack(part) for part in zip(*samples, strict=True)]
        return dict(zip(names, parts, strict=True)) if names else tuple(parts)

    return DataLoader(TensorDataset(*tensors), batch_size=8, collate_fn=collate)


def _task(model: nn.Module, loader: DataLoader[object], labels: str = "", **more: object) -> Task:
    scaled = model if isinstance(model, _Scale) else nn.Sequential(model, _Scale())
    task = Task.from_loaders(
        scaled,
        loader,
        apart(loader),
        metric=CLOSE,
        training_step=lambda net, inputs, targets: sum(p.sum() for p in net.parameters()),  # type: ignore[arg-type,return-value]
        **more,  # type: ignore[arg-type]
    )
    return dataclasses.replace(task, labels=tuple(labels))


CLASSES = torch.arange(32) % 3
KINDS: dict[str, tuple[Callable[[], Task], dict[str, object], Callable[[list[str], Tensor], bool]]] = {
    "classes": (
        lambda: _task(nn.Sequential(nn.AvgPool1d(6), nn.Flatten()), _loader(SERIES, CLASSES), "abc"),
        {"kind": "class", "axis": 1},
        lambda lines, outputs: lines == ["abc"[index] for index in outputs.argmax(1)],
    ),
    "one logit": (
        lambda: _task(nn.Sequential(nn.Flatten(), nn.AvgPool1d(18)), _loader(SERIES, CLASSES), "no"),
        {"kind": "class"},
        lambda lines, outputs: lines == ["no"[int(value > 0)] for value in outputs.flatten()],
    ),
    "segmentation": (
        lambda: _task(nn.Identity(), _loader(IMAGES, IMAGES[:, 0].long()), "xy"),
        {"kind": "class", "axis": 1},
        lambda lines, outputs: all(
            f"y {(picture.argmax(0) == 1).float().mean():.1%}" in line
            for line, picture in zip(lines, outputs, strict=True)
        ),
    ),
    "tokens": (
        lambda: _task(_Cumulative(), _loader(SERIES, SERIES[:, 0].long()), "abc"),
        {"kind": "class", "axis": 2},
        lambda lines, outputs: all("%" in line for line in lines),
    ),
    "several labels": (
        lambda: _task(
            nn.Sequential(nn.AvgPool1d(6), nn.Flatten()), _loader(SERIES, torch.ones(32, 3)), "abc"
        ),
        {"kind": "each", "axis": 1},
        lambda lines, outputs: (
            lines
            == [", ".join(n for n, v in zip("abc", row, strict=True) if v > 0) or "none" for row in outputs]
        ),
    ),
    "regression": (
        lambda: _task(nn.Flatten(), _loader(SERIES, SERIES)),
        {"kind": "values"},
        lambda lines, outputs: torch.allclose(torch.tensor([json.loads(line) for line in lines]), outputs),
    ),
    "large values": (
        lambda: _task(nn.Upsample(scale_factor=4), _loader(IMAGES, IMAGES)),
        {"kind": "values"},
        lambda lines, outputs: all("(2, 16, 16)" in line for line in lines),
    ),
    "two inputs by name": (
        lambda: _task(_Pair(), _loader(SERIES, SERIES, CLASSES, names=("right", "left", "y")), "abc"),
        {"kind": "class", "axis": 1},
        lambda lines, outputs: lines == ["abc"[index] for index in outputs.argmax(1)],
    ),
    "one of two outputs": (
        lambda: _task(_Two(), _loader(SERIES, CLASSES), "abc", output=1),
        {"kind": "class", "axis": 1},
        lambda lines, outputs: lines == ["abc"[index] for index in outputs.argmax(1)],
    ),
    "any length": (
        lambda: _task(_Cumulative(), _loader(SERIES, SERIES), dynamic={"input": {2: "time"}}),
        {"kind": "values"},
        lambda lines, outputs: len(lines) == len(outputs),
    ),
}


@pytest.mark.parametrize("kind", KINDS)
def test_the_script_serves_every_kind(kind: str, tmp_path: Path) -> None:
    make, described, right = KINDS[kind]
    task = make()
    assert describe_output(task) == described
    _write(task, tmp_path)
    check_script(tmp_path, task, RUNTIME)
    printed, outputs = _run(tmp_path / RUN_FILE, take(task.example, 8))
    assert right(printed, torch.from_numpy(outputs))


def test_a_script_that_fails_or_computes_something_else_is_found(tmp_path: Path) -> None:
    task = KINDS["classes"][0]()
    _write(task, tmp_path)
    script = tmp_path / RUN_FILE
    text = script.read_text()
    for change, reason in (
        (("for scores in outputs:", "for scores in outputs[1:]:"), "7 lines for 8 samples"),
        (("np.save(sys.argv[2], outputs)", "np.save(sys.argv[2], outputs + 1)"), "computes other outputs"),
        (
            ("def line(scores):", "def line(scores):\n    raise IndexError('too deep')"),
            "IndexError: too deep",
        ),
    ):
        assert change[0] in text
        script.write_text(text.replace(*change))
        with pytest.raises(StudyError, match=reason):
            check_script(tmp_path, task, RUNTIME)


def _write(task: Task, folder: Path) -> None:
    lower(task.model, task.example, folder / "model.onnx", dynamic=task.dynamic, others=task.other_examples)
    description = {"labels": list(task.labels), "output": describe_output(task)}
    (folder / "preprocess.json").write_text(json.dumps(description))
    (folder / RUN_FILE).write_text(run_script(*RUNTIME))
