"""Print what every operation leaves of models of every kind, and where it leaves them alone.

    python -m studies.operations_by_models

A cell of the first table is what is left of the original: its parameters for a node of the body, the bytes of
its FP32 file for a conversion. ``=`` is a node that legally changed nothing. The second table counts the
places that an operation left as they are, by the marks of the reasons, which follow. Training spends one
epoch; low rank takes a share of the ranks, since the weights are random.
"""

from __future__ import annotations

import dataclasses
import tempfile
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from petra_optuna.deploy import lower
from petra_optuna.errors import TrialError, one_line
from petra_optuna.nn.counting import count_parameters
from petra_optuna.operations import BODY_OPERATIONS, CONVERSIONS
from petra_optuna.pipeline import Operation, float_layers
from petra_optuna.tasks import Task
from studies import script
from tests.conformance import models, zoo
from tests.conformance.models import context, node

OPERATIONS = BODY_OPERATIONS + CONVERSIONS
CASES = {**models.CASES, **zoo.CASES}


@dataclasses.dataclass(frozen=True)
class Cell:
    """One operation on one model.

    Attributes:
        text: What the first table shows.
        reasons: Why places were left or why it failed, with the number of places.
    """

    text: str
    reasons: Mapping[str, int]


def main() -> None:
    """Run the operations and print the tables and the reasons."""
    parser = script.parser(__doc__)
    parser.add_argument("--models", nargs="+", choices=sorted(CASES), default=list(CASES))
    names = [operation_class.name for operation_class in OPERATIONS]
    parser.add_argument("--operations", nargs="+", choices=names, default=names)
    arguments = parser.parse_args()
    chosen = [
        operation_class for operation_class in OPERATIONS if operation_class.name in arguments.operations
    ]
    left: list[tuple[str, str, Cell]] = []
    header = ("model", "parameters", *(operation_class.name for operation_class in chosen))
    script.print_table(header, _rows(arguments.models, chosen, left))
    marks: dict[str, str] = {}
    print()
    script.print_table(("model", "operation", "mark", "places"), _places(left, marks))
    print()
    for reason, mark in marks.items():
        print(f"- {mark}: {reason}")


def _rows(
    models: list[str], chosen: list[type[Operation]], left: list[tuple[str, str, Cell]]
) -> Iterator[list[object]]:
    """One row a model; model, operation and cell are added to ``left`` as well."""
    for model in models:
        task = CASES[model]()
        with tempfile.TemporaryDirectory() as folder:
            cells = _cells(task, chosen, Path(folder))
        pairs = zip(chosen, cells, strict=True)
        left += [(model, operation_class.name, cell) for operation_class, cell in pairs]
        yield [model, f"{count_parameters(task.model):,}", *(cell.text for cell in cells)]


def _places(left: list[tuple[str, str, Cell]], marks: dict[str, str]) -> Iterator[list[object]]:
    for model, operation, cell in left:
        for reason, count in cell.reasons.items():
            yield [model, operation, marks.setdefault(reason, f"r{len(marks) + 1}"), count]


def _cells(task: Task, chosen: list[type[Operation]], folder: Path) -> list[Cell]:
    whole = folder / "whole.onnx"
    converts = any(operation_class.kind == "conversion" for operation_class in chosen)
    size = lower(task.model, task.example, whole).size_bytes if converts else 0
    cells = []
    for operation_class in chosen:
        try:
            operation = node(operation_class)
            if operation_class.kind == "conversion":
                path = folder / f"{operation_class.name}.onnx"
                artifact = lower(task.model, task.example, path, operation, context(task))
                cells.append(_cell(artifact.size_bytes / size, artifact.lowering["conversion"]))
            else:
                applied = operation.apply(task.model, context(task))
                share = count_parameters(applied.model) / count_parameters(task.model)
                cells.append(_cell(share, applied.report))
        except TrialError as error:
            cells.append(Cell("fails", {one_line(error): 1}))
    return cells


def _cell(share: float, report: Mapping[str, Any]) -> Cell:
    left = Counter(report.get("left_out", {}).values())
    left += Counter(report.get("regularizers_off", {}).values())
    left += Counter(layer["reason"] for layer in float_layers(report))
    if not report["changed"]:
        return Cell("=", {report["reason"]: 1, **left})
    return Cell(f"{share:.2f}", left)


if __name__ == "__main__":
    script.run(main)
