"""A front for people and programs: table, CSV, JSON, lines on limits and training."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Mapping, Sequence
from typing import Any

from rich import box
from rich.table import Table
from rich.text import Text

from petra_optuna.evaluation import EFFICIENCY_METRICS, EfficiencyMetric, TrainingLedger
from petra_optuna.results.front import Row, StudyFront

METRICS = {metric.name: metric for metric in EFFICIENCY_METRICS}
"""Efficiency metrics by name."""
_AS_FACTOR = ("latency_ms", "throughput_per_s")
"""Values shown as how many times better than the baseline; other ratios are changes in percent."""


def as_json(front: StudyFront, confirmation: Mapping[str, Any] | None = None) -> str:
    """``StudyFront.to_dict`` as text, with what a confirmation found under ``confirmation``."""
    fields = front.to_dict()
    if confirmation is not None:
        fields["confirmation"] = confirmation
    return json.dumps(fields, indent=2)


def as_csv(front: StudyFront, *, all_rows: bool = False) -> str:
    """One line for each row; values, then changes in percent.

    Args:
        front: Front to write.
        all_rows: Whether to add the rows off the front, and a column that says why they are not on it.
    """
    names = list(front.directions)
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    head = ["trial", "pipeline", *names, *(f"{name}_change_percent" for name in names)]
    writer.writerow([*head, "off_front"] if all_rows else head)
    for row in _rows(front, all_rows):
        changes = [row.change_percent[name] for name in names]
        cells = [row.trial, row.pipeline, *(row.values[name] for name in names), *changes]
        writer.writerow([*cells, row.off_front or ""] if all_rows else cells)
    return text.getvalue()


def as_table(front: StudyFront, *, all_rows: bool = False) -> Table:
    """A table for the terminal: each value, and its factor or change against the baseline.

    Args:
        front: Front to show.
        all_rows: Whether to add the rows off the front, grey, with the reason.
    """
    table = plain_table(f"Front of study {front.study}")
    table.add_column("trial", justify="right", no_wrap=True)
    for name in front.directions:
        table.add_column(Text(heading(name)), justify="right", no_wrap=True)
        table.add_column("", justify="right", no_wrap=True)
    table.add_column("pipeline", overflow="fold", min_width=18)
    baseline = [cell for name in front.directions for cell in (shown(name, front.baseline[name]), "")]
    table.add_row("", *baseline, "baseline", style="dim")
    for row in _rows(front, all_rows):
        cells = [cell for name in front.directions for cell in _cells(front, row, name)]
        pipeline = f"{row.pipeline} ({row.off_front})" if row.off_front else row.pipeline
        style = "dim" if row.off_front else None
        table.add_row(*map(Text, [str(row.trial), *cells, pipeline]), style=style)
    return table


def standing_line(front: StudyFront) -> str | None:
    """One line on ties and on the region of interest; None where there is nothing to tell."""
    parts = []
    if ties := sum(len(row.ties) for row in front.rows):
        more = "1 more trial ties" if ties == 1 else f"{ties} more trials tie"
        parts.append(f"{more} with these rows within measured noise")
    if front.region is not None:
        parts.append(
            f"the region of interest ends at {next(iter(front.directions))} {front.region.limit:.4f}, "
            f"{100 * front.region.share:g} % worse than the baseline; {front.region.outside} trials lie below"
        )
    return "; ".join(parts) or None


def plain_table(title: str, caption: str = "") -> Table:
    """An empty table; square brackets and colons in its title and caption are printed as they are.

    Rich reads markup from every text of a table that is not a ``Text``.
    """
    return Table(
        title=Text(title, "table.title"),
        caption=Text(caption, "table.caption") if caption else None,
        box=box.SIMPLE_HEAD,
        padding=(0, 1, 0, 0),
    )


def limits_line(front: StudyFront) -> str | None:
    """One line on how many trials break which limit, the nearest, and repairs; None without either."""
    tried = front.ledger.repairs
    repairs = f"repairs: {tried} tried, {front.ledger.repairs_within} brought within quality_drop"
    if not front.violations:
        return repairs if tried else None
    parts = []
    for name, broken in front.violations.items():
        stopped = f" and {broken.stopped} stopped by the preview" if broken.stopped else ""
        nearest = f"the nearest is trial {broken.nearest}, over by {broken.excess:.4g}"
        parts.append(f"{name} {broken.trials} trials{stopped}, {nearest}")
    start = "violating limits" if front.rows else "no trial is within the limits"
    return f"{start}: {'; '.join([*parts, repairs] if tried else parts)}"


def added_line(trials: Sequence[int]) -> str | None:
    """One line on the trials that somebody added to the study, by their numbers; None without any."""
    if not trials:
        return None
    numbers = ", ".join(map(str, trials))
    return f"not on the front, because they were added from outside and have no file: trials {numbers}"


def ledger_line(ledger: TrainingLedger) -> str:
    """One line on what was trained, and what cache, preview and rungs spared."""
    return (
        f"trained {ledger.train_s:.0f} s, compared at rungs for {ledger.judging_s:.0f} s; "
        f"cache: {ledger.cache_hits} nodes reused, "
        f"{ledger.cache_misses} computed, {ledger.cache_saved_s:.0f} s of training saved, "
        f"{ledger.cache_healed} damaged entries healed; stopped: {ledger.preview_stops} by preview, "
        f"{ledger.rung_stops} at rungs, {ledger.saved_epochs:.3g} epochs saved"
    )


def as_markdown(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table."""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def heading(name: str) -> str:
    """Short name of a value with the unit that ``shown`` writes it in."""
    return METRICS[name].heading if name in METRICS else name


def shown(name: str, value: float) -> str:
    """A value in the unit of its heading."""
    return f"{value * (METRICS[name].scale if name in METRICS else 1.0):.4g}"


def factor(metric: EfficiencyMetric, value: float, baseline: float) -> float:
    """How many times better than the baseline's a value is."""
    return value / baseline if metric.direction == "maximize" else baseline / value


def change(name: str, value: float, baseline: float) -> str:
    """A value against the baseline's: a factor for times, percent for other ratios, else a difference.

    Empty for values that count by their difference and are 0 for the baseline by nature.
    """
    if name in _AS_FACTOR:
        return f"{factor(METRICS[name], value, baseline):.2f}x"
    if name in METRICS:
        return f"{100 * (value / baseline - 1):+.1f}%" if METRICS[name].by_ratio else ""
    return f"{value - baseline:+.4f}"


def values_line(values: Mapping[str, float], baseline: Mapping[str, float]) -> str:
    """Values in the units of their headings, each with its change against the baseline's in brackets."""
    return ", ".join(_with_change(name, value, baseline[name]) for name, value in values.items())


def _with_change(name: str, value: float, baseline: float) -> str:
    against = change(name, value, baseline)
    return f"{shown(name, value)} {heading(name)}{f' ({against})' if against else ''}"


def _rows(front: StudyFront, all_rows: bool) -> tuple[Row, ...]:
    return (*front.rows, *front.off_front) if all_rows else front.rows


def _cells(front: StudyFront, row: Row, name: str) -> tuple[str, str]:
    value = row.values[name]
    return shown(name, value), change(name, value, front.baseline[name])
