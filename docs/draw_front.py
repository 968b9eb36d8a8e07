"""Draw a study as a small SVG: quality over size, one disc a trial, its area the throughput.

    python docs/draw_front.py --storage sqlite:///storage/digits.db --study digits --out docs/front.svg

Members of the front are strong and labelled, the other trials are pale. The colours have contrast on white
and on black, so one file serves light and dark pages.
"""

from __future__ import annotations

import argparse
import dataclasses
import html
import math
from collections.abc import Iterator, Sequence
from pathlib import Path

import optuna

from petra_optuna import front, load_study, open_storage

WIDTH, HEIGHT = 720, 340
LEFT, RIGHT, TOP, BOTTOM = 64, 690, 44, 284
GREY, BLUE, ORANGE = "#7d8590", "#3b82f6", "#d9730d"
STRONG, PALE = 0.9, 0.4  # opacity of members of the front and of other trials
SIZE_TICKS = (1, 2, 5, 10, 20, 50, 100)  # percent of the original's
LARGEST = 1.4  # size at the right edge, as a share of the original's
DISC_AREA = 40  # square units for the original's throughput
LABEL_GAP = 26  # units between two labels


@dataclasses.dataclass(frozen=True)
class Disc:
    """A trial: its quality, size and throughput as shares of the original's, and how it is drawn."""

    quality: float
    size: float
    throughput: float
    colour: str
    opacity: float
    name: str


def main() -> None:
    """Read the study and write the picture."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--storage", required=True, help="SQLAlchemy URL of the database.")
    parser.add_argument("--study", help="Study name; optional if the database holds one study.")
    parser.add_argument("--controls", type=int, default=5, help="Number of controls the study began with.")
    parser.add_argument("--depth", type=float, default=0.05, help="Quality shown below the best trial's.")
    parser.add_argument("--out", type=Path, required=True, help="SVG file to write.")
    arguments = parser.parse_args()
    study = load_study(open_storage(arguments.storage, must_exist=True), arguments.study)
    metric, discs = read(study, arguments.controls)
    arguments.out.write_text("\n".join([*draw(metric, discs, arguments.depth), ""]), encoding="utf-8")


def read(study: optuna.Study, controls: int) -> tuple[str, list[Disc]]:
    """The metric's name, and the finished trials of a study, members of the front last.

    Shares are of the values of trial 0, which is the original.
    """
    study_front = front(study)
    names = list(study_front.directions)
    members = {row.trial: row.pipeline for row in study_front.rows}
    trials = study.get_trials(deepcopy=False, states=(optuna.trial.TrialState.COMPLETE,))
    discs = []
    for trial in trials:
        pairs = zip(trial.values, trials[0].values, strict=True)
        shares = dict(zip(names, (value / original for value, original in pairs), strict=True))
        discs.append(
            Disc(
                quality=trial.values[0],
                size=shares["size_bytes"],
                throughput=shares["throughput_per_s"],
                colour=ORANGE if trial.number < controls else BLUE,
                opacity=STRONG if trial.number in members else PALE,
                name=f"trial {trial.number} {members.get(trial.number, '')}".strip(),
            )
        )
    return names[0], sorted(discs, key=lambda disc: (disc.opacity, -disc.throughput))


def draw(metric: str, discs: Sequence[Disc], depth: float) -> Iterator[str]:
    """Lines of the SVG; trials more than ``depth`` below the best quality are left out and counted."""
    best = max(disc.quality for disc in discs)
    low, high = best - depth, best + depth / 6
    shown = [disc for disc in discs if disc.quality >= low]
    smallest = 0.7 * min(disc.size for disc in shown)

    def x(size: float) -> float:
        return LEFT + (RIGHT - LEFT) * math.log(size / smallest) / math.log(LARGEST / smallest)

    def y(quality: float) -> float:
        return BOTTOM - (BOTTOM - TOP) * (quality - low) / (high - low)

    yield f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" role="img"'
    yield f'  font-family="sans-serif" font-size="12" fill="{GREY}">'
    yield f'<path d="M{LEFT} {TOP}V{BOTTOM}H{RIGHT}" fill="none" stroke="{GREY}"/>'
    yield _text(8, TOP - 22, f"{metric} on selection", "start")
    for tick in _ticks(low, high):
        yield _text(LEFT - 8, y(tick) + 4, f"{tick:.2f}", "end")
    for percent in SIZE_TICKS:
        if percent / 100 > smallest:
            yield _text(x(percent / 100), BOTTOM + 18, f"{percent} %", "middle")
    hidden = len(discs) - len(shown)
    below = f"; {hidden} trials below {low:.2f} are not shown" if hidden else ""
    yield _text((LEFT + RIGHT) / 2, BOTTOM + 40, f"size of the file over the original's{below}", "middle")
    yield from _legend()
    for disc in shown:
        yield f'<circle cx="{x(disc.size):.1f}" cy="{y(disc.quality):.1f}" r="{_radius(disc):.1f}"'
        title = html.escape(f"{disc.name}: {disc.throughput:.1f} times the throughput")
        yield f'  fill="{disc.colour}" fill-opacity="{disc.opacity}"><title>{title}</title></circle>'
    labels: list[tuple[float, float]] = []
    for disc in sorted(shown, key=lambda disc: -disc.quality):  # the best of neighbours gets the label
        centre = x(disc.size), y(disc.quality)
        if disc.opacity > PALE and all(math.dist(centre, label) > LABEL_GAP for label in labels):
            labels.append(centre)
            yield _text(centre[0], centre[1] - _radius(disc) - 4, f"{disc.throughput:.1f}x", "middle")
    yield "</svg>"


def _radius(disc: Disc) -> float:
    return math.sqrt(DISC_AREA * disc.throughput / math.pi)


def _legend() -> Iterator[str]:
    entries = (
        (400, BLUE, STRONG, "front"),
        (330, ORANGE, STRONG, "control"),
        (250, BLUE, PALE, "other trial"),
    )
    for left, colour, opacity, meaning in entries:
        yield f'<circle cx="{RIGHT - left}" cy="{TOP - 26}" r="6" fill="{colour}" fill-opacity="{opacity}"/>'
        yield _text(RIGHT - left + 11, TOP - 22, meaning, "start")
    yield _text(RIGHT, TOP - 22, "area and label: throughput", "end")


def _ticks(low: float, high: float) -> list[float]:
    """Multiples of 0.01 between two limits."""
    return [number / 100 for number in range(math.ceil(low * 100), math.floor(high * 100) + 1)]


def _text(x: float, y: float, text: str, anchor: str) -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{html.escape(text)}</text>'


if __name__ == "__main__":
    main()
