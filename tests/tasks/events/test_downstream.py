from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from petra_optuna.errors import TaskError
from petra_optuna.tasks.events.dataset import FITTED, SCORED
from petra_optuna.tasks.events.downstream import Classifier, Downstream, downstream_metric

SMALL = Classifier(trees=20, learning_rate=0.2, least_leaf=5)


def _split(rows: int = 300, classes: int = 2, noise: float = 1.0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    targets = rng.integers(0, classes, rows)
    outputs = rng.normal(size=(rows, 4)) * noise
    outputs[:, 0] += targets
    roles = np.where(np.arange(rows) % 3 == 0, SCORED, FITTED)
    return outputs.astype(np.float32), np.stack([targets, roles, np.arange(rows)], axis=1)


@pytest.mark.parametrize("classes", [2, 3])
def test_probabilities_of_the_scored_rows_and_nothing_else(classes: int) -> None:
    outputs, targets = _split(classes=classes)
    scores, scored = Downstream(SMALL, classes)(outputs, targets)
    assert scores.shape == (100, classes)
    np.testing.assert_allclose(np.exp(scores).sum(1), 1.0)
    assert np.array_equal(scored, targets[::3, 0])
    other = targets.copy()
    other[::3, 0] = 0  # the classes of scored rows teach nothing
    assert np.array_equal(Downstream(SMALL, classes)(outputs, other)[0], scores)
    assert np.array_equal(Downstream(SMALL, classes)(outputs, targets)[0], scores)


def test_the_metric_is_that_of_the_probabilities() -> None:
    outputs, targets = _split()
    scores, scored = Downstream(SMALL, 2)(outputs, targets)
    quality = downstream_metric("auc", SMALL, 2)
    assert quality(outputs, targets) == pytest.approx(roc_auc_score(scored, np.exp(scores[:, 1])))
    accuracy = downstream_metric("accuracy", SMALL, 2)
    assert accuracy(outputs, targets) == pytest.approx((scores.argmax(1) == scored).mean())
    parts = accuracy.per_sample(*accuracy.prepared(outputs, targets))  # type: ignore[misc]
    assert parts.mean() == pytest.approx(accuracy(outputs, targets))


def test_auc_of_several_classes_is_the_mean_of_one_against_the_rest() -> None:
    outputs, targets = _split(classes=3)
    scores, scored = Downstream(SMALL, 3)(outputs, targets)
    expected = roc_auc_score(scored, np.exp(scores), multi_class="ovr")
    assert downstream_metric("auc", SMALL, 3)(outputs, targets) == pytest.approx(expected)


def test_embeddings_that_say_nothing_score_one_half() -> None:
    outputs, targets = _split(rows=3000)
    outputs[:, 0] = np.random.default_rng(1).normal(size=3000)
    assert downstream_metric("auc", SMALL, 2)(outputs, targets) == pytest.approx(0.5, abs=0.05)


def test_a_class_that_training_clients_lack_has_no_probability() -> None:
    outputs, targets = _split(classes=3)
    targets[(targets[:, 1] == FITTED) & (targets[:, 0] == 2), 0] = 1
    scores, _ = Downstream(SMALL, 4)(outputs, targets)
    assert scores.shape == (100, 4)
    assert (np.exp(scores[:, 2:]) < 1e-300).all()


def test_rows_that_do_not_serve_are_refused() -> None:
    outputs, targets = _split()
    only_fitted, one_class = targets.copy(), targets.copy()
    only_fitted[:, 1], one_class[:, 0] = FITTED, 1
    with pytest.raises(TaskError, match="no rows that are scored"):
        Downstream(SMALL, 2)(outputs, only_fitted)
    with pytest.raises(TaskError, match="rows of two classes or more, got only class"):
        Downstream(SMALL, 2)(outputs, one_class)
    with pytest.raises(TaskError, match=r"reads embeddings \(N, D\) and targets \(N, 3\), got \(300,\)"):
        Downstream(SMALL, 2)(outputs[:, 0], targets)
