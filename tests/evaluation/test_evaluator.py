"""Laws of the evaluator, with a measurer that counts instead of timing."""

from __future__ import annotations

import copy
import dataclasses
import hashlib
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest
import torch
from support.fast_measurement import BySize
from torch import Tensor, nn
from torch.utils.data import TensorDataset
from torch.utils.flop_counter import FlopCounterMode

from petra_optuna.errors import OperationFailed
from petra_optuna.evaluation import (
    Budget,
    EarlyStop,
    Evaluation,
    Evaluator,
    Limits,
    LimitUnreachable,
    PrefixCache,
    RungResult,
    Rungs,
    TrainingLedger,
    checkpoint,
    predictor,
)
from petra_optuna.evaluation.preview import preview
from petra_optuna.evaluation.rungs import RungCallback
from petra_optuna.measurement import Baseline, ShapeMeasurer
from petra_optuna.nn.inputs import take, tensors
from petra_optuna.operations import (
    Half,
    LowRank,
    Prune,
    QuantizeAware,
    QuantizeStatic,
    RegularizedTrain,
    Train,
)
from petra_optuna.pipeline import Operation, Pipeline, Recipe
from petra_optuna.tasks import Mode, Split, Task

PIPELINE = Pipeline(
    (Train(epochs=1), Prune(removed=0.5, scope="local"), Train(epochs=2), QuantizeStatic()),
    Recipe(batch_size=32),
)


def _evaluator(task: Task, folder: Path, **changes: object) -> Evaluator:
    (folder / "files").mkdir(exist_ok=True)
    settings = {"budget": Budget(epochs=3), "seed": 1} | changes
    measurer = ShapeMeasurer(BySize(), Baseline(10.0, {16: 900.0, 64: 1000.0}))
    return Evaluator(task, measurer, folder / "files", **settings)  # type: ignore[arg-type]


def _untimed(evaluation: Evaluation) -> dict[str, float]:
    return {name: value for name, value in evaluation.values.items() if name != "train_s"}


def _fingerprint(evaluation: Evaluation) -> str:
    return hashlib.sha256(evaluation.checkpoint).hexdigest() + evaluation.artifact.sha256


@pytest.mark.parametrize("mode", get_args(Mode))
def test_a_cached_prefix_and_a_cold_run_agree_bit_for_bit(
    tiny_task: Task, tmp_path: Path, mode: Mode
) -> None:
    task = tiny_task.in_mode(mode)
    cold = _evaluator(task, tmp_path).evaluate(PIPELINE)
    cached = _evaluator(task, tmp_path, cache=PrefixCache(tmp_path / "cache"))
    first = cached.evaluate(Pipeline(PIPELINE.nodes[:2], PIPELINE.recipe))
    second = cached.evaluate(PIPELINE)
    third = cached.evaluate(PIPELINE)
    assert (first.reused_nodes, second.reused_nodes, third.reused_nodes) == (0, 2, 3)
    assert _fingerprint(second) == _fingerprint(cold) == _fingerprint(third)
    assert _untimed(second) == _untimed(cold)
    assert [node["op"] for node in third.nodes] == ["train", "prune", "train"]
    assert third.values["train_s"] == second.values["train_s"] > 0  # what the model cost, cached or not


@pytest.mark.parametrize(
    "changes",
    [{"seed": 2}, {"budget": Budget(epochs=2)}, {"budget": Budget(epochs=3, data_fraction=0.5)}],
    ids=["seed", "epochs", "fraction"],
)
def test_what_changes_the_training_changes_the_key(
    tiny_task: Task, tmp_path: Path, changes: dict[str, object]
) -> None:
    cache = PrefixCache(tmp_path / "cache")
    one = _evaluator(tiny_task, tmp_path, cache=cache).evaluate(PIPELINE)
    other = _evaluator(tiny_task, tmp_path, cache=cache, **changes).evaluate(PIPELINE)
    assert other.reused_nodes < 3
    assert _fingerprint(one) != _fingerprint(other)


def test_an_untrained_pipeline_starts_from_initialisation_and_the_seed_decides(
    tiny_task: Task, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[dict[str, torch.Tensor]] = []

    def note(node: Train, model: nn.Module, context: Any) -> Any:
        seen.append({name: value.clone() for name, value in model.state_dict().items()})
        return apply(node, model, context)

    apply = Train.apply
    monkeypatch.setattr(Train, "apply", note)
    task = tiny_task.in_mode("untrained")
    for seed in (1, 2):
        _evaluator(task, tmp_path, seed=seed).evaluate(Pipeline((Train(epochs=1),)))
    for state, seed in zip(seen, (1, 2), strict=True):
        expected = task.start(seed).state_dict()
        assert all(torch.equal(value, expected[name]) for name, value in state.items())
    assert not torch.equal(seen[0]["head.weight"], seen[1]["head.weight"])


def test_nothing_of_the_trained_weights_is_in_an_untrained_pipeline(tiny_task: Task, tmp_path: Path) -> None:
    """Another trained model behind the same keys changes no bit; unless it is the teacher."""
    task = tiny_task.in_mode("untrained")
    other = copy.deepcopy(task.model)
    with torch.no_grad():
        other.get_parameter("head.weight").neg_()
    swapped = dataclasses.replace(task, model=other, fingerprinted=())
    assert swapped.fingerprint == task.fingerprint
    equal = []
    for weight in (0.0, 0.5):
        pipeline = Pipeline((Train(epochs=1),), Recipe(distillation_weight=weight))
        pair = [_evaluator(each, tmp_path).evaluate(pipeline) for each in (task, swapped)]
        equal.append(_fingerprint(pair[0]) == _fingerprint(pair[1]))
    assert equal == [True, False]


def test_the_modes_share_no_prefix(tiny_task: Task, tmp_path: Path) -> None:
    cache = PrefixCache(tmp_path / "cache")
    found = [
        _evaluator(tiny_task.in_mode(mode), tmp_path, cache=cache).evaluate(PIPELINE)
        for mode in get_args(Mode)
    ]
    assert [evaluation.reused_nodes for evaluation in found] == [0, 0]
    assert _fingerprint(found[0]) != _fingerprint(found[1])


def test_a_checkpoint_of_an_untrained_pipeline_rebuilds_from_the_model(
    tiny_task: Task, tmp_path: Path
) -> None:
    evaluation = _evaluator(tiny_task.in_mode("untrained"), tmp_path).evaluate(PIPELINE)
    rebuilt = checkpoint.from_bytes(evaluation.checkpoint, tiny_task.model)
    again = checkpoint.to_bytes(rebuilt, tiny_task.start(0))
    assert again == evaluation.checkpoint


def test_the_preview_of_an_untrained_pipeline_is_sure_only_of_shapes_that_no_weight_decides(
    tiny_task: Task,
) -> None:
    task = tiny_task.in_mode("untrained")
    sure = {
        node: preview(Pipeline((Train(epochs=1), node)), task, "key", Budget()).certain
        for node in (Prune(removed=0.5, scope="local"), Prune(removed=0.5, scope="global"), LowRank())
    }
    assert list(sure.values()) == [True, False, False]


def test_recipe_fields_that_no_node_reads_do_not_change_the_key(tiny_task: Task, tmp_path: Path) -> None:
    evaluator = _evaluator(tiny_task, tmp_path, cache=PrefixCache(tmp_path / "cache"))
    evaluator.evaluate(Pipeline((Train(epochs=1),), Recipe(lambda_hoyer=1e-4)))
    assert evaluator.evaluate(Pipeline((Train(epochs=1),), Recipe(lambda_hoyer=5.0))).reused_nodes == 1
    assert evaluator.evaluate(Pipeline((Train(epochs=1),), Recipe(lr=5e-3))).reused_nodes == 0


def test_values_are_those_of_the_file(tiny_task: Task, tmp_path: Path) -> None:
    evaluation = _evaluator(tiny_task, tmp_path).evaluate(PIPELINE)
    size = evaluation.artifact.path.stat().st_size
    assert evaluation.values["size_bytes"] == size == evaluation.artifact.size_bytes
    assert evaluation.values["latency_ms"] == pytest.approx(10.0 * size / 1e5)
    assert evaluation.values["throughput_per_s"] == pytest.approx(1000.0 / (2 * size / 1e5))
    assert evaluation.to_dict()["best_throughput_batch"] == 64
    assert evaluation.values["peak_memory_bytes"] == size
    assert evaluation.values["depth"] == 4
    halved = checkpoint.from_bytes(evaluation.checkpoint, tiny_task.model)
    assert evaluation.values["parameters"] == sum(weight.numel() for weight in halved.parameters())
    work = FlopCounterMode(display=False)
    with work, torch.no_grad():
        halved(*take(tiny_task.example, 1))  # type: ignore[misc]
    assert evaluation.values["macs"] == work.get_total_flops() / 2
    assert "energy_j" not in evaluation.values
    assert evaluation.artifact.sha256 == hashlib.sha256(evaluation.artifact.path.read_bytes()).hexdigest()


def test_quality_is_that_of_the_file_not_of_the_module(tiny_task: Task, tmp_path: Path) -> None:
    evaluation = _evaluator(tiny_task, tmp_path).evaluate(Pipeline((QuantizeStatic(),)))
    float_model = checkpoint.from_bytes(evaluation.checkpoint, tiny_task.model)
    with torch.inference_mode():
        inputs = tiny_task.example
        expected = float_model(*inputs).numpy()  # type: ignore[misc]
    run = predictor(evaluation.artifact.path, 1)
    assert not np.array_equal(run(inputs), expected)
    assert evaluation.values["accuracy"] == tiny_task.evaluate(run, tiny_task.selection)


def test_the_task_is_left_as_it_was(tiny_task: Task, tmp_path: Path) -> None:
    before = {name: value.clone() for name, value in tiny_task.model.state_dict().items()}
    _evaluator(tiny_task, tmp_path).evaluate(PIPELINE)
    after = tiny_task.model.state_dict()
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)


def test_quantisation_aware_training_implies_a_quantised_file(tiny_task: Task, tmp_path: Path) -> None:
    evaluation = _evaluator(tiny_task, tmp_path).evaluate(Pipeline((QuantizeAware(epochs=1),)))
    assert evaluation.pipeline.notation == "QAT-PTQ"
    kernels = evaluation.artifact.lowering["kernels"]
    assert kernels.get("QLinearConv", 0) > 0
    assert kernels.get("Conv", 0) == 0


def test_a_preview_that_must_break_a_limit_stops_before_training(tiny_task: Task, tmp_path: Path) -> None:
    evaluator = _evaluator(tiny_task, tmp_path, limits=Limits(size_bytes=10.0))
    with pytest.raises(LimitUnreachable, match="counts at least") as stop:
        evaluator.evaluate(PIPELINE)
    assert stop.value.preview.parameters > 0


def test_the_preview_is_a_lower_bound_of_the_file(tiny_task: Task, tmp_path: Path) -> None:
    for pipeline in (Pipeline(), Pipeline((Prune(removed=0.5, scope="local"), LowRank())), PIPELINE):
        evaluation = _evaluator(tiny_task, tmp_path, limits=Limits(size_bytes=1e9)).evaluate(pipeline)
        assert evaluation.preview is not None
        assert evaluation.preview.size_bytes <= evaluation.values["size_bytes"]


def test_a_preview_that_training_can_change_stops_nothing(tiny_task: Task, tmp_path: Path) -> None:
    shaped = Pipeline((Train(epochs=1), Prune(removed=0.5, scope="global")))
    evaluator = _evaluator(tiny_task, tmp_path, limits=Limits(size_bytes=10.0))
    evaluation = evaluator.evaluate(shaped)
    assert evaluation.preview is not None
    assert not evaluation.preview.certain
    assert evaluation.values["size_bytes"] > 10.0


@pytest.mark.parametrize(("limits", "times"), [(Limits(), 1), (Limits(size_bytes=1e9), 2)])
def test_structural_nodes_run_twice_only_where_a_preview_may_stop_the_trial(
    tiny_task: Task, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, limits: Limits, times: int
) -> None:
    applied, apply = [], Prune.apply

    def counted(node: Prune, model: nn.Module, context: Any) -> Any:
        applied.append(node)
        return apply(node, model, context)

    monkeypatch.setattr(Prune, "apply", counted)
    evaluation = _evaluator(tiny_task, tmp_path, limits=limits).evaluate(PIPELINE)
    assert len(applied) == times
    assert (evaluation.preview is not None) == (times == 2)


def test_an_error_of_torch_is_the_trials_reason(
    tiny_task: Task, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object) -> None:
        raise RuntimeError("mat1 and mat2 shapes cannot be multiplied")

    monkeypatch.setattr(Prune, "apply", broken)
    with pytest.raises(OperationFailed, match=r"prune: RuntimeError: mat1 and mat2"):
        _evaluator(tiny_task, tmp_path).evaluate(Pipeline((Train(epochs=1), Prune())))


def test_a_training_counts_by_the_epochs_that_it_gets(tiny_task: Task, tmp_path: Path) -> None:
    """Whatever it asks for beyond the budget: the same model, once trained."""
    evaluator = _evaluator(
        tiny_task, tmp_path, cache=PrefixCache(tmp_path / "cache"), budget=Budget(epochs=1)
    )
    first, second = (evaluator.evaluate(Pipeline((Train(epochs=asked),))) for asked in (1, 3))
    assert (first.reused_nodes, second.reused_nodes) == (0, 1)
    assert first.checkpoint == second.checkpoint


def test_a_damaged_cache_entry_is_healed_and_counted(tiny_task: Task, tmp_path: Path) -> None:
    cache = PrefixCache(tmp_path / "cache")
    evaluator = _evaluator(tiny_task, tmp_path, cache=cache)
    pipeline = Pipeline((Train(epochs=1),))
    first, second, third = TrainingLedger(), TrainingLedger(), TrainingLedger()
    cold = evaluator.evaluate(pipeline, ledger=first)
    (path,) = cache.folder.iterdir()
    path.write_bytes(path.read_bytes()[:-1])
    healed = evaluator.evaluate(pipeline, ledger=second)
    evaluator.evaluate(pipeline, ledger=third)
    assert [one.cache_healed for one in (first, second, third)] == [0, 1, 0]
    assert [one.cache_hits for one in (first, second, third)] == [0, 0, 1]
    assert [one.cache_misses for one in (first, second, third)] == [1, 1, 0]
    assert first.train_s > third.train_s == 0 < third.cache_saved_s
    assert _fingerprint(healed) == _fingerprint(cold)


def test_a_stopped_training_leaves_nothing_in_the_cache(tiny_task: Task, tmp_path: Path) -> None:
    seen: list[RungResult] = []

    def judge(result: RungResult) -> str | None:
        seen.append(result)
        return "no" if result.rung == 2 else None

    cache = PrefixCache(tmp_path / "cache")
    evaluator = _evaluator(tiny_task, tmp_path, cache=cache, rungs=Rungs(1, 1.0, levels=None))
    ledger = TrainingLedger()
    found = evaluator.evaluate(PIPELINE, judge, ledger)
    assert [result.rung for result in seen] == [1, 2]
    assert found.stopped == EarlyStop(2, 2.0, "no")
    assert (ledger.rung_stops, ledger.saved_epochs) == (1, 1.0)
    assert evaluator.evaluate(PIPELINE).reused_nodes == 2


@pytest.mark.parametrize("later", [(), (Prune(removed=0.5, scope="local"), Train(epochs=1))], ids=len)
def test_a_stopped_pipeline_is_finished_as_it_stands(
    tiny_task: Task, tmp_path: Path, later: tuple[Operation, ...]
) -> None:
    """The file is that of the model at the rung, after the nodes that are left, untrained."""
    rungs, pipeline = Rungs(1, 0.5), Pipeline((Train(epochs=2), *later, Half()), PIPELINE.recipe)
    evaluator = _evaluator(tiny_task, tmp_path, rungs=rungs, budget=Budget(epochs=3))
    seen: list[RungResult] = []

    def judge(result: RungResult) -> str:
        seen.append(result)
        return "no"

    found, whole = evaluator.evaluate(pipeline, judge), evaluator.evaluate(pipeline)
    assert found.stopped == EarlyStop(1, 0.5, "no")
    assert whole.stopped is None
    (result,) = seen
    if not later:
        assert found.values["accuracy"] == pytest.approx(result.quality, abs=0.02)
    assert found.values["macs"] == result.macs
    assert found.values["size_bytes"] == whole.values["size_bytes"]
    assert found.values["train_s"] > 0
    assert [report["op"] for report in found.nodes] == [node.name for node in pipeline.body]
    assert found.nodes[0]["epochs"] == 0.5
    assert all(report["changed"] is (report["op"] == "prune") for report in found.nodes[1:])
    assert found.checkpoint != whole.checkpoint
    again = evaluator.build(pipeline, stop=found.stopped)
    assert again.sha256 == found.artifact.sha256 != whole.artifact.sha256
    with pytest.raises(OperationFailed, match="stop at rung 1 and was not judged there"):
        dataclasses.replace(evaluator, rungs=None).build(pipeline, stop=found.stopped)


def test_what_is_left_of_a_training_is_reckoned_from_its_pace(tiny_task: Task) -> None:
    """Not from what the node does before its first step, and without judging."""
    clock = [0.0]
    seen: list[RungResult] = []
    pipeline, steps = Pipeline((Train(epochs=2),), PIPELINE.recipe), tiny_task.train.steps(32, 1.0)
    callback = RungCallback(
        task=tiny_task,
        pipeline=pipeline,
        keys=("",),
        epochs=(2,),
        index=0,
        moments={1: 0.5, 2: 1.0},
        judge=seen.append,
        ledger=TrainingLedger(),
        clock=lambda: clock[0],
    )

    def snapshot() -> nn.Module:
        clock[0] += 1000
        return tiny_task.model

    clock[0] += 100
    for step in range(1, steps + 1):
        clock[0] += 3
        callback(snapshot, step / steps)
    assert [one.rest_s for one in seen] == pytest.approx([3 * steps * 1.5, 3 * steps], rel=1 / steps)


def _judged(task: Task, folder: Path, pipeline: Pipeline, rungs: Rungs) -> list[RungResult]:
    seen: list[RungResult] = []
    ledger = TrainingLedger()
    evaluator = _evaluator(task, folder, rungs=rungs, budget=Budget(epochs=2))
    evaluator.evaluate(pipeline, seen.append, ledger)
    assert ledger.judging_s > 0
    return seen


def test_a_pipeline_is_judged_in_the_shape_that_it_will_have(tiny_task: Task, tmp_path: Path) -> None:
    """Also at a rung that it meets before the node that gives it that shape."""
    rungs = Rungs(min_epochs=1, min_fraction=0.5)
    shape = Prune(removed=0.5, scope="local")
    late = _judged(tiny_task, tmp_path, Pipeline((Train(epochs=2), shape), PIPELINE.recipe), rungs)
    early = _judged(tiny_task, tmp_path, Pipeline((shape, Train(epochs=2)), PIPELINE.recipe), rungs)
    small = Pipeline((shape, Train(epochs=2), QuantizeStatic()), PIPELINE.recipe)
    quantized = _judged(tiny_task, tmp_path, small, rungs)
    plain = _judged(tiny_task, tmp_path, Pipeline((Train(epochs=2),), PIPELINE.recipe), rungs)
    assert [one.rung for one in late] == [one.rung for one in early] == [1]
    (shapes,) = {(one.size_bytes, one.macs) for one in (*late, *early)}
    assert shapes < (plain[0].size_bytes, plain[0].macs)
    assert quantized[0].size_bytes < shapes[0]
    assert late[0].quality != plain[0].quality


@pytest.mark.parametrize(
    "node", [RegularizedTrain(epochs=2), QuantizeAware(epochs=2)], ids=lambda node: node.name
)
def test_what_a_node_inserts_for_its_training_is_not_judged(
    node: Operation, tiny_task: Task, tmp_path: Path
) -> None:
    """Temporary factors have more weights, and a simulation cannot be pruned."""
    rungs, recipe = Rungs(min_epochs=1, min_fraction=0.5), Recipe(batch_size=32, orthogonal=True)
    shape, half = Prune(removed=0.5, scope="local"), Half()
    (plain,) = _judged(tiny_task, tmp_path, Pipeline((Train(epochs=2), half), recipe), rungs)
    (found,) = _judged(tiny_task, tmp_path, Pipeline((node, half), recipe), rungs)
    (small,) = _judged(tiny_task, tmp_path, Pipeline((node, shape, half), recipe), rungs)
    assert (found.size_bytes, found.macs) == (plain.size_bytes, plain.macs)
    assert (small.size_bytes, small.macs) < (plain.size_bytes, plain.macs)


@pytest.mark.parametrize(
    "node", [RegularizedTrain(epochs=1), QuantizeAware(epochs=1)], ids=lambda node: node.name
)
def test_judging_changes_nothing(node: Operation, tiny_task: Task, tmp_path: Path) -> None:
    pipeline, rungs = Pipeline((node,), Recipe(batch_size=32)), Rungs(1, 0.25, levels=None)
    seen: list[RungResult] = []
    judged = _evaluator(tiny_task, tmp_path, rungs=rungs).evaluate(pipeline, seen.append)
    assert seen
    assert _fingerprint(judged) == _fingerprint(_evaluator(tiny_task, tmp_path).evaluate(pipeline))


def test_what_later_training_heals_is_not_held_against_a_pipeline(tiny_task: Task, tmp_path: Path) -> None:
    """Its quality is that of the model as it stands, its shape the one that it will have."""
    rungs, shape = Rungs(min_epochs=1, min_fraction=0.5), Prune(removed=0.8, scope="local")

    def judged(*body: Operation) -> RungResult:
        (result,) = _judged(tiny_task, tmp_path, Pipeline(body, PIPELINE.recipe), rungs)
        return result

    plain, cut = judged(Train(epochs=1), Train(epochs=1)), judged(Train(epochs=1), shape)
    healing = judged(Train(epochs=1), shape, Train(epochs=1))
    assert healing.quality == plain.quality != cut.quality
    assert healing.size_bytes == cut.size_bytes < plain.size_bytes


def test_a_pipeline_that_cannot_be_shaped_yet_is_not_judged(
    tiny_task: Task, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    callers, apply = iter(("rung", "body")), Prune.apply

    def not_at_the_rung(node: Prune, model: nn.Module, context: Any) -> Any:
        if next(callers) == "rung":
            raise OperationFailed("nothing to prune yet")
        return apply(node, model, context)

    monkeypatch.setattr(Prune, "apply", not_at_the_rung)
    pipeline = Pipeline((Train(epochs=2), Prune(removed=0.5, scope="local")), PIPELINE.recipe)
    assert _judged(tiny_task, tmp_path, pipeline, Rungs()) == []


@pytest.mark.usefixtures("exported_anew")
def test_a_structure_is_traced_once_and_its_files_are_those_of_a_new_evaluator(
    tiny_task: Task, tmp_path: Path
) -> None:
    pipelines = [Pipeline((Train(epochs=epochs), QuantizeStatic()), PIPELINE.recipe) for epochs in (1, 2)]
    evaluator, ledgers = _evaluator(tiny_task, tmp_path), (TrainingLedger(), TrainingLedger())
    files = [
        evaluator.evaluate(*pair, None, ledger) for *pair, ledger in zip(pipelines, ledgers, strict=True)
    ]
    alone = _evaluator(tiny_task, tmp_path).evaluate(pipelines[1])
    assert [(ledger.exports, ledger.exports_spared) for ledger in ledgers] == [(1, 0), (0, 1)]
    assert files[1].artifact.sha256 == alone.artifact.sha256 != files[0].artifact.sha256
    for ledger in ledgers:
        assert min(ledger.export_s, ledger.conversion_s, ledger.certificate_s, ledger.quality_s) > 0


@pytest.mark.parametrize(("mode", "calls"), [("pretrained", 1), ("untrained", 2)])
def test_nodes_in_front_of_the_training_are_applied_once_to_a_trained_model(
    tiny_task: Task, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mode: Mode, calls: int
) -> None:
    """For the preview and for the file; a network from initialisation is another than the preview's."""
    applied, apply = [], Prune.apply
    monkeypatch.setattr(Prune, "apply", lambda *args: applied.append(1) or apply(*args))
    cache = PrefixCache(tmp_path / "cache")
    limits = Limits(size_bytes=1e9)
    evaluator = _evaluator(tiny_task.in_mode(mode), tmp_path, cache=cache, limits=limits)
    pipeline = Pipeline((Prune(removed=0.5, scope="local"), Train(epochs=1)), PIPELINE.recipe)
    cold = evaluator.evaluate(pipeline)
    assert len(applied) == calls
    again = evaluator.evaluate(pipeline)
    assert len(applied) == calls + calls - 1
    assert again.reused_nodes == 2
    assert again.preview == cold.preview
    assert again.preview == dataclasses.replace(evaluator, cache=None).evaluate(pipeline).preview


def test_a_judged_training_goes_on_as_an_unjudged_one_though_the_data_draws(
    tiny_task: Task, tmp_path: Path
) -> None:
    """Judging reads selection, whose transforms draw from the generators that the training draws from."""

    class Noisy(TensorDataset):
        def __getitem__(self, index: int) -> tuple[Tensor, ...]:
            image, target = super().__getitem__(index)
            return image + 0.1 * torch.randn_like(image), target

    splits = {}
    for name, split in (("train", tiny_task.train), ("selection", tiny_task.selection)):
        inputs, targets = next(split.batches(128))
        splits[name] = Split(Noisy(*tensors(inputs), targets))
    task = dataclasses.replace(tiny_task, **splits)
    pipeline = Pipeline((Train(epochs=2),), PIPELINE.recipe)
    judged, seen = [], []

    def judge(result: RungResult) -> str | None:
        seen.append(result.quality)
        return None

    for rungs, given in ((None, None), (Rungs(1, 0.5), judge)):
        found = _evaluator(task, tmp_path, rungs=rungs, budget=Budget(epochs=2)).evaluate(pipeline, given)
        judged.append(found.nodes[0]["loss"])
    assert seen
    assert judged[0] == judged[1]
