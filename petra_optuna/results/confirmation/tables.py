"""A confirmed front as a table: values with their intervals, ranks, marks, and the spread over seeds."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial

import numpy as np
from rich.table import Table
from rich.text import Text

from petra_optuna.results.confirmation.record import Confirmation, Estimate, Member
from petra_optuna.results.report import as_markdown, heading, plain_table, shown


def confirmed_table(confirmation: Confirmation) -> Table:
    """The confirmed front as a table for the terminal."""
    title = f"Front of study {confirmation.study}, confirmed on {confirmation.samples} test samples"
    table = plain_table(title, remarks(confirmation))
    header, rows = _cells(confirmation)
    for name in header:
        table.add_column(Text(name), overflow="fold")
    for row in rows:
        table.add_row(*map(Text, row))
    return table


def confirmed_markdown(confirmation: Confirmation) -> str:
    """The confirmed front as a table in Markdown, with a line on how it was measured."""
    return f"{as_markdown(*_cells(confirmation))}\n\n{remarks(confirmation)}\n"


def remarks(confirmation: Confirmation) -> str:
    """How the numbers were measured, and what failed."""
    lines = [
        f"95 % intervals: {confirmation.metric} over {confirmation.resamples} paired resamples of "
        f"{confirmation.samples} test samples, times over {confirmation.rounds} rounds of pairs of blocks. "
        "Rank 0: nobody dominates it within noise."
    ]
    if confirmation.reading > 1:
        lines.append(
            f"This was reading {confirmation.reading} of the test split for this study: whatever was chosen "
            "after the first one is no longer confirmed by it."
        )
    lines += [f"Trial {trial} failed: {reason}." for trial, reason in confirmation.failures.items()]
    return " ".join(lines)


def with_interval(estimate: Estimate, show: Callable[[float], str] = "{:.6g}".format) -> str:
    """``value (low to high)``, or the value alone where it is exact."""
    text = show(estimate.value)
    if estimate.low == estimate.high:
        return text
    return f"{text} ({show(estimate.low)} to {show(estimate.high)})"


def mark_of(member: Member) -> str:
    """The trials that dominate the member within noise."""
    return ", ".join(f"by {trial}" for trial in member.dominated_by) or "no"


def spread_of(member: Member) -> str:
    """Quality over other seeds: mean, lowest and highest, how many, and how many failed."""
    if member.seedless and len(member.seeds) == 1:
        return "the same file with another seed: run once"
    qualities = [run.quality for run in member.seeds if run.quality is not None]
    failed = len(member.seeds) - len(qualities)
    parts = [f"{failed} failed"] if failed else []
    if qualities:
        ends = f"{min(qualities):.4g} to {max(qualities):.4g}"
        parts.insert(0, f"{np.mean(qualities):.4g} ({ends}), {len(qualities)} seeds")
    return "; ".join(parts)


def _cell(name: str, values: Mapping[str, Estimate]) -> str:
    return with_interval(values[name], partial(shown, name))


def _cells(confirmation: Confirmation) -> tuple[list[str], list[list[str]]]:
    names = list(confirmation.directions)
    reseeded = any(member.seeds for member in confirmation.members)
    header = ["trial", *map(heading, names), "dominated", "rank", "pipeline"]
    header += [f"{confirmation.metric} over seeds"] if reseeded else []
    rows = [["", *(_cell(name, confirmation.baseline) for name in names), "", "", "baseline"]]
    rows[0] += [""] if reseeded else []
    for member in confirmation.members:
        values = [_cell(name, member.values) for name in names]
        row = [str(member.trial), *values, mark_of(member), str(member.rank), member.pipeline]
        rows.append([*row, spread_of(member)] if reseeded else row)
    return header, rows
