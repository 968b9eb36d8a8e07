"""The complete trials, and which of them are the best."""

from __future__ import annotations

import bisect
import dataclasses
from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from petra_optuna.evolution import (
    Array,
    RankedRows,
    Skyband,
    Survival,
    drawn,
    fill_by_rank,
    hypervolume_subset,
    is_feasible,
    others,
    total_violations,
)
from petra_optuna.samplers.records import Key


class Population:
    """Environmental selection: ranks the complete trials and gives the best of them as parents.

    Feasible trials come first, by non-domination rank. Of the level that does not fit as a whole, a subset
    that dominates much hypervolume is kept (SMS-EMOA, Beume et al. 2007), or any of its trials. Infeasible
    ones follow by the sum of their violations (Deb's rule, Deb 2000).

    A trial outside the bounds in which volume counts, of a model at chance quality for example, is never
    dominated for being small, yet nothing comes of it: it ranks with those that break a constraint.

    Args:
        size: How many of the best can be asked for.
        dimensions: Number of objectives m.

    Attributes:
        keys: All of them, ascending.
        points: Minimised values, shape (m,), by trial number.
        units: The same in unit coordinates.
        inside: The points of the trials that may enter the front.
    """

    def __init__(self, size: int, dimensions: int) -> None:
        self.keys: list[Key] = []
        self.points: dict[int, Array] = {}
        self.units: dict[int, Array] = {}
        self.inside: dict[int, Array] = {}
        self._key: dict[int, Key] = {}
        self._dimensions = dimensions
        self._band: Skyband[Key] = Skyband(size, dimensions)
        self._infeasible: set[int] = set()
        self._off: dict[int, tuple[Mapping[str, float], float]] = {}
        self._best: tuple[int, _Best] | None = None
        self._thinned: dict[int, tuple[tuple[int, ...], tuple[int, ...]]] = {}

    def extend(self, keys: Sequence[Key]) -> None:
        """Take up trials; each is then to be placed."""
        for key in keys:
            bisect.insort(self.keys, key)

    def place(
        self, key: Key, point: Array, unit: Array, beyond: float, constraints: Mapping[str, float]
    ) -> None:
        """Rank a trial.

        Args:
            key: Of the trial.
            point: Its minimised values, shape (m,).
            unit: The same in unit coordinates.
            beyond: How far it lies outside the box in which volume counts, in unit coordinates.
            constraints: Excess by name; at most 0 where a constraint is met.
        """
        number = key[1]
        self._key[number], self.points[number], self.units[number] = key, point, unit
        feasible = is_feasible(constraints)
        if not feasible:
            self._infeasible.add(number)
        elif np.all(unit < 1):
            self.inside[number] = point
        if not feasible or beyond > 0:
            self._off[number] = constraints, beyond
            self._best = None
        elif self._band.add(key, point):
            self._best = None

    def is_feasible(self, number: int) -> bool:
        """Whether a complete trial meets its constraints."""
        return number not in self._infeasible

    def is_off(self, number: int) -> bool:
        """Whether a complete trial breaks a constraint or lies outside the box in which volume counts."""
        return number in self._off

    def elite(self, size: int, survival: Survival, rng: np.random.Generator) -> list[int]:
        """Numbers of the best trials, best level first, at most ``size`` and at most that of the object.

        Args:
            size: How many.
            survival: How the level is thinned that does not fit; ``hypervolume``, or ``rank`` for any of it.
            rng: Draws from that level where survival is by rank alone.
        """
        if self._best is None or self._best[0] != size:
            # By key: the band holds its points in order of arrival, on which nothing may depend.
            on = [number for _, number in sorted(self._band.keys)]
            self._best = size, self._rank(on, self._off, size)
        best = self._best[1]
        crowd = self._thin(best.ranked) if survival == "hypervolume" else drawn(best.ranked, rng)
        return [*best.ranked.kept, *crowd, *best.off]

    def best_among(self, numbers: Sequence[int], size: int) -> list[int]:
        """Numbers of the best of some trials: the elite by hypervolume if there were no others."""
        on = [number for number in numbers if number not in self._off]
        best = self._rank(on, [number for number in numbers if number in self._off], size)
        return [*best.ranked.kept, *self._thin(best.ranked), *best.off]

    def others(self, taken: Sequence[int], count: int, rng: np.random.Generator) -> list[int]:
        """Numbers of up to ``count`` complete trials that are not taken; its time does not grow with them."""
        rows = [bisect.bisect_left(self.keys, self._key[number]) for number in taken]
        return [self.keys[row][1] for row in others(rows, len(self.keys), count, rng)]

    def _rank(self, on: Sequence[int], off: Iterable[int], size: int) -> _Best:
        ranked = fill_by_rank(
            np.array([self.points[number] for number in on]).reshape(-1, self._dimensions), size
        )
        kept, crowded = (tuple(on[row] for row in rows) for rows in (ranked.kept, ranked.crowded))
        room = 0 if crowded else ranked.room
        return _Best(
            RankedRows(kept, crowded, ranked.room), self._least_off(sorted(off), room) if room else ()
        )

    def _thin(self, ranked: RankedRows) -> tuple[int, ...]:
        if not ranked.crowded:
            return ()
        # Most of what joins the best does so behind the level that is thinned out.
        crowded, rows = self._thinned.get(ranked.room, ((), ()))
        if crowded != ranked.crowded:
            units = np.array([self.units[number] for number in ranked.crowded])
            rows = tuple(ranked.crowded[row] for row in hypervolume_subset(units, ranked.room))
            self._thinned[ranked.room] = ranked.crowded, rows
        return rows

    def _least_off(self, numbers: Sequence[int], count: int) -> tuple[int, ...]:
        names = {name for number in numbers for name in self._off[number][0]}
        excesses = {
            name: np.array([self._off[number][0].get(name, 0.0) for number in numbers])
            for name in sorted(names)
        }
        total = total_violations(excesses, np.array([self._off[number][1] for number in numbers]))
        indices = np.array([self._key[number] for number in numbers]).reshape(-1, 2)
        rows = np.lexsort((indices[:, 1], indices[:, 0], total))[:count]
        return tuple(numbers[row] for row in rows)


@dataclasses.dataclass(frozen=True)
class _Best:
    """What selection found among the trials so far; trials by number."""

    ranked: RankedRows
    off: tuple[int, ...]
