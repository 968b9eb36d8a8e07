"""How a search went, as the sampler saw it. Plotly is loaded on the first plot."""

from __future__ import annotations

from typing import TYPE_CHECKING

import optuna

from petra_optuna.samplers.petra import PetraSampler

if TYPE_CHECKING:
    from plotly.graph_objects import Figure

TITLES = (
    "Probability of each operator",
    "Mean credit within the window",
    "Longest pipeline planned",
    "Hypervolume of the population",
)


def plot_state(study: optuna.Study, sampler: PetraSampler) -> Figure:
    """Rates, credit, depth and hypervolume over the finished trials, one panel each.

    Args:
        study: Study to show; an empty one gives empty panels.
        sampler: Sampler with the arguments of the search, which are not in the study.
    """
    from plotly import graph_objects
    from plotly.colors import qualitative
    from plotly.subplots import make_subplots

    states = sampler.trace(study)
    trials = [state.finished for state in states]
    figure = make_subplots(rows=4, cols=1, shared_xaxes=True, vertical_spacing=0.05, subplot_titles=TITLES)
    for index, name in enumerate(states[0].rates if states else ()):
        line = {"color": qualitative.Dark24[index % len(qualitative.Dark24)]}
        for row, values in enumerate(
            ([state.rates[name] for state in states], [state.credit[name] for state in states])
        ):
            trace = graph_objects.Scatter(
                x=trials, y=values, name=name, legendgroup=name, showlegend=row == 0, line=line
            )
            figure.add_trace(trace, row=row + 1, col=1)
    for row, name, values in (
        (3, "depth", [state.depth for state in states]),
        (4, "hypervolume", [state.hypervolume for state in states]),
    ):
        trace = graph_objects.Scatter(x=trials, y=values, name=name, showlegend=False, line={"shape": "hv"})
        figure.add_trace(trace, row=row, col=1)
    figure.update_xaxes(title_text="finished trials", row=4, col=1)
    figure.update_layout(height=1100, hovermode="x")
    return figure
