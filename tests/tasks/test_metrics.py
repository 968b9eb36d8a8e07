from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import r2_score, roc_auc_score

from petra_optuna.errors import TaskError
from petra_optuna.tasks.metrics import METRICS, Metric, metric

RANDOM = np.random.default_rng(0)
CLASSES = RANDOM.integers(0, 3, 300)
GOOD = np.eye(3)[CLASSES] * 3 + RANDOM.normal(size=(300, 3))
BAD = RANDOM.normal(size=(300, 3))


@pytest.mark.parametrize("name", ["accuracy", "macro_f1", "auc"])
def test_a_better_classifier_scores_better_in_the_stated_direction(name: str) -> None:
    measure = metric(name)
    assert measure.direction == "maximize"
    assert measure(GOOD, CLASSES) > measure(BAD, CLASSES) + 0.2
    assert measure(np.eye(3)[CLASSES], CLASSES) == 1.0


def test_a_better_regression_has_the_smaller_error() -> None:
    measure = metric("rmse")
    assert measure.direction == "minimize"
    targets = np.array([1.0, 2.0, 4.0])
    assert measure(targets[:, None], targets) == 0.0
    assert measure(targets[:, None] + [[3.0], [0.0], [0.0]], targets) == pytest.approx(np.sqrt(3))


def test_accuracy_by_hand() -> None:
    outputs = np.array([[2.0, 1.0], [0.0, 1.0], [5.0, 4.0], [-2.0, -1.0]])
    assert metric("accuracy")(outputs, np.array([0, 1, 1, 1])) == 0.75
    assert metric("accuracy")(np.array([[0.3], [-0.1]]), np.array([1, 1])) == 0.5


def test_macro_f1_by_hand() -> None:
    outputs = np.eye(3)[[0, 0, 1, 1]]
    # class 0: precision 1/2, recall 1; class 1: 1/2, 1; class 2: never predicted, 0
    assert metric("macro_f1")(outputs, np.array([0, 2, 1, 2])) == pytest.approx((2 / 3 + 2 / 3 + 0) / 3)


def test_auc_uses_probabilities_of_all_classes_and_not_labels() -> None:
    powers = np.exp(GOOD)
    probabilities = powers / powers.sum(1, keepdims=True)
    expected = roc_auc_score(CLASSES, probabilities, multi_class="ovr", average="macro")
    assert metric("auc")(GOOD, CLASSES) == pytest.approx(expected)
    hard = np.eye(3)[GOOD.argmax(1)]
    assert metric("auc")(hard, CLASSES) < metric("auc")(GOOD, CLASSES)


def test_binary_auc_from_one_score_or_two_logits() -> None:
    targets = RANDOM.integers(0, 2, 200)
    score = targets + RANDOM.normal(size=200)
    expected = pytest.approx(roc_auc_score(targets, score))
    assert metric("auc")(score[:, None], targets) == expected
    assert metric("auc")(np.stack([-score, score], axis=1), targets) == expected


def test_auc_of_one_class_is_refused() -> None:
    with pytest.raises(TaskError, match="two classes or more"):
        metric("auc")(GOOD[:3], np.zeros(3, dtype=int))


def test_names_are_looked_up_and_own_metrics_pass_through() -> None:
    own = Metric("mine", "minimize", lambda outputs, targets: 0.5)
    assert metric(own) is own
    assert all(metric(known.name) is known for known in METRICS)
    with pytest.raises(
        TaskError, match="unknown metric 'acuracy'; known: accuracy, macro_f1, auc, rmse, mae, r2"
    ):
        metric("acuracy")


@pytest.mark.parametrize("classes", [2, 3])
def test_auc_ranks_by_logits_also_where_probabilities_are_rounded_to_one(classes: int) -> None:
    targets = np.arange(400) % 2
    margin = RANDOM.normal(60, 8, 400) + 10 * targets
    logits = np.stack([np.zeros(400), margin, np.full(400, -100.0)][:classes], 1).astype(np.float32)
    assert metric("auc")(logits, targets) == pytest.approx(roc_auc_score(targets, logits[:, 1]))


def test_rmse_of_several_outputs_is_the_root_of_the_mean_of_all() -> None:
    """And ranks models as the mean squared error does that they are trained on."""
    assert metric("rmse")(np.zeros((2, 2)), np.array([[0.0, 2.0], [0.0, 2.0]])) == pytest.approx(np.sqrt(2))
    even, uneven = (np.tile(errors, (100, 1)) for errors in ([1.0, 1.0], [0.2, 1.5]))
    assert metric("rmse")(even, np.zeros((100, 2))) < metric("rmse")(uneven, np.zeros((100, 2)))


def _without_first_rows(outputs: np.ndarray, targets: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The first rows are there to learn from: what is left are scores less their mean."""
    return outputs[2:] - outputs[:2].mean(), targets[2:]


def test_a_metric_may_prepare_a_split_and_leave_rows_out() -> None:
    own = Metric("shifted", "minimize", lambda outputs, targets: outputs.sum(), prepare=_without_first_rows)
    assert own(np.array([1.0, 3.0, 10.0, 20.0]), np.zeros(4)) == 26.0
    plain = Metric("shifted", "minimize", own.function)
    assert plain(np.array([1.0, 3.0, 10.0, 20.0]), np.zeros(4)) == 34.0


def test_mae_by_hand_and_by_sample() -> None:
    outputs, targets = np.array([[1.0], [2.0], [6.0]]), np.array([1.0, 4.0, 2.0])
    assert metric("mae").direction == "minimize"
    assert metric("mae")(outputs, targets) == pytest.approx((0 + 2 + 4) / 3)
    several = np.array([[1.0, 3.0], [0.0, 0.0]]), np.array([[0.0, 0.0], [0.0, 2.0]])
    assert metric("mae")(*several) == pytest.approx(1.5)
    assert metric("mae").per_sample is not None
    assert metric("mae").per_sample(*several).tolist() == [2.0, 1.0]


def test_r2_by_hand() -> None:
    targets = np.array([1.0, 2.0, 3.0, 6.0])  # mean 3, squares around it 4 + 1 + 0 + 9
    measure = metric("r2")
    assert measure.direction == "maximize"
    assert measure(targets[:, None], targets) == 1.0
    assert measure(np.full((4, 1), 3.0), targets) == 0.0
    assert measure(targets + np.array([1.0, 0.0, 0.0, -1.0]), targets) == pytest.approx(1 - 2 / 14)
    assert measure(np.full(4, 10.0), targets) == pytest.approx(1 - (81 + 64 + 49 + 16) / 14)


def test_r2_of_several_values_is_their_mean_as_in_scikit_learn() -> None:
    targets, outputs = RANDOM.normal(size=(50, 3)) * [1, 10, 100], RANDOM.normal(size=(50, 3))
    assert metric("r2")(outputs, targets) == pytest.approx(r2_score(targets, outputs))


def test_r2_of_a_constant_is_refused() -> None:
    with pytest.raises(TaskError, match="r2 needs targets that vary, and one of these is constant"):
        metric("r2")(np.zeros(3), np.ones(3))


@pytest.mark.parametrize("name", ["rmse", "mae", "r2"])
def test_another_number_of_outputs_than_targets_is_refused(name: str) -> None:
    assert metric(name).regression
    with pytest.raises(TaskError, match=rf"{name} compares value by value, got outputs \(3, 2\), targets"):
        metric(name)(np.zeros((3, 2)), np.zeros(3))


def test_metrics_of_classes_are_none_of_values() -> None:
    assert not any(metric(name).regression for name in ("accuracy", "macro_f1", "auc"))
