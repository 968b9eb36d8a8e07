"""The result of a tuning study as people read it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from rich.console import RenderableType

from petra_optuna.edgetune.objective import ENERGY
from petra_optuna.edgetune.result import TuningResult
from petra_optuna.inference import ServerCounts
from petra_optuna.results import recommendation_lines, recommendation_table


def result_lines(result: TuningResult, counts: ServerCounts) -> Iterator[RenderableType]:
    """The best trial, its training, and how to serve it, to be printed one after another.

    Args:
        result: The best trial.
        counts: What the inference servers of the study did.
    """
    record, specification = result.record, result.specification
    last = record.rungs[-1]
    objective = specification.objective
    if objective == ENERGY:
        objective += f" ({record.energy_source})"
    yield (
        f"Best trial {result.trial}: {objective} {result.value:.4g}, "
        f"quality {record.quality:.4f} on the selection split, file {(record.size_bytes or 0) / 1e6:.3f} MB"
    )
    if specification.limits:
        yield f"Within {', '.join(map(str, specification.limits))}"
    yield f"Model: {_listed(result.model)}"
    training = (
        f"Training: {_listed(result.training)}, {last.epochs} epochs over shares of the data up to "
        f"{last.data_fraction:g}, {last.train_s:.1f} s"
    )
    if record.train_j is not None:
        training += f", {record.train_j:.0f} J ({record.energy_source})"
    yield training
    if result.recommendation is None:
        return
    yield recommendation_table(result.recommendation)
    yield from recommendation_lines(result.recommendation)
    yield (
        f"Inference server: {counts.searches} searches, {counts.hits} answers from history, {counts.waits} "
        f"waits of {counts.waited_s:.1f} s in all, {counts.restarts} restarts"
    )


def _listed(parameters: Mapping[str, object]) -> str:
    return ", ".join(
        f"{name} {value:.4g}" if isinstance(value, float) else f"{name} {value}"
        for name, value in parameters.items()
    )
