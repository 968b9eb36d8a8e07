"""Metrics: the quality of a model as one number with a direction."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import numpy as np
from scipy.special import logsumexp
from sklearn.metrics import accuracy_score, f1_score, roc_auc_score

from petra_optuna.aliases import Direction
from petra_optuna.errors import TaskError


@dataclasses.dataclass(frozen=True)
class Metric:
    """A named measure of quality.

    Attributes:
        name: Name under which values are reported.
        direction: ``maximize`` where more is better, else ``minimize``.
        function: Maps outputs (N, ...) and targets (N, ...) to a float.
        per_sample: Maps the same arguments to the numbers (N,) whose mean is the metric; None where it is no
            mean. With it resampling is a hundred times faster.
        prepare: Maps outputs and targets of a whole split to those that ``function`` and ``per_sample`` read;
            None where they read them as they are. It may leave rows out: a split can hold rows on which a
            classifier of the outputs is fitted. A confirmation prepares once and resamples what is left.
        regression: Whether targets are values and not classes. Conversions and searches are gentler then (see
            docs/decisions/regression.md).

    Example:
        >>> error = Metric("mae", "minimize", lambda outputs, targets: float(abs(outputs - targets).mean()))
        >>> error(np.array([1.0, 2.0]), np.array([1.0, 4.0]))
        1.0
    """

    name: str
    direction: Direction
    function: Callable[[np.ndarray, np.ndarray], float]
    per_sample: Callable[[np.ndarray, np.ndarray], np.ndarray] | None = None
    prepare: Callable[[np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray]] | None = None
    regression: bool = False

    def __call__(self, outputs: np.ndarray, targets: np.ndarray) -> float:
        """The metric of all samples at once."""
        return self.of_prepared(*self.prepared(outputs, targets))

    def of_prepared(self, outputs: np.ndarray, targets: np.ndarray) -> float:
        """The metric of what ``prepared`` gives, or of some of its samples."""
        return float(self.function(outputs, targets))

    def prepared(self, outputs: np.ndarray, targets: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Outputs and targets as ``function`` reads them."""
        return (outputs, targets) if self.prepare is None else self.prepare(outputs, targets)


def accuracy(outputs: np.ndarray, targets: np.ndarray) -> float:
    """Share of samples whose largest logit (N, C), or sign of one logit (N,) or (N, 1), is right.

    Raises:
        TaskError: When outputs are not of these shapes, or targets are no class indices (N,) of theirs.
    """
    scores = _scores(outputs)
    return float(accuracy_score(_classes(targets, scores), _predicted(scores)))


def macro_f1(outputs: np.ndarray, targets: np.ndarray) -> float:
    """F1 averaged over classes; shapes as in ``accuracy``."""
    scores = _scores(outputs)
    return float(f1_score(_classes(targets, scores), _predicted(scores), average="macro", zero_division=0))


def auc(outputs: np.ndarray, targets: np.ndarray) -> float:
    """Area under the ROC curve; with several classes the mean of one class against the rest.

    Samples are ranked by one score (N,) or (N, 1), or for class c of logits (N, C) by ``logit_c -
    logsumexp(other logits)``: the order of its softmax probability, also where that is rounded to 1.
    Classes that ``targets`` lacks have no curve and are left out of the mean.

    Raises:
        TaskError: When the targets hold one class only, or shapes are not those of ``accuracy``.
    """
    scores = _scores(outputs).astype(np.float64)
    classes = _classes(targets, scores)
    present = np.unique(classes)
    if len(present) < 2:
        raise TaskError(f"auc needs samples of two classes or more, this split holds only class {present}")
    if scores.shape[1] == 1:
        return float(roc_auc_score(classes, scores[:, 0]))
    if scores.shape[1] == 2:
        return float(roc_auc_score(classes, scores[:, 1] - scores[:, 0]))
    return float(np.mean([roc_auc_score(classes == label, _margin(scores, label)) for label in present]))


def rmse(outputs: np.ndarray, targets: np.ndarray) -> float:
    """Root of the mean squared error of outputs (N,) or (N, ...) against targets of as many values.

    Raises:
        TaskError: When a sample has another number of outputs than of targets.
    """
    return float(np.sqrt(np.square(_differences("rmse", outputs, targets)).mean()))


def mae(outputs: np.ndarray, targets: np.ndarray) -> float:
    """Mean absolute error of outputs (N,) or (N, ...) against targets of as many values.

    Raises:
        TaskError: When a sample has another number of outputs than of targets.
    """
    return float(absolute_errors(outputs, targets).mean())


def absolute_errors(outputs: np.ndarray, targets: np.ndarray) -> np.ndarray:
    """Mean absolute error of each sample: (N,)."""
    return np.asarray(np.abs(_differences("mae", outputs, targets)).mean(axis=1))


def r2(outputs: np.ndarray, targets: np.ndarray) -> float:
    """Share of the targets' variance that the outputs explain, the mean over the values of a sample.

    1 is perfect, 0 is as good as the mean of these targets, and worse than that is negative.

    Raises:
        TaskError: When a sample has another number of outputs than of targets, or a target never varies.
    """
    squares = np.square(_differences("r2", outputs, targets)).sum(axis=0)
    values = targets.reshape(len(targets), -1).astype(np.float64)
    spread = np.square(values - values.mean(axis=0)).sum(axis=0)
    if not (spread > 0).all():
        raise TaskError("r2 needs targets that vary, and one of these is constant; take rmse or mae")
    return float((1 - squares / spread).mean())


def correct(outputs: np.ndarray, targets: np.ndarray) -> np.ndarray:
    """1 for each sample that ``accuracy`` counts as right, else 0: (N,)."""
    scores = _scores(outputs)
    return np.asarray(_classes(targets, scores) == _predicted(scores), dtype=np.float64)


def _differences(name: str, outputs: np.ndarray, targets: np.ndarray) -> np.ndarray:
    """Outputs less targets, (N, values of a sample) in double precision."""
    if outputs.size != targets.size:
        raise TaskError(
            f"{name} compares value by value, got outputs {outputs.shape}, targets {targets.shape}"
        )
    rows = len(targets)
    return np.asarray(outputs.reshape(rows, -1).astype(np.float64) - targets.reshape(rows, -1))


def _scores(outputs: np.ndarray) -> np.ndarray:
    """Outputs as (N, C), or (N, 1) where there is one a sample."""
    positions = int(np.prod(outputs.shape[2:]))
    if positions != 1:
        raise TaskError(
            f"the built-in metrics of classes read outputs (N, C), (N, 1) or (N,), got {outputs.shape}; "
            "give a Metric(name, direction, function) for outputs with positions"
        )
    return outputs.reshape(len(outputs), -1)


def _classes(targets: np.ndarray, scores: np.ndarray) -> np.ndarray:
    """Targets as class indices (N,) of the scores (N, C), of 0 and 1 where there is one score a sample."""
    count = max(2, scores.shape[1])
    flat = targets.reshape(-1)
    if len(flat) != len(scores):
        raise TaskError(
            f"the built-in metrics of classes read one class index a sample, got targets {targets.shape} for "
            f"{len(scores)} samples; give a Metric(name, direction, function)"
        )
    if not np.isin(flat, np.arange(count)).all():
        raise TaskError(f"targets must be class indices from 0 to {count - 1}, got {np.unique(flat)[:5]}")
    return flat.astype(np.int64)


def _predicted(scores: np.ndarray) -> np.ndarray:
    """Class indices (N,) of logits (N, C), or of one logit a sample, positive meaning class 1."""
    if scores.shape[1] == 1:
        return (scores[:, 0] > 0).astype(np.int64)
    return np.asarray(np.argmax(scores, axis=1))


def _margin(scores: np.ndarray, label: int) -> np.ndarray:
    """``logit_c - logsumexp(other logits)`` of class c: (N,)."""
    return np.asarray(scores[:, label] - logsumexp(np.delete(scores, label, axis=1), axis=1))


METRICS = (
    Metric("accuracy", "maximize", accuracy, correct),
    Metric("macro_f1", "maximize", macro_f1),
    Metric("auc", "maximize", auc),
    Metric("rmse", "minimize", rmse, regression=True),
    Metric("mae", "minimize", mae, absolute_errors, regression=True),
    Metric("r2", "maximize", r2, regression=True),
)


def metric(name: str | Metric) -> Metric:
    """The built-in metric of that name; a ``Metric`` is returned as it is.

    Raises:
        TaskError: When the name is unknown.
    """
    if isinstance(name, Metric):
        return name
    for candidate in METRICS:
        if candidate.name == name:
            return candidate
    names = ", ".join(candidate.name for candidate in METRICS)
    raise TaskError(f"unknown metric {name!r}; known: {names}; or give a Metric(name, direction, function)")
