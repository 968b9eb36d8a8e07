"""Trains the network of one trial from rung to rung, each time from where it stands."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from petra_optuna.edgetune.workload import Workload
from petra_optuna.evaluation import Budget
from petra_optuna.measurement import Counter
from petra_optuna.nn.batch_norm import reestimate_batch_norm
from petra_optuna.nn.inputs import Inputs, forward
from petra_optuna.nn.randomness import seeded
from petra_optuna.nn.training import parameter_groups, run_epochs
from petra_optuna.tasks.calibration import calibration_batches

MOMENTUM = 0.9
WEIGHT_DECAY = 5e-4
_NORM_SAMPLES, _NORM_BATCH = 512, 128
SCHEDULE = "cosine"
"""Each segment ends at a low learning rate, so that trials are compared at their best (arXiv 1608.03983)."""


@dataclasses.dataclass
class TrialTraining:
    """Training of one network.

    Attributes:
        workload: Data, loss and optimiser.
        network: The network, which is trained in place.
        parameters: ``batch_size`` and ``learning_rate``.
        seed: Seed of order, augmentation and dropout.
        step: Called after each training step; the seconds and joules that it takes are no training.
        counter: Counter of energy, which counts this process; None for none.
        train_s: Seconds of training so far.
        train_j: Joules of training so far; None without a counter.
        epochs: Epochs so far.
    """

    workload: Workload
    network: nn.Module
    parameters: Mapping[str, Any]
    seed: int
    step: Callable[[], None]
    counter: Counter | None = None
    train_s: float = 0.0
    train_j: float | None = None
    epochs: int = 0

    def __post_init__(self) -> None:
        """Make the optimiser, which keeps its state over the rungs."""
        groups = parameter_groups(self.network, WEIGHT_DECAY)
        rate = self.parameters["learning_rate"]
        self._optimizer: torch.optim.Optimizer
        if self.workload.optimizer == "sgd":
            self._optimizer = torch.optim.SGD(groups, lr=rate, momentum=MOMENTUM, nesterov=True)
        else:
            self._optimizer = torch.optim.AdamW(groups, lr=rate)

    def train(self, budget: Budget) -> None:
        """Train on for the epochs over the share of the data that a budget allows.

        Raises:
            TrainingDiverged: When a loss or a gradient is NaN or infinite, or the loss diverges.
        """
        task, batch_size = self.workload.task, self.parameters["batch_size"]
        first = self.epochs
        stood_s = stood_j = 0.0

        def after_step(taken: int) -> None:
            nonlocal stood_s, stood_j
            paused, paused_j = time.perf_counter(), self._joules()
            self.step()
            stood_s += time.perf_counter() - paused
            stood_j += (self._joules() or 0.0) - (paused_j or 0.0)

        began, before_j = time.perf_counter(), self._joules()
        with seeded(self.seed + first):
            run_epochs(
                self.network,
                lambda epoch: task.train.batches(
                    batch_size,
                    shuffle_seed=self.seed + first + epoch,
                    fraction=budget.data_fraction,
                    augment=True,
                ),
                self._loss,
                self._optimizer,
                schedule=SCHEDULE,
                epochs=budget.epochs,
                steps_per_epoch=task.train.steps(batch_size, budget.data_fraction),
                after_step=after_step,
            )
            self._settle_norms()
        self.train_s += time.perf_counter() - began - stood_s
        self.epochs += budget.epochs
        after_j = self._joules()
        if before_j is not None and after_j is not None:
            self.train_j = (self.train_j or 0.0) + after_j - before_j - stood_j

    def _settle_norms(self) -> None:
        """Replace the statistics of batch norms by those of the weights as they are now.

        A rung of few steps leaves them behind the weights: M5 after 30 steps of 512 samples is right for 27 %
        of its clips by them, and for 72 % by those of the weights.
        """
        batches = calibration_batches(self.workload.task.calibration, _NORM_SAMPLES, _NORM_BATCH)
        reestimate_batch_norm(self.network, (inputs for inputs, _ in batches), self.workload.task.fixed_norms)

    def _loss(self, inputs: Inputs, targets: Tensor) -> Tensor:
        task = self.workload.task
        if task.training_step is not None:
            return task.training_step(self.network, inputs, targets)
        return task.loss(forward(self.network, inputs), targets)

    def _joules(self) -> float | None:
        return None if self.counter is None else self.counter.joules()
