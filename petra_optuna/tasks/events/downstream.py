"""Quality of embeddings: what LightGBM, fitted on those of training clients, says of other clients."""

from __future__ import annotations

import dataclasses
import warnings
from typing import Literal

import lightgbm
import numpy as np

from petra_optuna.errors import TaskError
from petra_optuna.tasks.events.dataset import CLASS, FITTED, ROLE
from petra_optuna.tasks.metrics import Metric, metric

Quality = Literal["auc", "accuracy"]


@dataclasses.dataclass(frozen=True)
class Classifier:
    """Settings of LightGBM; one thread and a fixed seed, so that the same rows give the same trees.

    Attributes:
        trees: Number of trees.
        learning_rate: Weight of each tree.
        depth: Largest depth of a tree.
        leaves: Most leaves of a tree.
        features: Share of the features that each tree sees.
        samples: Share of the rows that each tree sees, drawn anew for each.
        l1, l2: Penalties of the leaves' values.
        least_leaf: Least number of rows of a leaf.
        seed: Seed of all that is drawn.
    """

    trees: int = 500
    learning_rate: float = 0.02
    depth: int = 6
    leaves: int = 31
    features: float = 0.75
    samples: float = 0.5
    l1: float = 0.0
    l2: float = 0.0
    least_leaf: int = 20
    seed: int = 0

    def log_probabilities(self, fitted: np.ndarray, classes: np.ndarray, scored: np.ndarray) -> np.ndarray:
        """Logarithm of each class's probability (rows, classes), float64.

        A class that ``classes`` lacks has the probability 0, whose logarithm is that of the least number.

        Args:
            fitted: Features (n, D) to learn from.
            classes: Class indices (n,).
            scored: Features (rows, D) to score.

        Raises:
            TaskError: When there is one class only.
        """
        present = np.unique(classes)
        if len(present) < 2:
            raise TaskError(f"a classifier needs rows of two classes or more, got only class {present}")
        model = lightgbm.LGBMClassifier(
            n_estimators=self.trees,
            learning_rate=self.learning_rate,
            max_depth=self.depth,
            num_leaves=self.leaves,
            colsample_bytree=self.features,
            subsample=self.samples,
            subsample_freq=1,
            reg_alpha=self.l1,
            reg_lambda=self.l2,
            min_child_samples=self.least_leaf,
            random_state=self.seed,
            n_jobs=1,
            deterministic=True,
            force_row_wise=True,
            verbose=-1,
        )
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # of features without names, and of early ends
            model.fit(fitted, classes)
            given = np.asarray(model.predict_proba(scored), dtype=np.float64)
        probabilities = np.zeros((len(scored), int(present.max()) + 1))
        probabilities[:, present] = given
        return np.log(np.maximum(probabilities, np.finfo(np.float64).tiny))


@dataclasses.dataclass(frozen=True)
class Downstream:
    """Turns embeddings and targets of a split into log probabilities and classes of its scored rows.

    Attributes:
        classifier: Classifier that is fitted on the rows whose role says so.
        classes: Number of classes.
    """

    classifier: Classifier
    classes: int

    def __call__(self, outputs: np.ndarray, targets: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Log probabilities (rows, classes) and class indices (rows,).

        Args:
            outputs: Embeddings (N, D).
            targets: Targets (N, 3), see ``dataset``.

        Raises:
            TaskError: When shapes differ, or no row is scored, or those to fit on have one class only.
        """
        if outputs.ndim != 2 or targets.ndim != 2 or len(outputs) != len(targets):
            raise TaskError(
                "the quality of events reads embeddings (N, D) and targets (N, 3), got "
                f"{outputs.shape} and {targets.shape}"
            )
        is_fitted = targets[:, ROLE] == FITTED
        if is_fitted.all():
            raise TaskError("the split has no rows that are scored")
        given = self.classifier.log_probabilities(
            outputs[is_fitted], targets[is_fitted, CLASS], outputs[~is_fitted]
        )
        lacking = np.full((len(given), self.classes - given.shape[1]), np.log(np.finfo(np.float64).tiny))
        return np.concatenate([given, lacking], axis=1), targets[~is_fitted, CLASS]


def downstream_metric(quality: Quality, classifier: Classifier, classes: int) -> Metric:
    """``auc`` or ``accuracy`` of the classifier's probabilities on the scored rows of a split.

    Args:
        quality: Name of the metric; ``auc`` of several classes is the mean of one against the rest.
        classifier: Classifier of embeddings.
        classes: Number of classes.
    """
    return dataclasses.replace(metric(quality), prepare=Downstream(classifier, classes))
