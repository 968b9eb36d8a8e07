"""How to serve a file, as people read it."""

from __future__ import annotations

from rich.table import Table

from petra_optuna.inference import Recommendation
from petra_optuna.noise import Reading
from petra_optuna.results.report import plain_table

_UNITS = {
    "latency_ms": ("latency of a call", "ms", 1.0),
    "throughput_per_s": ("throughput", "samples/s", 1.0),
    "energy_j": ("energy of a sample", "mJ", 1e3),
    "peak_memory_bytes": ("peak memory", "MB", 1e-6),
}


def recommendation_table(answer: Recommendation) -> Table:
    """The expected figures with their 95 % intervals."""
    table = plain_table(f"Serve with {answer.setting.describe()}")
    for column in ("figure", "expected", "95 % interval", "unit"):
        table.add_column(column, justify="left" if column in ("figure", "unit") else "right")
    for name, reading in answer.expected.items():
        label, unit, scale = _UNITS[name]
        if name == "energy_j" and answer.energy_source:
            label += f" ({answer.energy_source})"
        interval = f"{reading.low * scale:.4g} to {reading.high * scale:.4g}" if reading.error else ""
        table.add_row(label, f"{reading.value * scale:.4g}", interval, unit)
    return table


def recommendation_lines(answer: Recommendation) -> list[str]:
    """Where the recommendation comes from, and what it gains."""
    objective = answer.objective
    searched = (
        f"{objective.name} on {answer.device.describe()}: "
        f"{answer.measurements} of {answer.settings} settings measured"
    )
    if answer.from_history:
        searched += ", answered from history"
    return [searched, f"{answer.gain:.2f} times better than one sample by all threads ({_shown(answer)})"]


def request_lines(answer: Recommendation) -> list[str]:
    """How requests of a scenario are served best, and what they take; empty where nobody asked."""
    served = answer.requests
    if served is None:
        return []
    policy, response = served["policy"], served["response"]
    wait = f", or after {policy['wait_s'] * 1e3:.3g} ms of waiting" if policy["wait_s"] else ""
    return [
        f"Scenario {served['scenario']}: calls of {policy['batch']} samples{wait}; response time "
        f"{response['mean_ms']['value']:.4g} ms on average, {response['p99_ms']['value']:.4g} ms at 99 %; "
        f"busy {100 * response['utilisation']:.0f} % of the time",
        f"Largest sustainable rate: {served['largest_rate_per_s']:.4g} samples/s",
    ]


def _shown(answer: Recommendation) -> str:
    figure = answer.objective.figure
    _, unit, scale = _UNITS[figure]
    values = (answer.simple, answer.expected[figure])
    shown = " against ".join(f"{_value(reading, scale)} {unit}" for reading in reversed(values))
    return f"{shown}, {answer.energy_source}" if figure == "energy_j" else shown


def _value(reading: Reading, scale: float) -> str:
    return f"{reading.value * scale:.4g}"
