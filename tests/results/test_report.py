"""What a front says of ties and of the region of interest."""

from __future__ import annotations

import csv
import dataclasses
import io

from petra_optuna.results import StudyFront, as_csv, as_figure, as_json, as_table, standing_line
from petra_optuna.results.front import Region, Row

BASELINE = {"accuracy": 0.99, "size_bytes": 1000.0}


def _row(trial: int, accuracy: float, off_front: str | None = None, ties: tuple[int, ...] = ()) -> Row:
    values = {"accuracy": accuracy, "size_bytes": 100.0 * (1 + trial)}
    change = {name: 100 * (value / BASELINE[name] - 1) for name, value in values.items()}
    return Row(trial, f"Pr({trial})", values, change, ties=ties, off_front=off_front)


FRONT = StudyFront(
    "digits",
    {"accuracy": "maximize", "size_bytes": "minimize"},
    BASELINE,
    (_row(3, 0.98, ties=(5,)), _row(1, 0.95)),
    region=Region(0.891, 0.1, 4),
    off_front=(_row(5, 0.98, "tie with trial 3"), _row(0, 0.2, "below the region")),
)


def test_the_table_shows_the_front_and_on_request_the_others() -> None:
    assert as_table(FRONT).row_count == 1 + 2  # the baseline comes first
    assert as_table(FRONT, all_rows=True).row_count == 1 + 4


def test_the_csv_says_why_a_row_is_not_on_the_front() -> None:
    short = list(csv.DictReader(io.StringIO(as_csv(FRONT))))
    assert [row["trial"] for row in short] == ["3", "1"]
    assert "off_front" not in short[0]
    whole = list(csv.DictReader(io.StringIO(as_csv(FRONT, all_rows=True))))
    assert [(row["trial"], row["off_front"]) for row in whole] == [
        *(("3", ""), ("1", "")),
        *(("5", "tie with trial 3"), ("0", "below the region")),
    ]
    assert '"off_front": "below the region"' in as_json(FRONT)


def test_one_line_tells_of_ties_and_of_the_region() -> None:
    assert standing_line(FRONT) == (
        "1 more trial ties with these rows within measured noise; the region of interest ends at accuracy "
        "0.8910, 10 % worse than the baseline; 4 trials lie below"
    )
    plain = dataclasses.replace(FRONT, rows=FRONT.rows[1:], region=None, off_front=())
    assert standing_line(plain) is None


def test_the_page_has_the_others_in_grey() -> None:
    front, whole = dataclasses.replace(FRONT, off_front=()), FRONT
    assert len(as_figure(whole).data) == len(as_figure(front).data) + 1
    grey = as_figure(whole).data[0]
    assert grey.marker.color == "lightgrey"
    assert [entry[0] for entry in grey.customdata] == [5, 0]
