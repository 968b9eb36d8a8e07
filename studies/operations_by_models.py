"""Every operation on every model of the conformance tests, as one Markdown table.

    python -m studies.operations_by_models

A cell is what is left of the original: its parameters for a node of the body, the bytes of its FP32 file
for a conversion. ``=`` is a node that legally changed nothing. ``(n)`` counts the places that were left
as they are. Marks lead to the reasons for those and for failures, each with the number of its places.
Training spends one epoch; low rank takes a share of the ranks, since the weights are random.
"""

from __future__ import annotations

import argparse
import dataclasses
import tempfile
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from petra_optuna.deploy import lower
from petra_optuna.errors import TrialError, one_line
from petra_optuna.nn.counting import count_parameters
from petra_optuna.operations import BODY_OPERATIONS, CONVERSIONS
from petra_optuna.pipeline import Operation, float_layers
from petra_optuna.tasks import Task
from studies import script
from tests.conformance.models import CASES, context, node

OPERATIONS = BODY_OPERATIONS + CONVERSIONS


@dataclasses.dataclass(frozen=True)
class Cell:
    """One operation on one model.

    Attributes:
        text: What the table shows, without marks.
        reasons: Why places were left or why it failed, with the number of places.
    """

    text: str
    reasons: Mapping[str, int]


def main() -> None:
    """Run the operations and print the table and its reasons."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--models", nargs="+", choices=sorted(CASES), default=list(CASES))
    names = [kind.name for kind in OPERATIONS]
    parser.add_argument("--operations", nargs="+", choices=names, default=names)
    arguments = parser.parse_args()
    kinds = [kind for kind in OPERATIONS if kind.name in arguments.operations]
    marks: dict[str, str] = {}
    print("| model | parameters |" + "".join(f" {kind.name} |" for kind in kinds))
    print("|---|---|" + "---|" * len(kinds))
    for model in arguments.models:
        task = CASES[model]()
        with tempfile.TemporaryDirectory() as folder:
            cells = _cells(task, kinds, Path(folder))
        shown = "".join(f" {_text(cell, marks)} |" for cell in cells)
        print(f"| {model} | {count_parameters(task.model):,} |{shown}", flush=True)
    print()
    for reason, mark in marks.items():
        print(f"- {mark}: {reason}")


def _cells(task: Task, kinds: list[type[Operation]], folder: Path) -> list[Cell]:
    whole = folder / "whole.onnx"
    converts = any(kind.kind == "conversion" for kind in kinds)
    size = lower(task.model, task.example, whole).size_bytes if converts else 0
    cells = []
    for kind in kinds:
        try:
            if kind.kind == "conversion":
                artifact = lower(
                    task.model, task.example, folder / f"{kind.name}.onnx", node(kind), context(task)
                )
                cells.append(_cell(artifact.size_bytes / size, artifact.lowering["conversion"]))
            else:
                applied = node(kind).apply(task.model, context(task))
                share = count_parameters(applied.model) / count_parameters(task.model)
                cells.append(_cell(share, applied.report))
        except TrialError as error:
            cells.append(Cell("fails", {one_line(error): 1}))
    return cells


def _cell(share: float, report: Mapping[str, Any]) -> Cell:
    left = Counter(report.get("left_out", {}).values())
    left += Counter(report.get("regularizers_off", {}).values())
    left += Counter(layer["reason"] for layer in float_layers(report))
    places = f" ({left.total()})" if left else ""
    if not report["changed"]:
        return Cell(f"={places}", {report["reason"]: 1, **left})
    return Cell(f"{share:.2f}{places}", left)


def _text(cell: Cell, marks: dict[str, str]) -> str:
    shown = []
    for reason, count in cell.reasons.items():
        mark = marks.setdefault(reason, f"r{len(marks) + 1}")
        shown.append(mark if count == 1 else f"{mark} x{count}")
    return " ".join((cell.text, *shown))


if __name__ == "__main__":
    script.run(main)
