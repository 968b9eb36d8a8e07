"""The body of a pipeline turned into a model, from the longest prefix that the cache holds."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable
from functools import cached_property
from typing import Any

from torch import nn

from petra_optuna.aliases import TrainPrecision
from petra_optuna.errors import OperationFailed, foreign_errors_as
from petra_optuna.evaluation import checkpoint
from petra_optuna.evaluation.budget import Budget, TrainingLedger
from petra_optuna.evaluation.cache import CacheEntry, PrefixCache
from petra_optuna.evaluation.keys import node_seed, prefix_keys
from petra_optuna.evaluation.rungs import EarlyStop, RungCallback, RungJudge, Rungs, StoppedAtRung
from petra_optuna.operations import Context
from petra_optuna.pipeline import Applied, Operation, Pipeline
from petra_optuna.tasks import Task


@dataclasses.dataclass
class Body:
    """A model, and how far the body of its pipeline has been applied to it.

    Attributes:
        model: The model after the nodes that have a report.
        reports: One report for each node that has been applied, in order.
        reused_nodes: How many of them came from the cache.
        stop: Where a rung ended the training; None where none did.
    """

    model: nn.Module
    reports: list[dict[str, Any]] = dataclasses.field(default_factory=list)
    reused_nodes: int = 0
    stop: EarlyStop | None = None


@dataclasses.dataclass(frozen=True)
class BodyBuilder:
    """Applies the body nodes of one pipeline to the network that it starts from.

    Attributes:
        task: The original model and its data.
        pipeline: Pipeline in canonical form.
        start: Makes the network that the pipeline starts from, which is not changed; not called where a
            prefix is cached.
        base_key: Cache key of that network (``keys.base_key``).
        budget: Most training that the pipeline may spend.
        ledger: Counters to fill.
        cache: Shared prefixes; None for no cache.
        rungs: Moments at which the pipeline is judged; None for no rungs.
        judge: Decides at each rung; None for no rungs.
        train_precision: Type in which forward passes of training run.
    """

    task: Task
    pipeline: Pipeline
    start: Callable[[], nn.Module]
    base_key: str
    budget: Budget
    ledger: TrainingLedger
    cache: PrefixCache | None = None
    rungs: Rungs | None = None
    judge: RungJudge | None = None
    train_precision: TrainPrecision = "auto"

    def begin(self) -> Body:
        """Take the longest prefix from the cache, and apply the nodes in front of the first training.

        Raises:
            TrialError: With the reason, when a node fails.
            StudyError: When the cache cannot be written.
        """
        body = self._longest_prefix(len(self._keys))
        self._apply_until(body, self.leading)
        return body

    def led(self, body: Body) -> nn.Module | None:
        """The model after the nodes in front of the first training; None where it is not at hand.

        Args:
            body: What ``begin`` returned; it may be past that point.
        """
        if len(body.reports) > self.leading:
            body = self._longest_prefix(self.leading)
        return body.model if len(body.reports) == self.leading else None

    def finish(self, body: Body) -> Body:
        """Apply the nodes that are left, and put each result into the cache.

        After a stop the nodes that are left are applied without training, and nothing is cached.

        Args:
            body: What ``begin`` returned; it is changed.

        Raises:
            TrialError: With the reason, when a node fails.
            StudyError: When the cache cannot be written.
        """
        self.ledger.cache_hits = body.reused_nodes
        self.ledger.cache_misses = len(self._keys) - body.reused_nodes if self.cache is not None else 0
        self.ledger.cache_saved_s = training_seconds(self.pipeline, body.reports)
        self._apply_until(body, len(self._keys))
        return body

    @cached_property
    def leading(self) -> int:
        """Number of nodes in front of the first training."""
        trains = [node.kind == "training" for node in self.pipeline.body]
        return trains.index(True) if True in trains else len(trains)

    @cached_property
    def _keys(self) -> tuple[str, ...]:
        return prefix_keys(self.base_key, self.pipeline, self.budget)

    def _apply_until(self, body: Body, end: int) -> None:
        keys, epochs = self._keys, self.budget.allot(self.pipeline.body)
        for index in range(len(body.reports), end):
            context = Context(
                task=self.task,
                recipe=self.pipeline.recipe,
                seed=node_seed(keys[index]),
                epochs=0 if body.stop else epochs[index],
                data_fraction=self.budget.data_fraction,
                train_precision=self.train_precision,
                on_step=None if body.stop else self._rung_callback(keys, epochs, index),
            )
            self._apply(self.pipeline.body[index], context, body, sum(epochs[:index]))
            if self.cache is not None and body.stop is None:
                entry = CacheEntry(body.reports, checkpoint.to_bytes(body.model, self.task.model))
                self.cache.put(keys[index], entry)

    def _apply(self, node: Operation, context: Context, body: Body, epochs_before: int) -> None:
        began, judging_s = time.perf_counter(), self.ledger.judging_s
        try:
            with foreign_errors_as(OperationFailed, node.name):
                applied = node.apply(body.model, context)
        except StoppedAtRung as stopped:
            body.stop = stopped.stop
            epochs = body.stop.epochs - epochs_before
            report = {"changed": True, "epochs": epochs, "stopped": body.stop.reason}
            applied = Applied(stopped.model, report)
        finally:
            seconds = time.perf_counter() - began - (self.ledger.judging_s - judging_s)
            self.ledger.train_s += seconds if node.kind == "training" else 0.0
        body.model = applied.model
        body.reports.append({"op": node.name, **applied.report, "seconds": seconds})

    def _rung_callback(
        self, keys: tuple[str, ...], epochs: tuple[int, ...], index: int
    ) -> RungCallback | None:
        if self.judge is None or self.rungs is None:
            return None
        moments = self.rungs.moments(self.budget, sum(epochs))
        return RungCallback(self.task, self.pipeline, keys, epochs, index, moments, self.judge, self.ledger)

    def _longest_prefix(self, length: int) -> Body:
        """The longest prefix of at most this many nodes that the cache holds."""
        for key in reversed(self._keys[:length]):
            entry = self.cache.get(key, self._count_healed) if self.cache is not None else None
            if entry is not None:
                try:
                    model = checkpoint.from_bytes(entry.checkpoint, self.task.model)
                except checkpoint.DamagedCheckpoint:  # computed again
                    self._count_healed()
                    continue
                return Body(model, list(entry.reports), reused_nodes=len(entry.reports))
        return Body(self.start())

    def _count_healed(self) -> None:
        self.ledger.cache_healed += 1


def training_seconds(pipeline: Pipeline, reports: list[dict[str, Any]]) -> float:
    """Seconds of all training nodes that have a report, wherever their results came from."""
    pairs = zip(pipeline.body, reports, strict=False)
    return float(sum(report["seconds"] for node, report in pairs if node.kind == "training"))
