"""Static INT8 through NNCF, for OpenVINO: its rules of where to round are those that OpenVINO fuses."""

from __future__ import annotations

import dataclasses
import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnx
from safetensors.numpy import save_file

from petra_optuna.errors import OperationFailed
from petra_optuna.nn.inputs import to_feeds
from petra_optuna.operations.context import Context
from petra_optuna.operations.int8_graph import WEIGHTED, count_int8_weights, weighted_layers
from petra_optuna.operations.left_float import left_float
from petra_optuna.operations.observed import coarse_nodes, observed
from petra_optuna.operations.outer_nodes import outer_nodes
from petra_optuna.operations.weight_only import named
from petra_optuna.pipeline import Applied, FloatReason
from petra_optuna.pipeline.nodes import QuantizeNncfNode
from petra_optuna.scratch import scratch_folder

_SAMPLES, _BATCH = 256, 32
_CHILD = Path(__file__).with_name("nncf_child.py")
_TIMEOUT_S = 600.0


@dataclasses.dataclass(frozen=True)
class QuantizeNncf(QuantizeNncfNode):
    """INT8 weights per output channel and 8-bit activations as QDQ pairs, by ``nncf.quantize``.

    Branches that are joined share their steps, so that nothing is rounded twice. Of the project's own static
    INT8 OpenVINO computes InceptionTime's branches in INT8 too, but converts between their steps.

    Example:
        >>> QuantizeNncf().code
        'NQ'
    """

    def apply(self, model: onnx.ModelProto, context: Context) -> Applied[onnx.ModelProto]:
        """Calibrate on at most 256 calibration samples and return the quantised graph.

        Returns:
            The report holds ``precision``, ``quantized_weights``, ``calibration_samples`` and ``left_float``:
            layers that stay in float, each with its reason.

        Raises:
            OperationFailed: When the graph has no weight to quantise, or NNCF fails or quantises none.
        """
        prepared = named(model)
        if not weighted_layers(prepared.graph):
            raise OperationFailed("nncf: the model has no layer whose weights could be quantised")
        feeds = [to_feeds(inputs) for inputs, _ in context.calibration_batches(_SAMPLES, _BATCH)]
        ignored = outer_nodes(prepared.graph, context.regression)
        ignored |= coarse_nodes(prepared.graph, observed(prepared, feeds[0]))
        quantized = _quantize(prepared, feeds, self.preset, list(ignored))
        weights = count_int8_weights(quantized)
        if weights == 0:
            raise OperationFailed("nncf: NNCF quantised none of the model's weights")
        rounded = {node.output[0] for node in quantized.graph.node if node.op_type == "DequantizeLinear"}
        floats = {
            node.name: ignored.get(node.name, FloatReason(reason="NNCF leaves it in float"))
            for node in quantized.graph.node
            if node.op_type in WEIGHTED and node.input[1] not in rounded
        }
        report = {
            "changed": True,
            "precision": "int8_static",
            "quantized_weights": weights,
            "calibration_samples": sum(len(next(iter(batch.values()))) for batch in feeds),
            "left_float": left_float(quantized, (), floats),
        }
        return Applied(quantized, report)


def _quantize(
    model: onnx.ModelProto, feeds: Sequence[dict[str, np.ndarray]], preset: str, ignored: Sequence[str]
) -> onnx.ModelProto:
    with scratch_folder("nncf") as name:
        folder = Path(name)
        onnx.save(model, folder / "model.onnx")
        (folder / "ignored.json").write_text(json.dumps(ignored), encoding="utf-8")
        for index, batch in enumerate(feeds):
            save_file(batch, folder / f"{index}.safetensors")
        # NNCF_CI turns the reporting of its use off.
        environment = {**os.environ, "NNCF_CI": "1"}
        # -P: the folder of the child holds modules named like those of libraries.
        command = [sys.executable, "-P", str(_CHILD), name, preset]
        try:
            done = subprocess.run(
                command,
                capture_output=True,
                text=True,
                errors="replace",
                timeout=_TIMEOUT_S,
                check=False,
                env=environment,
            )
        except subprocess.TimeoutExpired as error:
            raise OperationFailed(f"nncf: no answer from NNCF in {_TIMEOUT_S:g} s") from error
        if done.returncode != 0:
            lines = done.stderr.strip().splitlines() or [f"exit status {done.returncode}"]
            raise OperationFailed(f"nncf: {lines[-1]}")
        return onnx.load(folder / "quantized.onnx")
