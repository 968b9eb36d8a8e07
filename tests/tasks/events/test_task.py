"""The whole path on planted events: pretraining, task, one compressed trial, its file and its quality."""

from __future__ import annotations

import copy
from pathlib import Path

import numpy as np
import pytest
import torch
from support.event_files import VALUES, write_planted, write_schema
from support.fast_measurement import BySize
from torch import Tensor

from petra_optuna.evaluation import Budget, Evaluator, predictor
from petra_optuna.measurement import Baseline, ShapeMeasurer
from petra_optuna.models.coles import contrastive_loss
from petra_optuna.nn.inputs import Inputs, batch_size_of, forward, take, to_feeds
from petra_optuna.operations import LowRank, Prune, QuantizeDynamic, Train
from petra_optuna.pipeline import Pipeline, Recipe
from petra_optuna.tasks import Split, Task, build_task, open_once
from petra_optuna.tasks.checks import check_evaluation, check_training
from petra_optuna.tasks.events.dataset import CLASS, CLIENT, FITTED, ROLE, SCORED
from petra_optuna.tasks.events.task import coles_loss, squared_distance

REACHED, BY_COUNTS = 0.95, 0.65
"""AUC that the encoder reaches on the planted events, and that the counts of the shops stay below."""


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = write_planted(tmp_path_factory.mktemp("events") / "data", 480, 30)
    write_schema(folder, training={"epochs": 20, "batch_size": 32, "peak_lr": 0.01})
    return folder


@pytest.fixture(scope="module")
def task(root: Path) -> Task:
    return build_task("event_sequences", data_root=root, cache_dir=root.parent / "cache")


def _predict(task: Task):  # type: ignore[no-untyped-def]
    def predict(inputs: Inputs) -> np.ndarray:
        with torch.inference_mode():
            return forward(task.model, inputs).numpy()

    return predict


def _shares(inputs: Inputs) -> np.ndarray:
    """Number and share of each shop among a client's events: the bag that knows no order."""
    assert isinstance(inputs, dict)
    shops = inputs["categories"][:, :, 0]
    counts = torch.stack([(shops == 2 + index).float().sum(1) for index in range(len(VALUES))], 1)
    return torch.cat([counts, counts / counts.sum(1, keepdim=True)], 1).numpy()


def _targets(split: Split) -> Tensor:
    return torch.cat([targets for _, targets in split.batches(64)])


def test_the_encoder_sees_the_order_that_counts_do_not_have(task: Task) -> None:
    assert task.evaluate(_predict(task), task.selection) >= REACHED
    assert task.evaluate(_shares, task.selection) <= BY_COUNTS


def test_the_quality_does_not_depend_on_the_batch_size(task: Task) -> None:
    expected = task.evaluate(_predict(task), task.selection)
    assert task.evaluate(_predict(task), task.selection, batch_size=7) == pytest.approx(expected, abs=1e-3)


def test_a_client_is_in_one_split_and_training_clients_alone_are_fitted(task: Task) -> None:
    assert task.test is not None
    splits = {"selection": _targets(task.selection), "test": _targets(open_once(task.test))}
    train = set(_targets(task.train)[:, CLIENT].tolist())
    scored = {
        name: set(targets[targets[:, ROLE] == SCORED, CLIENT].tolist()) for name, targets in splits.items()
    }
    assert all(len(clients) in (96, 97, 98) for clients in scored.values())
    assert not train & scored["selection"]
    assert not train & scored["test"]
    assert not scored["selection"] & scored["test"]
    for targets in splits.values():
        assert set(targets[targets[:, ROLE] == FITTED, CLIENT].tolist()) == train
        assert len(set(targets[:, CLIENT].tolist())) == len(targets)


def test_calibration_has_both_halves_of_training_clients_side_by_side(task: Task) -> None:
    targets = _targets(task.calibration)
    assert torch.equal(targets[::2], targets[1::2])
    assert set(targets[:, CLIENT].tolist()) <= set(_targets(task.train)[:, CLIENT].tolist())
    for label in (0, 1):
        of_class = targets[targets[:, CLASS] == label]
        assert abs(int((of_class[:, ROLE] == SCORED).sum()) - len(of_class) // 2) <= 2
    lengths = torch.cat([inputs["lengths"] for inputs, _ in task.calibration.batches(64)])  # type: ignore[call-overload]
    sums = (lengths[::2] + lengths[1::2]).tolist()
    assert set(sums) == {15, 30}
    assert np.isfinite(task.evaluate(_predict(task), task.calibration))


def test_files_are_measured_at_the_90th_percentile_of_the_lengths(task: Task) -> None:
    assert isinstance(task.example, dict)
    assert task.example["lengths"].tolist() == [30] * 8


def test_the_base_is_trained_once(task: Task, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("petra_optuna.tasks.classification.train_base", None)
    again = build_task("event_sequences", data_root=root, cache_dir=root.parent / "cache")
    assert again.fingerprint == task.fingerprint


def test_it_passes_the_checks_that_a_task_of_ones_own_has_to(task: Task) -> None:
    check_evaluation(copy.deepcopy(task.model), task.selection, task.metric)
    check_training(copy.deepcopy(task.model), task.train, task.loss, None)


def test_a_search_may_start_from_an_untrained_encoder(task: Task) -> None:
    untrained = task.in_mode("untrained")
    start, again = untrained.start(1), untrained.start(1)
    with torch.no_grad():
        outputs = forward(start, task.example)
        assert torch.equal(outputs, forward(again, task.example))
        assert not torch.allclose(outputs, forward(task.model, task.example))


def test_the_loss_is_that_of_the_slices_of_each_client(task: Task) -> None:
    inputs, targets = next(task.train.batches(6, shuffle_seed=0, augment=True))
    assert batch_size_of(inputs) == 5 * len(targets)
    outputs = forward(task.model, inputs)
    clients = torch.arange(6).repeat_interleave(5)
    torch.testing.assert_close(coles_loss(outputs, targets), contrastive_loss(outputs, clients) / 30)
    paired, halves = next(task.calibration.batches(8))
    outputs = forward(task.model, paired)
    pairs = torch.arange(4).repeat_interleave(2)
    torch.testing.assert_close(coles_loss(outputs, halves), contrastive_loss(outputs, pairs) / 8)


def test_distillation_is_the_squared_distance_of_embeddings() -> None:
    student, teacher = torch.tensor([[1.0, 0.0], [0.0, 1.0]]), torch.tensor([[0.0, 1.0], [0.0, 1.0]])
    assert squared_distance(student, teacher, 4.0) == pytest.approx(1.0)


def test_a_compressed_encoder_becomes_a_file_that_works_at_every_length(task: Task, tmp_path: Path) -> None:
    measurer = ShapeMeasurer(BySize(), Baseline(10.0, {16: 900.0, 64: 1000.0}))
    evaluator = Evaluator(task, measurer, tmp_path, budget=Budget(epochs=1))
    body = (Prune(removed=0.5, scope="local", criterion="taylor"), LowRank(), Train(epochs=1))
    pipeline = Pipeline((*body, QuantizeDynamic()), Recipe(batch_size=32, lr=1e-3, distillation_weight=0.5))
    evaluation = evaluator.evaluate(pipeline)
    assert evaluation.nodes[0]["channels"]["recurrent"] == [32, 16]
    assert evaluation.nodes[2]["distillation"] == 0.5
    assert evaluation.values["auc"] >= REACHED
    predict = predictor(evaluation.artifact.path, threads=1)
    short, _ = next(task.calibration.batches(8))
    long = task.example
    for inputs in (short, long):
        together = predict(inputs)
        assert together.shape == (8, 16)
        np.testing.assert_allclose(np.linalg.norm(together, axis=1), 1.0, rtol=1e-5)
        for row in range(8):
            alone = take(inputs, 1, row)
            assert isinstance(alone, dict)
            length = int(alone["lengths"])
            cut = {name: part if name == "lengths" else part[:, :length] for name, part in alone.items()}
            assert set(to_feeds(cut)) == {"categories", "numbers", "lengths"}
            assert float((predict(cut)[0] * together[row]).sum()) > 0.99
