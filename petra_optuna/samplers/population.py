"""Environmental selection: which of the complete trials become parents."""

from __future__ import annotations

import bisect
import dataclasses
from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from petra_optuna.aliases import Array
from petra_optuna.evolution import (
    RankedRows,
    Skyband,
    Survival,
    fill_by_rank,
    hypervolume_subset,
    is_feasible,
    sample_excluding,
    sample_rows,
    sample_split_front,
    total_violations,
)
from petra_optuna.samplers.records import Key


class Population:
    """Ranks the complete trials and gives the best of them as parents.

    Feasible trials come first, by non-domination rank. Of the level that does not fit as a whole, a subset
    that dominates much hypervolume is kept (SMS-EMOA, Beume et al. 2007), or any of its trials. Infeasible
    ones follow by the sum of their violations (Deb's rule, Deb 2000).

    A trial outside the bounds in which volume counts, of a model at chance quality for example, is never
    dominated for being small, yet nothing comes of it: it is penalised like one that breaks a constraint.

    Args:
        size: Largest number of best trials that can be asked for.
        dimensions: Number of objectives m.

    Attributes:
        keys: Keys of all complete trials, ascending.
        points: Minimised values by trial number, shape (m,).
        units: Values in unit coordinates by trial number, shape (m,).
        inside: Points of the feasible trials inside the bounds, which may enter the front, by number.
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
        self._penalised: dict[int, _Violation] = {}
        self._best: tuple[int, _Best] | None = None
        self._subsets: dict[int, tuple[tuple[int, ...], tuple[int, ...]]] = {}

    def add_keys(self, keys: Sequence[Key]) -> None:
        """Register trials; each is then to be ranked, with bounds that may follow from these keys."""
        for key in keys:
            bisect.insort(self.keys, key)

    def rank(
        self, key: Key, point: Array, unit: Array, outside: float, constraints: Mapping[str, float]
    ) -> None:
        """Rank a registered trial.

        Args:
            key: Key of the trial: (plan index, number).
            point: Minimised values, shape (m,).
            unit: Values in unit coordinates, shape (m,).
            outside: Distance outside the bounds in which volume counts, in unit coordinates; 0 inside.
            constraints: Excess by constraint; at most 0 where it is met.
        """
        number = key[1]
        self._key[number], self.points[number], self.units[number] = key, point, unit
        feasible = is_feasible(constraints)
        if not feasible:
            self._infeasible.add(number)
        elif np.all(unit < 1):
            self.inside[number] = point
        if not feasible or outside > 0:
            self._penalised[number] = _Violation(constraints, outside)
            self._best = None
        elif self._band.add(key, point):
            self._best = None

    def is_feasible(self, number: int) -> bool:
        """Whether a complete trial meets its constraints."""
        return number not in self._infeasible

    def is_penalised(self, number: int) -> bool:
        """Whether a complete trial breaks a constraint or lies outside the bounds in which volume counts."""
        return number in self._penalised

    def elite(self, size: int, survival: Survival, rng: np.random.Generator) -> list[int]:
        """Numbers of the best trials, best level first, at most ``size`` and at most that of the object.

        Args:
            size: Number of trials.
            survival: Rule for the level that does not fit: ``hypervolume`` keeps a subset that dominates
                much volume, ``rank`` any of its trials.
            rng: Source of the draws under ``rank``.
        """
        if self._best is None or self._best[0] != size:
            self._best = size, self._best_in_band(size)
        best = self._best[1]
        if survival == "hypervolume":
            split = self._subset(best.ranked)
        else:
            split = sample_split_front(best.ranked, rng)
        return [*best.ranked.kept, *split, *best.penalised]

    def best_among(self, numbers: Sequence[int], size: int) -> list[int]:
        """Numbers of the best of some trials: the elite by hypervolume if there were no others."""
        candidates = [number for number in numbers if number not in self._penalised]
        penalised = [number for number in numbers if number in self._penalised]
        points = np.array([self.points[number] for number in candidates]).reshape(-1, self._dimensions)
        best = self._best_of(candidates, points, penalised, size)
        return [*best.ranked.kept, *self._subset(best.ranked), *best.penalised]

    def sample_excluding(self, excluded: Sequence[int], count: int, rng: np.random.Generator) -> list[int]:
        """Draw up to ``count`` other complete trials; the time does not grow with their number."""
        rows = [bisect.bisect_left(self.keys, self._key[number]) for number in excluded]
        return [self.keys[row][1] for row in sample_excluding(rows, len(self.keys), count, rng)]

    def _best_in_band(self, size: int) -> _Best:
        """The best trials; a front that fills the places alone is known without ranking the others."""
        keys = self._band.keys
        # By key: the band holds its points in order of arrival, on which nothing may depend.
        order = np.array(sorted(range(len(keys)), key=keys.__getitem__), dtype=np.int64)
        front = order[self._band.dominators[order] == 0]
        if len(front) > size:
            rows = front[sample_rows(self._band.points[front])]
            return _Best(RankedRows((), tuple(keys[row][1] for row in rows), size), ())
        candidates = [keys[row][1] for row in order]
        return self._best_of(candidates, self._band.points[order], self._penalised, size)

    def _best_of(
        self, candidates: Sequence[int], points: Array, penalised: Iterable[int], size: int
    ) -> _Best:
        ranked = fill_by_rank(points, size)
        kept, split = (tuple(candidates[row] for row in rows) for rows in (ranked.kept, ranked.split_front))
        room = 0 if split else ranked.room
        return _Best(
            RankedRows(kept, split, ranked.room),
            self._least_violating(sorted(penalised), room) if room else (),
        )

    def _subset(self, ranked: RankedRows) -> tuple[int, ...]:
        if not ranked.split_front:
            return ()
        # Most of what joins the best does so behind the level that is thinned out.
        split, subset = self._subsets.get(ranked.room, ((), ()))
        if split != ranked.split_front:
            units = np.array([self.units[number] for number in ranked.split_front])
            subset = tuple(ranked.split_front[row] for row in hypervolume_subset(units, ranked.room))
            self._subsets[ranked.room] = ranked.split_front, subset
        return subset

    def _least_violating(self, numbers: Sequence[int], count: int) -> tuple[int, ...]:
        violations = [self._penalised[number] for number in numbers]
        names = {name for violation in violations for name in violation.constraints}
        excesses = {
            name: np.array([violation.constraints.get(name, 0.0) for violation in violations])
            for name in sorted(names)
        }
        total = total_violations(excesses, np.array([violation.outside for violation in violations]))
        keys = np.array([self._key[number] for number in numbers]).reshape(-1, 2)
        rows = np.lexsort((keys[:, 1], keys[:, 0], total))[:count]
        return tuple(numbers[row] for row in rows)


@dataclasses.dataclass(frozen=True)
class _Violation:
    """Why a trial is penalised.

    Attributes:
        constraints: Excess by constraint; at most 0 where it is met.
        outside: Distance outside the bounds, in unit coordinates; 0 inside.
    """

    constraints: Mapping[str, float]
    outside: float


@dataclasses.dataclass(frozen=True)
class _Best:
    """Numbers of the best trials so far: ranked feasible ones, then penalised ones while there is room."""

    ranked: RankedRows
    penalised: tuple[int, ...]
