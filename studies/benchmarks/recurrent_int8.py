"""Print how fast GRU and LSTM are in INT8, by several ways, against ONNX Runtime's float operator.

    python -m studies.benchmarks.recurrent_int8

One layer over series of 100 steps with 32 values each, random weights, one thread. Every row is measured in
alternating blocks against the float file in ONNX Runtime; a smaller ratio is faster. "loop" is the GRU as one
step after the other in integer products, "blocks" the same with ten steps in each turn, "operator" ONNX
Runtime's DynamicQuantizeLSTM. The error is that of the last outputs against PyTorch's, in percent of their
norm at batch 64. ``--share`` has the layer's matrices factored first, and measures against the float file of
the factors. The error depends on weights and inputs: ``--errors`` prints another table, of the errors with
larger weights and with other inputs.
"""

from __future__ import annotations

import argparse
import copy
import dataclasses
import functools
import itertools
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from petra_optuna.deploy import export_onnx
from petra_optuna.errors import RuntimeFailed
from petra_optuna.measurement import Measurement, Schedule
from petra_optuna.measurement.load import CoreWaits
from petra_optuna.measurement.machine_lock import MachineLock
from petra_optuna.measurement.protocol import Side, compare
from petra_optuna.nn.low_rank import FactoredRecurrent, reduce_layer
from petra_optuna.nn.randomness import seeded
from petra_optuna.operations.recurrent_int8 import compute_in_int8
from petra_optuna.operations.weight_only import STORED, named, store_int8
from petra_optuna.runtimes import runtime
from studies import script
from studies.benchmarks.recurrent_blocks import in_blocks

INPUTS, STEPS, BLOCK = 32, 100, 10
CELLS: Mapping[str, type[nn.GRU | nn.LSTM]] = {"GRU": nn.GRU, "LSTM": nn.LSTM}
BATCHES = (1, 64)
COPIES = 3
SCHEDULE = Schedule(max_s=6.0, max_pairs=20)
ANY_SIZE = {"GRU": 1, "LSTM": 1}
HEADER = (
    *("cell", "units", "inputs", "runtime", "file", "MB", "error, %"),
    *(column for batch in BATCHES for column in (f"batch {batch}", "low", "high", "ms")),
)
ERROR_HEADER = ("cell", "units", "weights", "inputs", "weights in INT8, error %", "INT8, error %")
Run = Callable[[np.ndarray], np.ndarray]


class Last(nn.Module):
    """A recurrent layer over series (B, T, inputs), read at its end."""

    def __init__(self, cell: str, inputs: int, units: int) -> None:
        super().__init__()
        self.inputs = inputs
        self.layer: nn.Module = CELLS[cell](inputs, units, batch_first=True)

    def forward(self, series: Tensor) -> Tensor:
        """Map (B, T, inputs) to outputs (B, units)."""
        outputs: Tensor = self.layer(series)[0][:, -1]
        return outputs


@dataclasses.dataclass(frozen=True)
class Candidate:
    """One way to run the layer.

    Attributes:
        runtime: Name of the runtime.
        name: Name of the way.
        megabytes: Size of its file; None without a file.
        open: Opens it once more.
    """

    runtime: str
    name: str
    megabytes: float | None
    open: Callable[[], Run]


def main() -> None:
    """Print the table."""
    parser = script.parser(__doc__)
    parser.add_argument("--cells", nargs="+", choices=CELLS, default=list(CELLS), help="kinds of layers")
    parser.add_argument("--units", nargs="+", type=int, default=[128, 400, 800], help="numbers of units")
    parser.add_argument("--inputs", type=int, default=INPUTS, help="values of a step")
    parser.add_argument("--share", type=float, help="share of the weights that low rank keeps before")
    parser.add_argument("--only", default="", help="measure only files whose names contain this")
    parser.add_argument("--errors", action="store_true", help="print the table of errors")
    given = parser.parse_args()
    torch.set_num_threads(1)
    warnings.filterwarnings("ignore")  # PyTorch's INT8 is deprecated, and says so in every call
    if given.errors:
        script.print_table(ERROR_HEADER, error_rows(given.cells, given.units, given.inputs))
        return
    script.print_table(HEADER, _rows(given))


def _rows(given: argparse.Namespace) -> Iterator[list[object]]:
    inputs, only = given.inputs, given.only
    for cell, units in itertools.product(given.cells, given.units):
        with seeded(0):
            model = Last(cell, inputs, units).eval()
            batches = {batch: torch.randn(batch, STEPS, inputs) for batch in BATCHES}
        if given.share is not None:
            model.layer = reduce_layer(model.layer, "share", given.share).layer or model.layer
        with tempfile.TemporaryDirectory() as folder:
            baseline, *others = candidates(model, cell, Path(folder))
            for candidate in [baseline, *others]:
                if only not in candidate.name:
                    continue
                size = "" if candidate.megabytes is None else f"{candidate.megabytes:.2f}"
                about = [cell, units, inputs, candidate.runtime, candidate.name, size]
                try:
                    yield [*about, *_cells(candidate, baseline, model, batches)]
                except RuntimeFailed as error:
                    yield [*about, error, *[""] * 4 * len(BATCHES)]


def error_rows(cells: list[str], sizes: list[int], inputs: int) -> Iterator[list[object]]:
    """Errors of the files in ONNX Runtime by the size of the weights and the kind of the inputs."""
    for cell, units, factor in itertools.product(cells, sizes, (1, 2, 4)):
        with seeded(0), tempfile.TemporaryDirectory() as folder:
            model = Last(cell, inputs, units).eval()
            normal = torch.randn(max(BATCHES), STEPS, inputs)
            series = {"normal": normal, "tanh of normal": normal.tanh(), "0 or 1": (normal > 1).float()}
            with torch.no_grad():
                for parameter in model.parameters():
                    parameter.mul_(factor)
            _, stored, integer, *_ = (way.open for way in candidates(model, cell, Path(folder)))
            for kind, values in series.items():
                errors = (f"{_error(opened(), model, values):.2f}" for opened in (stored, integer))
                yield [cell, units, f"x {factor}", kind, *errors]


def _cells(
    candidate: Candidate, baseline: Candidate, model: nn.Module, batches: Mapping[int, Tensor]
) -> list[object]:
    """Error, and the measurements at each batch size."""
    cells: list[object] = [f"{_error(candidate.open(), model, batches[max(batches)]):.2f}"]
    for batch, series in batches.items():
        measured = measure(candidate, baseline, series.numpy(), batch)
        cells += [*script.ratio_cells(measured), f"{measured.candidate_ms:.2f}"]
    return cells


def _error(run: Run, model: nn.Module, series: Tensor) -> float:
    """Distance of the outputs from the model's, in percent of the latter's norm."""
    with torch.inference_mode():
        expected = model(series).numpy()
    return float(100 * np.linalg.norm(run(series.numpy()) - expected) / np.linalg.norm(expected))


def measure(candidate: Candidate, baseline: Candidate, series: np.ndarray, batch: int) -> Measurement:
    """The candidate against the baseline in this process, which holds the machine's lock meanwhile."""
    with MachineLock():
        waits = CoreWaits()
        first, second = _side(candidate, series), _side(baseline, series)
        return compare(
            first, second, time.perf_counter, batch=batch, threads=1, waited=waits.seconds, schedule=SCHEDULE
        )


def _side(candidate: Candidate, series: np.ndarray) -> Side:
    calls = [functools.partial(candidate.open(), series) for _ in range(COPIES)]
    seconds = min(script.seconds_of(call) for call in calls * 2)
    return Side(itertools.cycle(calls), seconds)


def candidates(model: Last, cell: str, folder: Path) -> Iterator[Candidate]:
    """The ways to run a layer; the first is the baseline."""
    example = torch.zeros(2, STEPS, model.inputs)
    plain = named(export_onnx(model, (example,), {"input": {1: "time"}}))
    stored, integer = copy.deepcopy(plain), copy.deepcopy(plain)
    store_int8(stored, STORED)
    compute_in_int8(integer, least_units=ANY_SIZE)
    factored = isinstance(model.layer, FactoredRecurrent)
    files = {"float": plain, "weights in INT8": stored}
    files["INT8, loop" if cell == "GRU" else "INT8, operator"] = integer
    if cell == "GRU" and not factored:
        files["INT8, blocks"] = in_blocks(integer, BLOCK)
    for name, file in files.items():
        Path(folder, f"{name}.onnx").write_bytes(file.SerializeToString())
    for library, name in itertools.product(("onnxruntime", "openvino"), files):
        path = Path(folder, f"{name}.onnx")
        yield Candidate(library, name, path.stat().st_size / 1e6, functools.partial(_file, path, library))
    if factored:
        return
    yield Candidate("torch", "float", None, functools.partial(_module, model))
    rounded = torch.ao.quantization.quantize_dynamic(model, {nn.GRU, nn.LSTM}, torch.qint8)  # type: ignore[no-untyped-call]
    yield Candidate("torch", "INT8", None, functools.partial(_module, rounded))


def _file(path: Path, name: str) -> Run:
    session = runtime(name).open(path, 1)
    return lambda series: session.run({"input": series})[0]


def _module(model: nn.Module) -> Run:
    own = copy.deepcopy(model)

    def run(series: np.ndarray) -> np.ndarray:
        with torch.inference_mode():
            outputs: np.ndarray = own(torch.from_numpy(series)).numpy()
        return outputs

    return run


if __name__ == "__main__":
    script.run(main)
