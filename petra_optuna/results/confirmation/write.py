"""A confirmed front as files: table, data, page, and a card for each member."""

from __future__ import annotations

import json
from pathlib import Path
from string import Template

import optuna

from petra_optuna.results.card import TEMPLATES, card_fields
from petra_optuna.results.confirmation.record import Confirmation, Member
from petra_optuna.results.confirmation.tables import confirmed_markdown, mark_of, spread_of, with_interval
from petra_optuna.results.page import as_html
from petra_optuna.results.report import as_markdown
from petra_optuna.tasks import Task


def write(confirmation: Confirmation, study: optuna.Study, task: Task, folder: Path) -> None:
    """Write ``table.md``, ``front.json``, ``front.html`` and a ``card-TRIAL.md`` for each member."""
    title = f"# Front of study {confirmation.study}, confirmed\n\n"
    (folder / "table.md").write_text(title + confirmed_markdown(confirmation), encoding="utf-8")
    (folder / "front.json").write_text(json.dumps(confirmation.to_dict(), indent=2) + "\n", encoding="utf-8")
    (folder / "front.html").write_text(confirmed_html(confirmation), encoding="utf-8")
    for member in confirmation.members:
        (folder / f"card-{member.trial}.md").write_text(
            _card(confirmation, member, study, task), encoding="utf-8"
        )


def confirmed_html(confirmation: Confirmation) -> str:
    """The page of the front with bars for the quality's intervals; members that are dominated are hollow."""
    quality = confirmation.metric
    intervals: dict[int | None, tuple[float, float]] = {
        member.trial: (member.values[quality].low, member.values[quality].high)
        for member in confirmation.members
    }
    intervals[None] = (confirmation.baseline[quality].low, confirmation.baseline[quality].high)
    marked = [member.trial for member in confirmation.members if member.dominated_by]
    return as_html(confirmation.front(), intervals, marked)


def _card(confirmation: Confirmation, member: Member, study: optuna.Study, task: Task) -> str:
    fields = card_fields(study, member.trial, task)
    header = ["value", "this file, confirmed", "when the search chose it", "baseline, confirmed"]
    fields["numbers"] = as_markdown(
        header,
        [
            [
                name,
                with_interval(estimate),
                f"{member.selection[name]:.6g}",
                with_interval(confirmation.baseline[name]),
            ]
            for name, estimate in member.values.items()
        ],
    )
    fields |= {
        "difference": with_interval(member.difference),
        "test": confirmation.samples,
        "resamples": confirmation.resamples,
        "rounds": confirmation.rounds,
        "reading": confirmation.reading,
        "dominated": mark_of(member),
        "rank": member.rank,
        "spread": spread_of(member) or "no retrainings were asked for",
    }
    return Template((TEMPLATES / "confirmed.md").read_text(encoding="utf-8")).substitute(fields)
