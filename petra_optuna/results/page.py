"""A front as an interactive page."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import plotly.graph_objects as go

from petra_optuna.results.front import Row, StudyFront
from petra_optuna.results.report import METRICS, factor, heading, shown

Intervals = Mapping[int | None, tuple[float, float]]
"""Lower and upper end of the quality's interval by trial; None is the baseline."""


def as_figure(front: StudyFront, intervals: Intervals | None = None, marked: Sequence[int] = ()) -> go.Figure:
    """Quality over size, throughput as colour, latency as the marker's size; hover for all of a row.

    Trials that tie with the front and those below the region of interest are grey.

    A study without ``size_bytes`` among its objectives has its first other objective on the axis. A study
    without throughput or latency has no colour or one size.

    Args:
        front: Front to draw.
        intervals: Interval of the quality by trial, drawn as bars.
        marked: Trials that are dominated within noise, drawn hollow.

    Example:
        >>> as_figure(front(study)).layout.title.text
        'Front of study mine'
    """
    quality, *others = front.directions
    axis = "size_bytes" if "size_bytes" in others else others[0]
    traces = [_points(front, axis, intervals, marked), _baseline(front, axis, intervals)]
    if front.off_front:
        traces.insert(0, _off_front(front, axis))
    figure = go.Figure(traces)
    figure.update_layout(
        title=f"Front of study {front.study}",
        xaxis={
            "title": f"{axis}, {heading(axis)}",
            "type": "log" if METRICS[axis].by_ratio else "linear",
        },
        yaxis={"title": quality},
        legend={"orientation": "h"},
        template="plotly_white",
    )
    return figure


def as_html(front: StudyFront, intervals: Intervals | None = None, marked: Sequence[int] = ()) -> str:
    """``as_figure`` as a page that needs no network."""
    return str(as_figure(front, intervals, marked).to_html(include_plotlyjs=True, full_html=True))


def _points(front: StudyFront, axis: str, intervals: Intervals | None, marked: Sequence[int]) -> go.Scatter:
    quality, *others = front.directions
    return go.Scatter(
        x=[row.values[axis] * METRICS[axis].scale for row in front.rows],
        y=[row.values[quality] for row in front.rows],
        error_y=_bars({row.trial: row.values[quality] for row in front.rows}, intervals),
        mode="markers",
        name="front",
        marker=_markers(front, marked),
        customdata=[[row.trial, row.pipeline, _listed(row, others)] for row in front.rows],
        hovertemplate=(
            "trial %{customdata[0]}: %{customdata[1]}<br>" + quality + " %{y:.4f}<br>"
            "%{customdata[2]}<extra></extra>"
        ),
    )


def _off_front(front: StudyFront, axis: str) -> go.Scatter:
    quality, *others = front.directions
    return go.Scatter(
        x=[row.values[axis] * METRICS[axis].scale for row in front.off_front],
        y=[row.values[quality] for row in front.off_front],
        mode="markers",
        name="ties, and below the region",
        marker={"color": "lightgrey", "size": 8},
        customdata=[
            [row.trial, row.pipeline, _listed(row, others), row.off_front] for row in front.off_front
        ],
        hovertemplate=(
            "trial %{customdata[0]} (%{customdata[3]}): %{customdata[1]}<br>" + quality + " %{y:.4f}<br>"
            "%{customdata[2]}<extra></extra>"
        ),
    )


def _markers(front: StudyFront, marked: Sequence[int]) -> dict[str, Any]:
    markers: dict[str, Any] = {
        "symbol": ["circle-open" if row.trial in marked else "circle" for row in front.rows],
        "size": [9 + 5 * min(times, 5) for times in _factors(front, "latency_ms")],
    }
    if "throughput_per_s" in front.directions:
        markers |= {
            "color": _factors(front, "throughput_per_s"),
            "colorscale": "Viridis",
            "showscale": True,
            "colorbar": {"title": "throughput factor"},
        }
    return markers


def _baseline(front: StudyFront, axis: str, intervals: Intervals | None) -> go.Scatter:
    quality = next(iter(front.directions))
    return go.Scatter(
        x=[front.baseline[axis] * METRICS[axis].scale],
        y=[front.baseline[quality]],
        error_y=_bars({None: front.baseline[quality]}, intervals),
        mode="markers+text",
        name="baseline",
        text=["baseline"],
        textposition="top left",
        marker={"symbol": "x", "size": 12, "color": "crimson"},
    )


def _listed(row: Row, names: Sequence[str]) -> str:
    return ", ".join(f"{shown(name, row.values[name])} {heading(name)}" for name in names)


def _factors(front: StudyFront, name: str) -> list[float]:
    """How many times better than the baseline each row is; 1 where the study has no such objective."""
    if name not in front.directions:
        return [1.0] * len(front.rows)
    return [factor(METRICS[name], row.values[name], front.baseline[name]) for row in front.rows]


def _bars(values: Mapping[int | None, float], intervals: Intervals | None) -> dict[str, Any] | None:
    if intervals is None:
        return None
    above = [intervals[trial][1] - value for trial, value in values.items()]
    below = [value - intervals[trial][0] for trial, value in values.items()]
    return {"type": "data", "symmetric": False, "array": above, "arrayminus": below}
