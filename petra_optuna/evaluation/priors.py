"""Priors of the operations' fields from the sensitivity curves of layers.

An operation has one strength for all layers, so the curves are put together as if losses added up. A prior
is the strongest cut at which the losses sum to at most ``BEARABLE`` of the original's quality:

- Every layer is cut at one value of the field (``local`` scope): the losses at that value are summed.
- Layers compete (``global``): strength goes in small steps to the layer that loses least for its size
  until the sum is reached. The prior is the mean over layers of what they keep or lose then, by size
  where the field counts channels or weights, and plainly for shares of a spectrum.
- Blocks leave whole, the harmless ones first: the prior is the share of them that goes.

Where only some of the layers have curves, they may lose that share of the sum.
"""

from __future__ import annotations

import dataclasses

import numpy as np

from petra_optuna.aliases import Array
from petra_optuna.evaluation.sensitivity import Curve, Sensitivity
from petra_optuna.operations import DropBlocks, LowRank, Prune
from petra_optuna.pipeline import FieldPrior, Operation, SearchSpace
from petra_optuna.pipeline.fields import Value
from petra_optuna.pipeline.nodes import KEPT_BY_RULE

BEARABLE = 0.05
"""Share of the original's quality that a prior may cost before anything is trained."""
STEP = 0.05
"""Step of a layer's strength, as layers compete."""
GRID = 101
"""Values of a field that are tried where every layer is cut at one value."""


def priors_from_sensitivity(sensitivity: Sensitivity, space: SearchSpace) -> tuple[FieldPrior, ...]:
    """Priors of the operations of a space that have curves, each within its field's range."""
    priors: list[FieldPrior] = []
    fields: list[tuple[type[Operation], str, dict[str, Value]]] = [(Prune, "removed", {})]
    fields += [(LowRank, field, {"rule": rule}) for rule, field in KEPT_BY_RULE.items()]
    for operation, field, rule in fields:
        layers = _Layers.of(sensitivity, operation.name)
        if operation in space.body and layers.curves:
            for scope, value in (("local", layers.together(field)), ("global", layers.competing(field))):
                priors.append(FieldPrior.within(operation, field, value, {"scope": scope, **rule}))
    blocks = _Layers.of(sensitivity, DropBlocks.name)
    if DropBlocks in space.body and blocks.curves:
        priors.append(FieldPrior.within(DropBlocks, "removed", blocks.leaving()))
    return tuple(priors)


@dataclasses.dataclass(frozen=True)
class _Layers:
    """The curves of one operation.

    Attributes:
        curves: One curve for each layer.
        losses: Share of the original's quality that is lost at each point of each curve; a stronger cut
            never counts as a smaller loss.
        room: Share of the original's quality that the layers may lose together.
    """

    curves: tuple[Curve, ...]
    losses: tuple[Array, ...]
    room: float

    @classmethod
    def of(cls, sensitivity: Sensitivity, operation: str) -> _Layers:
        curves = sensitivity.of(operation)
        sign = 1.0 if sensitivity.direction == "maximize" else -1.0
        losses = []
        for curve in curves:
            qualities = np.array([point.quality for point in curve.points])
            lost = sign * (qualities[0] - qualities) / (abs(qualities[0]) or 1.0)
            losses.append(np.maximum.accumulate(np.clip(lost, 0, None)))
        room = BEARABLE * len(curves) / max(sensitivity.layers[operation], 1)
        return cls(curves, tuple(losses), room)

    def together(self, field: str) -> float:
        """The strongest value, of those tried, that all layers bear at once."""
        values = [_values(curve, field) for curve in self.curves]
        at_strongest_cuts = [value[-1] for value in values]
        uncut = values[0][0]
        strongest = max(at_strongest_cuts) if at_strongest_cuts[0] > uncut else min(at_strongest_cuts)
        grid = np.linspace(uncut, strongest, GRID)
        total = np.zeros(GRID)
        for value, loss in zip(values, self.losses, strict=True):
            rising = np.argsort(value, kind="stable")
            total += np.interp(grid, value[rising], loss[rising])
        return float(grid[np.flatnonzero(total <= self.room)[-1]])

    def competing(self, field: str) -> float:
        """Mean of the field over layers, each cut as far as it bears beside the others."""
        strengths = self._share_out()
        sizes = np.array([curve.size for curve in self.curves], dtype=float)
        values = [
            np.interp(strength, _strengths(curve), _values(curve, field))
            for curve, strength in zip(self.curves, strengths, strict=True)
        ]
        by_size = field in ("removed", "kept_weights")
        return float(np.average(values, weights=sizes if by_size else None))

    def leaving(self) -> float:
        """Share of the blocks that may go, the harmless ones first."""
        losses = np.sort([loss[-1] for loss in self.losses])
        return float(np.mean(np.cumsum(losses) <= self.room))

    def _share_out(self) -> list[float]:
        """Strength for each layer: a step at a time to the one that loses least for its size."""
        strengths, spent = [0.0] * len(self.curves), 0.0
        while True:
            steps = []
            for index, (curve, loss) in enumerate(zip(self.curves, self.losses, strict=True)):
                tried, strength = _strengths(curve), strengths[index]
                if strength < tried[-1]:
                    stronger = min(strength + STEP, float(tried[-1]))
                    lost = float(np.interp(stronger, tried, loss) - np.interp(strength, tried, loss))
                    if spent + lost <= self.room:
                        steps.append((lost / curve.size, index, stronger, lost))
            if not steps:
                return strengths
            _, index, stronger, lost = min(steps)
            strengths[index] = stronger
            spent += lost


def _strengths(curve: Curve) -> Array:
    return np.array([point.strength for point in curve.points])


def _values(curve: Curve, field: str) -> Array:
    """Value of the field at each point; at the original the value that keeps everything."""
    return np.array(
        [0.0 if field == "removed" else 1.0, *(point.fields[field] for point in curve.points[1:])]
    )
