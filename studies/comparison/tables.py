"""The tables of the comparison, as Markdown."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import numpy as np

from petra_optuna.results.report import as_markdown
from studies.comparison.results import Record
from studies.comparison.statistics import a12, holm, mean_ranks, wilcoxon

Group = tuple[str, int, int]
"""Problem, number of workers, evaluations of a run."""


def report(records: Sequence[Record], subject: str) -> str:
    """All tables."""
    checkpoints = sorted({int(count) for record in records for count in record["volume"]})
    parts = []
    for count in checkpoints:
        at = [record for record in records if str(count) in record["volume"]]
        parts.append(f"## After {count} evaluations\n")
        titles = {
            "volume": "Hypervolume, share of the reference front's: mean (standard deviation)",
            "area": "Area under the curve so far",
            "igd_plus": "IGD+ in unit coordinates, lower is better",
        }
        for measure, title in titles.items():
            parts.append(f"{title}\n\n{_scores(at, measure, str(count))}\n")
        parts.append(f"Mean rank by hypervolume\n\n{_ranks(at, str(count))}\n")
        parts.append(
            f"{subject} against each rival: the lead in mean hypervolume, p (Wilcoxon, paired by seed, Holm "
            f"over the table), and A12, the chance that a run of {subject} ends above one of the rival (ties "
            f"count half)\n\n{_tests(at, subject, str(count))}\n"
        )
    parts.append(f"## Trials\n\n{_costs(records)}")
    return "\n".join(parts)


def group_of(record: Record) -> Group:
    """The group of a record; the tables have one row for each."""
    return record["problem"], record["workers"], record["trials"]


def _scores(records: Sequence[Record], measure: str, count: str) -> str:
    samplers, groups = _samplers(records), _groups(records)
    rows = []
    for group in groups:
        cells = []
        for sampler in samplers:
            scores = [record[measure][count] for record in _of(records, group, sampler)]
            spread = f" ({np.std(scores):.4f})" if len(scores) > 1 else ""
            cells.append(f"{np.mean(scores):.4f}{spread}" if scores else "")
        seeds = max(len(_of(records, group, sampler)) for sampler in samplers)
        rows.append([*_named(group), str(seeds), *cells])
    return as_markdown(["problem", "workers", "run of", "seeds", *samplers], rows)


def _ranks(records: Sequence[Record], count: str) -> str:
    samplers = _samplers(records)
    rows = []
    for workers in sorted({record["workers"] for record in records}):
        scores: dict[tuple[str, int, int], dict[str, float]] = {}
        for record in records:
            if record["workers"] == workers:
                key = (record["problem"], record["trials"], record["seed"])
                scores.setdefault(key, {})[record["sampler"]] = record["volume"][count]
        # A sampler that ran a part of the problems only cannot be ranked beside those that ran all.
        present = [name for name in samplers if all(name in row for row in scores.values())]
        if present:
            ranks = mean_ranks(np.array([[row[name] for name in present] for row in scores.values()]))
            by_name = dict(zip(present, (f"{rank:.2f}" for rank in ranks), strict=True))
            rows.append([str(workers), str(len(scores)), *(by_name.get(name, "") for name in samplers)])
    return as_markdown(["workers", "problems x seeds", *samplers], rows)


def _tests(records: Sequence[Record], subject: str, count: str) -> str:
    rivals = [name for name in _samplers(records) if name != subject]
    paired: dict[str, tuple[list[float], list[float]]] = {}
    for group in _groups(records):
        ours = {item["seed"]: item["volume"][count] for item in _of(records, group, subject)}
        for rival in rivals:
            theirs = {item["seed"]: item["volume"][count] for item in _of(records, group, rival)}
            seeds = sorted(ours.keys() & theirs.keys())
            if seeds:
                name = _name(group, rival)
                paired[name] = ([ours[seed] for seed in seeds], [theirs[seed] for seed in seeds])
    adjusted = holm({name: wilcoxon(np.array(one), np.array(two)) for name, (one, two) in paired.items()})
    rows = []
    for group, rival in itertools.product(_groups(records), rivals):
        name = _name(group, rival)
        if name in paired:
            one, two = paired[name]
            lead = np.mean(one) - np.mean(two)
            cells = (f"{lead:+.4f}", f"{adjusted[name]:.3g}", f"{a12(one, two):.2f}")
            rows.append([*_named(group), rival, *cells])
    return as_markdown(["problem", "workers", "run of", "rival", "lead", "p", "A12"], rows)


def _costs(records: Sequence[Record]) -> str:
    rows = []
    for sampler in _samplers(records):
        for trials in sorted({record["trials"] for record in records}):
            runs = [item for item in records if item["sampler"] == sampler and item["trials"] == trials]
            if runs:
                shares = (
                    f"{100 * np.mean([item[what] / trials for item in runs]):.1f} %"
                    for what in ("duplicates", "failed", "infeasible")
                )
                ms = np.median([item["ms_per_trial"] for item in runs])
                rows.append([sampler, str(trials), str(len(runs)), *shares, f"{ms:.1f}"])
    head = ["sampler", "evaluations", "runs", "duplicates", "failed", "infeasible", "ms a trial, median run"]
    return as_markdown(head, rows)


def _samplers(records: Sequence[Record]) -> list[str]:
    return list(dict.fromkeys(record["sampler"] for record in records))


def _groups(records: Sequence[Record]) -> list[Group]:
    return list(dict.fromkeys(group_of(record) for record in records))


def _of(records: Sequence[Record], group: Group, sampler: str) -> list[Record]:
    return [record for record in records if group_of(record) == group and record["sampler"] == sampler]


def _name(group: Group, rival: str) -> str:
    return " ".join((*_named(group), rival))


def _named(group: Group) -> tuple[str, str, str]:
    problem, workers, trials = group
    return problem, str(workers), str(trials)
