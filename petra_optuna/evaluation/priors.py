"""From curves of layers to the fields that operations have: where new nodes begin.

An operation has one strength for all layers, so what is known of each is put together as if losses added
up. A start is the strongest cut of which they sum to at most ``BEARABLE`` of the original's quality:

- Every layer is cut at one value of the field (``local`` scope): the losses at that value are summed.
- Layers compete (``global``): strength goes in small steps to the layer that loses least for its size
  until the sum is reached. The start is the mean over layers of what they keep or lose then, by size
  where the field counts channels or weights, and plainly for shares of a spectrum.
- Blocks leave whole, the harmless first: the share of them that goes.

Where only some of the layers have curves, they may lose that share of the sum.
"""

from __future__ import annotations

import dataclasses

import numpy as np
import numpy.typing as npt

from petra_optuna.evaluation.sensitivity import Curve, Sensitivity
from petra_optuna.operations import DropBlocks, LowRank, Prune
from petra_optuna.pipeline import FieldPrior, Operation, SearchSpace
from petra_optuna.pipeline.fields import Value
from petra_optuna.pipeline.nodes import KEPT_BY_RULE

BEARABLE = 0.05
"""Share of the original's quality that a start may cost before anything is trained."""
STEP = 0.05
"""Of a layer's strength, as layers compete."""
GRID = 101

Array = npt.NDArray[np.float64]


def priors_from_sensitivity(sensitivity: Sensitivity, space: SearchSpace) -> tuple[FieldPrior, ...]:
    """Starts of the operations of a space that have curves, each within its field's range."""
    found: list[FieldPrior] = []
    fields: list[tuple[type[Operation], str, dict[str, Value]]] = [(Prune, "removed", {})]
    fields += [(LowRank, field, {"rule": rule}) for rule, field in KEPT_BY_RULE.items()]
    for kind, field, rule in fields:
        layers = _Layers.of(sensitivity, kind.name)
        if kind in space.body and layers.curves:
            for scope, value in (("local", layers.together(field)), ("global", layers.competing(field))):
                found.append(FieldPrior.within(kind, field, value, {"scope": scope, **rule}))
    blocks = _Layers.of(sensitivity, DropBlocks.name)
    if DropBlocks in space.body and blocks.curves:
        found.append(FieldPrior.within(DropBlocks, "removed", blocks.leaving()))
    return tuple(found)


@dataclasses.dataclass(frozen=True)
class _Layers:
    """The curves of one operation.

    Attributes:
        curves: Of its layers.
        losses: Of each, the share of the original's quality that is lost at each point; a stronger cut never
            counts as a smaller loss.
        room: What they may lose together.
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
        ends = [value[-1] for value in values]
        whole = values[0][0]
        strongest = max(ends) if ends[0] > whole else min(ends)
        grid = np.linspace(whole, strongest, GRID)
        total = np.zeros(GRID)
        for value, loss in zip(values, self.losses, strict=True):
            rising = np.argsort(value, kind="stable")
            total += np.interp(grid, value[rising], loss[rising])
        return float(grid[np.flatnonzero(total <= self.room)[-1]])

    def competing(self, field: str) -> float:
        """What the field is on average where each layer is cut as far as it bears beside the others."""
        strengths = self._shared_out()
        sizes = np.array([curve.size for curve in self.curves], dtype=float)
        values = [
            np.interp(strength, _strengths(curve), _values(curve, field))
            for curve, strength in zip(self.curves, strengths, strict=True)
        ]
        by_size = field in ("removed", "kept_weights")
        return float(np.average(values, weights=sizes if by_size else None))

    def leaving(self) -> float:
        """Share of the blocks that go, the harmless first."""
        losses = np.sort([loss[-1] for loss in self.losses])
        return float(np.mean(np.cumsum(losses) <= self.room))

    def _shared_out(self) -> list[float]:
        """Strengths to which the layers are cut: step by step the one that loses least for its size."""
        strengths, spent = [0.0] * len(self.curves), 0.0
        while True:
            steps = []
            for place, (curve, loss) in enumerate(zip(self.curves, self.losses, strict=True)):
                tried, here = _strengths(curve), strengths[place]
                if here < tried[-1]:
                    there = min(here + STEP, float(tried[-1]))
                    lost = float(np.interp(there, tried, loss) - np.interp(here, tried, loss))
                    if spent + lost <= self.room:
                        steps.append((lost / curve.size, place, there, lost))
            if not steps:
                return strengths
            _, place, there, lost = min(steps)
            strengths[place] = there
            spent += lost


def _strengths(curve: Curve) -> Array:
    return np.array([point.strength for point in curve.points])


def _values(curve: Curve, field: str) -> Array:
    """The field at each point; at the original the value that keeps everything."""
    return np.array(
        [0.0 if field == "removed" else 1.0, *(point.fields[field] for point in curve.points[1:])]
    )
