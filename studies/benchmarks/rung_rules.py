"""Print what other rules at the rung would have trained and kept, from runs of the benchmark ``evaluation``.

    python -m studies.benchmarks.rung_rules FOLDER [FOLDER ...]

FOLDER is the ``--folder`` of a run of ``studies.benchmarks.evaluation``. Such a run has a result at the first
rung of every pipeline that trains, and its search has trained each of them to its end, where a survivor ends
too. So hardly anything is estimated: the pipelines come in the search's order, preview and cache do what they
would, and the rule decides who trains on. A file that is made at the rung is taken to be as fast and as large
as that of the end. Its quality is the one measured there, or, where the run trained on, that of its model in
PyTorch.

The rules: ``now`` is that of ``petra_optuna.study.rungs``; ``unbounded`` lets the best 1/eta train on,
however much training they take; ``volume`` does so too, and ranks by hypervolume alone, not by that for
each second that is left; ``lost`` is ``now``, but a stopped pipeline leaves no file. Shown are the shares
of the search's training time, judging left out, and of its hypervolume, and the points that the best file
of at most 1/4, 1/8 and 1/16 of the baseline's bytes loses.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import optuna
from optuna.trial import FrozenTrial

from petra_optuna.aliases import Direction
from petra_optuna.database import open_storage
from petra_optuna.evaluation import RungResult, Rungs
from petra_optuna.evaluation.keys import prefix_keys
from petra_optuna.evolution import hypervolume
from petra_optuna.operations import default_space
from petra_optuna.pipeline import Pipeline, decode
from petra_optuna.samplers import directions_of
from petra_optuna.study import StudyRecord, TrialRecord, controls, recorded_trials
from petra_optuna.study.rungs import rank_at_rung, reason_to_stop
from petra_optuna.study.trial_record import RungDecision
from studies import script
from studies.benchmarks.evaluation import ALL, LEVELS, RUNGS, SEARCH, best_by_level

ETAS = (3.0, 4.0, 5.0, 6.0)
RULES = ("now", "unbounded", "volume", "lost")
HEADER = (
    *("rule", "eta", "share of training", "share of hypervolume"),
    *(f"lost at 1/{level}, points" for level in LEVELS),
)


@dataclasses.dataclass(frozen=True)
class Row:
    """One pipeline of a run.

    Attributes:
        trial: Trial of the pipeline in the search.
        allotted: Epochs of each body node.
        keys: Cache key of each body node.
        seconds: Seconds that its training took in the search.
        result: Result at the rung; None where it was not judged.
        early: Quality of the file that is made at the rung; None where it was not judged.
        stopped: Whether the preview stopped it.
        spared: Whether it is a control, which no rung stops.
    """

    trial: FrozenTrial
    allotted: tuple[int, ...]
    keys: tuple[str, ...]
    seconds: float
    result: RungResult | None
    early: float | None
    stopped: bool
    spared: bool


@dataclasses.dataclass
class Replay:
    """What a rule has trained, stopped and made so far.

    Attributes:
        rule: One of ``RULES``.
        rungs: Settings of the rungs; their eta counts.
        direction: Direction of the quality.
        moment: Epochs after which a pipeline is judged.
        judged: Decisions so far, in the order of the pipelines.
        made: Values of each file by number of the trial.
        seconds: Training so far, in seconds of the search.
    """

    rule: str
    rungs: Rungs
    direction: Direction
    moment: float
    judged: list[RungDecision] = dataclasses.field(default_factory=list)
    made: dict[int, list[float]] = dataclasses.field(default_factory=dict)
    seconds: float = 0.0
    _cached: set[str] = dataclasses.field(default_factory=set)

    def run(self, row: Row) -> None:
        """Take in the next pipeline."""
        if row.stopped:
            return
        if row.result is None or not self._cached_epochs(row) < self.moment < sum(row.allotted):
            self._finish(row)
            return
        trains_on = row.spared or self._trains_on(row.result)
        self.judged.append(RungDecision(row.result, trains_on))
        if trains_on:
            self._finish(row)
            return
        self._train(row, self.moment)
        if self.rule != "lost" and row.early is not None and row.trial.values:
            self.made[row.trial.number] = [row.early, *row.trial.values[1:]]

    def _trains_on(self, result: RungResult) -> bool:
        if self.rule in ("now", "lost"):
            return reason_to_stop(result, self.judged, self.rungs, self.direction) is None
        others = [decision.result for decision in self.judged]
        if self.rule == "volume":
            result, *others = [dataclasses.replace(other, rest_s=1.0) for other in (result, *others)]
        return rank_at_rung(result, others, self.direction).goes_on(self.rungs)

    def _finish(self, row: Row) -> None:
        self._train(row, sum(row.allotted))
        if row.trial.values:
            self.made[row.trial.number] = row.trial.values

    def _train(self, row: Row, end: float) -> None:
        """Train up to so many epochs, from where the cache leaves it; nodes that end are cached."""
        total, begin = sum(row.allotted), self._cached_epochs(row)
        if end > begin:
            self.seconds += (end - begin) / total * row.seconds
        ends = np.cumsum(row.allotted)
        self._cached |= {key for key, last in zip(row.keys, ends, strict=True) if last <= end}

    def _cached_epochs(self, row: Row) -> int:
        """Epochs of the longest cached prefix."""
        count = next((n for n in range(len(row.keys), 0, -1) if row.keys[n - 1] in self._cached), 0)
        return sum(row.allotted[:count])


def main() -> None:
    """Print one table a folder."""
    parser = script.parser(__doc__)
    parser.add_argument("folders", nargs="+", type=Path, metavar="FOLDER", help="folder of a run")
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    for folder in parser.parse_args().folders:
        print(f"\n{folder}\n")
        script.print_table(HEADER, table(folder))


def table(folder: Path) -> Iterator[list[object]]:
    """One row for each rule and eta.

    Raises:
        StudyError: When the folder holds no such run.
    """
    storage = open_storage(f"sqlite:///{folder}/evaluation.db", must_exist=True)
    search, replay = (optuna.load_study(storage=storage, study_name=name) for name in (SEARCH, ALL))
    every, allowed = rows(search, replay), StudyRecord(search).feasible_trials()
    for rule, eta in itertools.product(RULES, ETAS):
        yield [rule, f"{eta:g}", *_cells(search, every, allowed, rule, eta)]


def rows(search: optuna.Study, replay: optuna.Study) -> list[Row]:
    """The pipelines of a run in their order."""
    space, budget = default_space(), StudyRecord(search).specification.budget
    spared = {control.hash for control in controls(space, budget)}
    moment = RUNGS.moments(budget, budget.epochs)[1]
    pipelines = []
    for trial, again in zip(recorded_trials(search), recorded_trials(replay), strict=True):
        pipeline: Pipeline = decode(trial.params, space).canonical()
        allotted, seconds = tuple(budget.allot(pipeline.body)), TrialRecord(trial).ledger.train_s
        stored = TrialRecord(again).rung_fields(1)
        result, total = None, sum(allotted)
        if stored is not None and total > 0:
            stored = {**stored, "rest_s": (1 - moment / total) * seconds, "trains_on": False}
            result = RungDecision.from_dict(stored).result
        here = TrialRecord(again).ledger.rung_stops and again.values
        pipelines.append(
            Row(
                trial,
                allotted,
                prefix_keys("", pipeline, budget),
                seconds,
                result,
                again.values[0] if here else None if result is None else result.quality,
                bool(TrialRecord(again).ledger.preview_stops),
                pipeline.hash in spared,
            )
        )
    return pipelines


def _cells(
    search: optuna.Study, every: Sequence[Row], allowed: Sequence[FrozenTrial], rule: str, eta: float
) -> list[str]:
    specification = StudyRecord(search).specification
    moment = RUNGS.moments(specification.budget, specification.budget.epochs)[1]
    replay = Replay(rule, dataclasses.replace(RUNGS, eta=eta), specification.direction, moment)
    for row in every:
        replay.run(row)
    whole = [trial.values for trial in allowed]
    kept = [replay.made[trial.number] for trial in allowed if trial.number in replay.made]
    record = StudyRecord(search)
    bounds, directions = record.bounds, directions_of(search)
    volumes = [hypervolume(part, directions, bounds) for part in (kept, whole)]
    baseline_bytes = record.baseline_values["size_bytes"]
    best = zip(best_by_level(whole, baseline_bytes), best_by_level(kept, baseline_bytes), strict=True)
    lost = [
        "-" if before is None else "all" if after is None else f"{100 * (before - after):.2f}"
        for before, after in best
    ]
    share = replay.seconds / sum(row.seconds for row in every)
    return [f"{share:.3f}", f"{volumes[0] / volumes[1]:.3f}", *lost]


if __name__ == "__main__":
    script.run(main)
