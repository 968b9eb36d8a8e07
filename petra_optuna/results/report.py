"""A front for people and programs: table, CSV, JSON, an interactive page."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Mapping, Sequence
from typing import Any

import plotly.graph_objects as go
from rich import box
from rich.table import Table

from petra_optuna.evaluation import EFFICIENCY_METRICS, EfficiencyMetric
from petra_optuna.results.front import Row, StudyFront

_KNOWN = {known.name: known for known in EFFICIENCY_METRICS}
_FACTORS = ("latency_ms", "throughput_per_s")
"""Shown as how many times better than the original; other ratios as a change in percent."""
Intervals = Mapping[int | None, tuple[float, float]]


def as_json(front: StudyFront, confirmation: Mapping[str, Any] | None = None) -> str:
    """``StudyFront.to_dict`` as text, with what a confirmation found under ``confirmation``."""
    found = front.to_dict()
    if confirmation is not None:
        found["confirmation"] = confirmation
    return json.dumps(found, indent=2)


def as_csv(front: StudyFront) -> str:
    """One line per row; values, then changes in percent."""
    names = list(front.directions)
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["trial", "pipeline", *names, *(f"{name}_change_percent" for name in names)])
    for row in front.rows:
        changes = [row.change_percent[name] for name in names]
        writer.writerow([row.trial, row.pipeline, *(row.values[name] for name in names), *changes])
    return text.getvalue()


def as_table(front: StudyFront) -> Table:
    """A table for the terminal: each value, and its factor or change against the original."""
    table = Table(title=f"Front of study {front.study}", box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0))
    table.add_column("trial", justify="right", no_wrap=True)
    for name in front.directions:
        table.add_column(heading(name), justify="right", no_wrap=True)
        table.add_column("", justify="right", no_wrap=True)
    table.add_column("pipeline", overflow="fold", min_width=18)
    originals = [cell for name in front.directions for cell in (shown(name, front.original[name]), "")]
    table.add_row("", *originals, "baseline", style="dim")
    for row in front.rows:
        cells = [cell for name in front.directions for cell in _cells(front, row, name)]
        table.add_row(str(row.trial), *cells, row.pipeline)
    return table


def limits_line(front: StudyFront) -> str | None:
    """How many trials are beyond which limit, the nearest of them, and repairs; None where all keep all."""
    repairs = f"repairs: {front.repairs} tried, {front.repairs_within} brought within quality_drop"
    if not front.beyond:
        return repairs if front.repairs else None
    parts = []
    for name, found in front.beyond.items():
        stopped = f" and {found.stopped} stopped by the preview" if found.stopped else ""
        nearest = f"the nearest is trial {found.nearest}, beyond by {found.excess:.4g}"
        parts.append(f"{name} {found.trials} trials{stopped}, {nearest}")
    start = "beyond the limits" if front.rows else "no trial is within the limits"
    return f"{start}: {'; '.join([*parts, repairs] if front.repairs else parts)}"


def as_figure(front: StudyFront, intervals: Intervals | None = None, marked: Sequence[int] = ()) -> go.Figure:
    """Quality over size, throughput as colour, latency as the marker's size; hover for all of a row.

    In place of an objective that the study does not have stands its next one, on the axis, or nothing.

    Args:
        front: What to draw.
        intervals: Of the quality by trial, None for the original; drawn as bars.
        marked: Trials that are dominated within noise; drawn hollow.
    """
    quality, *others = front.directions
    axis = "size_bytes" if "size_bytes" in others else others[0]
    rows, scale = front.rows, _KNOWN[axis].scale
    marker: dict[str, Any] = {
        "symbol": ["circle-open" if row.trial in marked else "circle" for row in rows],
        "size": [9 + 5 * min(factor, 5) for factor in _factors(front, "latency_ms")],
    }
    if "throughput_per_s" in others:
        marker |= {
            "color": _factors(front, "throughput_per_s"),
            "colorscale": "Viridis",
            "showscale": True,
            "colorbar": {"title": "throughput factor"},
        }
    points = go.Scatter(
        x=[row.values[axis] * scale for row in rows],
        y=[row.values[quality] for row in rows],
        error_y=_bars({row.trial: row.values[quality] for row in rows}, intervals),
        mode="markers",
        name="front",
        marker=marker,
        customdata=[[row.trial, row.pipeline, _listed(row, others)] for row in rows],
        hovertemplate=(
            "trial %{customdata[0]}: %{customdata[1]}<br>" + quality + " %{y:.4f}<br>"
            "%{customdata[2]}<extra></extra>"
        ),
    )
    original = go.Scatter(
        x=[front.original[axis] * scale],
        y=[front.original[quality]],
        error_y=_bars({None: front.original[quality]}, intervals),
        mode="markers+text",
        name="original",
        text=["original"],
        textposition="top left",
        marker={"symbol": "x", "size": 12, "color": "crimson"},
    )
    figure = go.Figure([points, original])
    by_ratio = _KNOWN[axis].by_ratio
    figure.update_layout(
        title=f"Front of study {front.study}",
        xaxis={"title": f"{axis}, {heading(axis)}", "type": "log" if by_ratio else "linear"},
        yaxis={"title": quality},
        legend={"orientation": "h"},
        template="plotly_white",
    )
    return figure


def as_html(front: StudyFront, intervals: Intervals | None = None, marked: Sequence[int] = ()) -> str:
    """``as_figure`` as a page that needs no network."""
    return str(as_figure(front, intervals, marked).to_html(include_plotlyjs=True, full_html=True))


def as_markdown(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table."""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def heading(name: str) -> str:
    """Short name of a value with the unit that ``shown`` writes it in."""
    return _KNOWN[name].heading if name in _KNOWN else name


def shown(name: str, value: float) -> str:
    """A value in the unit of its heading."""
    return f"{value * (_KNOWN[name].scale if name in _KNOWN else 1.0):.4g}"


def _listed(row: Row, names: Sequence[str]) -> str:
    return ", ".join(f"{shown(name, row.values[name])} {heading(name)}" for name in names)


def _factors(front: StudyFront, name: str) -> list[float]:
    """How many times better than the original each row is; 1 where the study has no such objective."""
    if name not in front.directions:
        return [1.0] * len(front.rows)
    return [_factor(_KNOWN[name], row.values[name], front.original[name]) for row in front.rows]


def _factor(known: EfficiencyMetric, value: float, original: float) -> float:
    return value / original if known.direction == "maximize" else original / value


def _bars(values: Mapping[int | None, float], intervals: Intervals | None) -> dict[str, Any] | None:
    if intervals is None:
        return None
    above = [intervals[trial][1] - value for trial, value in values.items()]
    below = [value - intervals[trial][0] for trial, value in values.items()]
    return {"type": "data", "symmetric": False, "array": above, "arrayminus": below}


def _cells(front: StudyFront, row: Row, name: str) -> tuple[str, str]:
    value, original = row.values[name], front.original[name]
    if name in _FACTORS:
        note = f"{_factor(_KNOWN[name], value, original):.2f}x"
    elif name in _KNOWN:
        note = f"{100 * (value / original - 1):+.1f}%" if _KNOWN[name].by_ratio else ""
    else:
        note = f"{value - original:+.4f}"
    return shown(name, value), note
