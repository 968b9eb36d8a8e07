"""Curves of the hypervolume, one HTML file."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import plotly.graph_objects as go
from plotly.colors import qualitative
from plotly.subplots import make_subplots

from studies.comparison.results import Record
from studies.comparison.tables import group_of

COLUMNS = 3


def write_plots(records: Sequence[Record], path: Path) -> None:
    """Mean over seeds with the range of their quartiles, a panel for each problem and number of workers."""
    groups = list(dict.fromkeys(group_of(record) for record in records))
    samplers = list(dict.fromkeys(record["sampler"] for record in records))
    rows = -(-len(groups) // COLUMNS)
    titles = [f"{problem}, {workers} workers" for problem, workers, _ in groups]
    figure = make_subplots(rows=rows, cols=COLUMNS, subplot_titles=titles)
    for panel, group in enumerate(groups):
        cell = {"row": panel // COLUMNS + 1, "col": panel % COLUMNS + 1}
        for color, sampler in zip(_colors(len(samplers)), samplers, strict=True):
            runs = [
                record for record in records if group_of(record) == group and record["sampler"] == sampler
            ]
            for trace in _traces(runs, sampler, color, first=panel == 0):
                figure.add_trace(trace, **cell)
    figure.update_layout(
        height=320 * rows, title="Hypervolume, share of the reference front's", hovermode="x"
    )
    figure.write_html(path, include_plotlyjs=True)


def _traces(records: Sequence[Record], sampler: str, color: str, first: bool) -> list[go.Scatter]:
    if not records:
        return []
    curves = [record["curve"] for record in records]
    counts = [count for count, _ in curves[0]]
    table = np.array([[volume for _, volume in curve] for curve in curves])
    low, high = np.quantile(table, (0.25, 0.75), axis=0)
    band = go.Scatter(
        x=[*counts, *counts[::-1]],
        y=[*high, *low[::-1]],
        fill="toself",
        fillcolor=color,
        opacity=0.15,
        line={"width": 0},
        hoverinfo="skip",
        legendgroup=sampler,
        showlegend=False,
    )
    mean = go.Scatter(
        x=counts,
        y=table.mean(axis=0),
        name=sampler,
        line={"color": color},
        legendgroup=sampler,
        showlegend=first,
    )
    return [band, mean]


def _colors(count: int) -> list[str]:
    return [qualitative.Dark24[index % len(qualitative.Dark24)] for index in range(count)]
