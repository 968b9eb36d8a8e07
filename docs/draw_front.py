"""Draw a front as a small SVG: quality over size, a disc for each member, its area the throughput.

    petra front --storage sqlite:///storage/digits.db --study digits --format json > front.json
    python docs/draw_front.py front.json docs/front.svg

The colours have contrast on white and on black, so one file serves light and dark pages.
"""

from __future__ import annotations

import argparse
import html
import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

WIDTH, HEIGHT = 720, 340
LEFT, RIGHT, TOP, BOTTOM = 72, 696, 44, 284
GREY, BLUE, ORANGE = "#7d8590", "#3b82f6", "#d9730d"
SIZE, SPEED = "size_bytes", "throughput_per_s"
SIZE_TICKS = (1, 2, 5, 10, 20, 50, 100)  # percent of the original
DISC_AREA = 60  # square units for the original's throughput
MARGIN = 0.15  # of the range of qualities, above and below


def main() -> None:
    """Read the JSON of ``petra front`` and write the picture."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("front", type=Path, help="JSON written by petra front.")
    parser.add_argument("out", type=Path, help="SVG file to write.")
    parser.add_argument("--controls", type=int, default=5, help="Number of controls the study began with.")
    arguments = parser.parse_args()
    front = json.loads(arguments.front.read_text(encoding="utf-8"))
    arguments.out.write_text("\n".join([*draw(front, arguments.controls), ""]), encoding="utf-8")


def draw(front: dict[str, Any], controls: int) -> Iterator[str]:
    """Lines of the SVG of a front; trials with a number below ``controls`` are drawn as controls."""
    metric = next(iter(front["directions"]))
    original = front["original"]
    qualities = [original[metric], *(row["values"][metric] for row in front["front"])]
    reach = max(qualities) - min(qualities) or 0.01
    low, high = min(qualities) - MARGIN * reach, max(qualities) + MARGIN * reach
    smallest = 0.7 * min(row["values"][SIZE] for row in front["front"]) / original[SIZE]

    def x(size: float) -> float:
        """Position of a share of the original's size, on a logarithmic scale up to 1.4."""
        return LEFT + (RIGHT - LEFT) * math.log(size / smallest) / math.log(1.4 / smallest)

    def y(quality: float) -> float:
        return BOTTOM - (BOTTOM - TOP) * (quality - low) / (high - low)

    yield f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" role="img"'
    yield f'  font-family="sans-serif" font-size="12" fill="{GREY}">'
    yield f"<title>Front of study {html.escape(front['study'])}</title>"
    yield f'<path d="M{LEFT} {TOP}V{BOTTOM}H{RIGHT}" fill="none" stroke="{GREY}"/>'
    for percent in SIZE_TICKS:
        if percent / 100 > smallest:
            yield _text(x(percent / 100), BOTTOM + 18, f"{percent} %", "middle")
    yield _text((LEFT + RIGHT) / 2, BOTTOM + 40, "size of the file, share of the original's", "middle")
    for tick in _ticks(low, high):
        yield _text(LEFT - 8, y(tick) + 4, f"{tick:g}", "end")
    yield _text(LEFT - 48, TOP - 24, f"{metric} on selection", "start")
    for left, colour, meaning in ((340, BLUE, "found by the search"), (190, ORANGE, "a control")):
        yield f'<circle cx="{RIGHT - left}" cy="{TOP - 28}" r="5" fill="{colour}"/>'
        yield _text(RIGHT - left + 10, TOP - 24, meaning, "start")
    yield _text(RIGHT, TOP - 24, "label, area: throughput", "end")
    yield from _disc(x(1.0), y(original[metric]), 1.0, GREY, "the original")
    members = sorted(front["front"], key=lambda row: -row["values"][SPEED])  # large discs lie below
    for row in members:
        factor = row["values"][SPEED] / original[SPEED]
        colour = ORANGE if row["trial"] < controls else BLUE
        size, quality = row["values"][SIZE] / original[SIZE], row["values"][metric]
        yield from _disc(x(size), y(quality), factor, colour, f"trial {row['trial']}, {row['pipeline']}")
    yield "</svg>"


def _ticks(low: float, high: float) -> list[float]:
    """Round values between two limits, four to nine of them."""
    step = 10 ** math.floor(math.log10(high - low))
    step = next(step / part for part in (1, 2, 5) if (high - low) / (step / part) >= 4)
    return [round(step * number, 10) for number in range(math.ceil(low / step), math.floor(high / step) + 1)]


def _disc(x: float, y: float, factor: float, colour: str, name: str) -> Iterator[str]:
    """A disc with the factor of its throughput above it, and a name that browsers show at the pointer."""
    radius = math.sqrt(DISC_AREA * factor / math.pi)
    yield f'<circle cx="{x:.1f}" cy="{y:.1f}" r="{radius:.1f}" fill="{colour}" fill-opacity="0.75">'
    yield f"  <title>{html.escape(name)}: {factor:.1f} times the throughput</title></circle>"
    yield _text(x, y - radius - 4, f"{factor:.1f}x", "middle")


def _text(x: float, y: float, text: str, anchor: str) -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{html.escape(text)}</text>'


if __name__ == "__main__":
    main()
