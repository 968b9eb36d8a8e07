"""Laws of the one repair of a file that loses too much quality."""

from __future__ import annotations

import functools
from pathlib import Path

import pytest
import torch
from support import planted_front

from petra_optuna.deploy import checks
from petra_optuna.errors import LoweringFailed, UserError
from petra_optuna.evaluation import Evaluator, Limits, TrainingLedger, quality_of, shipping
from petra_optuna.measurement import Baseline, FileMeasurement, Measurement, ShapeMeasurer
from petra_optuna.nn.inputs import forward
from petra_optuna.operations import Half, Prune, QuantizeAware, QuantizeDynamic, QuantizeStatic
from petra_optuna.pipeline import Operation, Pipeline, Recipe
from petra_optuna.runtimes import OnnxRuntime

WEIGHTED = OnnxRuntime.weighted

PTQ = Pipeline((QuantizeStatic(),))


class Remembering:
    """A measurer that remembers which files it was given."""

    def __init__(self) -> None:
        self.paths: list[Path] = []

    def measure(self, path: Path) -> FileMeasurement:
        self.paths.append(path)
        size = path.stat().st_size
        one = Measurement(
            ratio=size / 1e4,
            ratio_low=1.0,
            ratio_high=1.0,
            pairs=2,
            calls_per_block=1,
            batch=1,
            threads=1,
            candidate_ms=1.0,
            baseline_ms=1.0,
            spread=0.0,
            candidate_p95_ms=1.0,
            baseline_p95_ms=1.0,
        )
        return FileMeasurement(one, (one,))


@functools.cache
def _original() -> float:
    task = planted_front.make()
    with torch.inference_mode():
        return task.evaluate(lambda inputs: forward(task.model, inputs).numpy(), task.selection)


def _evaluator(folder: Path, drop: float | None = 0.02, **changes: object) -> Evaluator:
    settings = {"limits": Limits(quality_drop=drop), "baseline_quality": _original()} | changes
    measurer = ShapeMeasurer(Remembering(), Baseline(1.0, {1: 1.0}))
    return Evaluator(planted_front.make(), measurer, folder, **settings)  # type: ignore[arg-type]


def test_what_misses_the_limit_by_one_pair_of_layers_keeps_it_with_them_in_float(tmp_path: Path) -> None:
    ruined = _evaluator(tmp_path, None).evaluate(PTQ)
    assert ruined.repair is None
    assert ruined.values["accuracy"] < _original() - 0.5
    ledger = TrainingLedger()
    unit = _evaluator(tmp_path)
    evaluation = unit.evaluate(PTQ, ledger=ledger)
    assert evaluation.values["accuracy"] >= _original() - 0.02
    kernels = evaluation.artifact.lowering["kernels"]
    assert checks.count(kernels, WEIGHTED.float) == len(planted_front.SPOILED)
    assert checks.count(kernels, WEIGHTED.int8) == planted_front.LAYERS - len(planted_front.SPOILED)
    repair = evaluation.repair
    assert repair is not None
    assert repair.shipped
    assert len(repair.in_float) == len(planted_front.SPOILED)
    assert repair.drop_before == pytest.approx(_original() - ruined.values["accuracy"])
    assert repair.drop_after == pytest.approx(_original() - evaluation.values["accuracy"])
    assert (repair.size_before, repair.size_after) == (
        ruined.artifact.size_bytes,
        evaluation.artifact.size_bytes,
    )
    assert (ledger.repairs, ledger.repairs_within) == (1, 1)


def test_every_value_is_that_of_the_file_that_ships_and_the_other_is_gone(tmp_path: Path) -> None:
    unit = _evaluator(tmp_path)
    evaluation = unit.evaluate(PTQ)
    path = evaluation.artifact.path
    assert isinstance(unit.measurer.process, Remembering)
    assert unit.measurer.process.paths == [path] == list(tmp_path.iterdir())
    assert evaluation.values["accuracy"] == quality_of(path, unit.task, unit.task.selection)
    assert evaluation.values["size_bytes"] == path.stat().st_size
    assert evaluation.values["latency_ms"] == pytest.approx(path.stat().st_size / 1e4)


def test_a_repair_of_nothing_kept_is_the_file_of_the_pipeline_that_keeps_as_many(tmp_path: Path) -> None:
    """Only the file: parameters and hash stay those of the pipeline that was asked for."""
    evaluation = _evaluator(tmp_path).evaluate(PTQ)
    kept = _evaluator(tmp_path, None).evaluate(Pipeline((QuantizeStatic(keep_float=2),)))
    assert evaluation.artifact.sha256 == kept.artifact.sha256
    assert evaluation.pipeline == PTQ.canonical()
    assert evaluation.to_dict()["hash"] == PTQ.hash


def test_a_repair_adds_to_what_the_pipeline_keeps(tmp_path: Path) -> None:
    one = Pipeline((QuantizeStatic(keep_float=1),))
    evaluation = _evaluator(tmp_path).evaluate(one)
    assert evaluation.repair is not None
    assert 0 < len(evaluation.repair.in_float) < planted_front.LAYERS - 1
    kernels = evaluation.artifact.lowering["kernels"]
    assert checks.count(kernels, WEIGHTED.float) == 1 + len(evaluation.repair.in_float)


def test_the_same_pipeline_gets_the_same_repair_and_build_gives_its_file(tmp_path: Path) -> None:
    first, second = _evaluator(tmp_path).evaluate(PTQ), _evaluator(tmp_path).evaluate(PTQ)
    assert first.repair == second.repair
    assert first.artifact.sha256 == second.artifact.sha256 == _evaluator(tmp_path).build(PTQ).sha256
    assert _evaluator(tmp_path, None).build(PTQ).sha256 != first.artifact.sha256


def test_training_under_quantisation_implies_a_conversion_that_is_repaired_too(tmp_path: Path) -> None:
    trained = Pipeline((QuantizeAware(epochs=1),), Recipe(lr=1e-5))
    evaluation = _evaluator(tmp_path, baseline_quality=0.9).evaluate(trained)
    assert evaluation.pipeline.notation == "QAT-PTQ"
    assert evaluation.repair is not None
    assert evaluation.repair.shipped
    assert evaluation.values["accuracy"] > 0.9 > 0.9 - evaluation.repair.drop_before


def test_nothing_is_repaired_within_the_limit(tmp_path: Path) -> None:
    ledger = TrainingLedger()
    assert _evaluator(tmp_path, 0.99).evaluate(PTQ, ledger=ledger).repair is None
    assert ledger.repairs == 0


HELPLESS: dict[str, tuple[tuple[Operation, ...], str]] = {
    "half": ((Half(),), "fp16 has no layers to put back"),
    "dynamic": ((QuantizeDynamic(),), "dynamic has no layers to put back"),
    "float": ((), "without a conversion there are no layers to put back"),
    "a body that loses it": ((Prune(removed=0.9), QuantizeStatic()), "before the conversion it loses"),
}


@pytest.mark.parametrize("case", HELPLESS)
def test_where_float_cannot_help_none_is_tried_and_the_record_says_why(tmp_path: Path, case: str) -> None:
    nodes, reason = HELPLESS[case]
    ledger = TrainingLedger()
    unit = _evaluator(tmp_path, baseline_quality=1.0, limits=Limits(quality_drop=0.0))
    evaluation = unit.evaluate(Pipeline(nodes), ledger=ledger)
    assert evaluation.values["accuracy"] < 1.0
    assert evaluation.repair is not None
    assert reason in str(evaluation.repair.reason)
    assert evaluation.repair.drop_after is None
    assert ledger.repairs == 0
    assert list(tmp_path.iterdir()) == [evaluation.artifact.path]


def test_a_repair_that_fails_leaves_the_first_file_and_its_reason(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = shipping.lower

    def once(model, inputs, path, conversion, context, **given):  # type: ignore[no-untyped-def]
        if context.repair:
            raise LoweringFailed("the second file breaks a promise")
        return real(model, inputs, path, conversion, context, **given)

    monkeypatch.setattr(shipping, "lower", once)
    ledger = TrainingLedger()
    evaluation = _evaluator(tmp_path).evaluate(PTQ, ledger=ledger)
    expected = _evaluator(tmp_path, None).evaluate(PTQ)
    assert evaluation.artifact.sha256 == expected.artifact.sha256
    assert evaluation.values == expected.values
    assert evaluation.repair is not None
    assert evaluation.repair.reason == "LoweringFailed: the second file breaks a promise"
    assert not evaluation.repair.shipped
    assert (ledger.repairs, ledger.repairs_within) == (1, 0)


@pytest.mark.parametrize(("second", "ships"), [(0.5, True), (0.234375, False), (0.1, False)])
def test_the_file_that_loses_less_ships_though_both_are_beyond(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, second: float, ships: bool
) -> None:
    def quality(path: Path, *_: object) -> float:
        return second if "repaired" in path.name else 0.234375

    monkeypatch.setattr(shipping, "quality_of", quality)
    ledger = TrainingLedger()
    evaluation = _evaluator(tmp_path).evaluate(PTQ, ledger=ledger)
    assert evaluation.repair is not None
    assert evaluation.repair.shipped == ships
    assert evaluation.values["accuracy"] == max(second, 0.234375)
    assert ("repaired" in evaluation.artifact.path.name) == ships
    assert (ledger.repairs, ledger.repairs_within) == (1, 0)


def test_a_limit_needs_the_originals_quality(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="give `baseline_quality`"):
        _evaluator(tmp_path, baseline_quality=None)
