"""Weights of 16 bits: float16 with arithmetic in it, bfloat16 with arithmetic in what the runtime can."""

from __future__ import annotations

import dataclasses
import warnings
from collections.abc import Collection, Iterable

import numpy as np
import onnx
import torch
from onnx import TensorProto, helper, numpy_helper
from onnxruntime.transformers.float16 import convert_float_to_float16

from petra_optuna.errors import OperationFailed
from petra_optuna.nn.inputs import to_feeds
from petra_optuna.operations.context import Context
from petra_optuna.operations.half_range import clamp_stored, fit_half
from petra_optuna.operations.outer_nodes import last_layers, outer_nodes
from petra_optuna.operations.weight_only import named
from petra_optuna.pipeline import Applied, FloatReason
from petra_optuna.pipeline.nodes import BFloat16Node, HalfNode

_SAMPLES = 32
"""Calibration samples on which float16 must hold every value."""
_LARGEST_BFLOAT16 = float(torch.finfo(torch.bfloat16).max)
_BYTES_OF_NODE = 120
"""What a ``Cast`` and its names add to the file."""


@dataclasses.dataclass(frozen=True)
class Half(HalfNode):
    """Every float32 weight becomes float16: half the file, no speed on CPUs.

    Inputs and outputs stay in float32. Stored values below the smallest positive float16 are raised to it.
    Constants beyond the largest, masks for example, are moved into its range where this changes nothing;
    nodes that overflow or vanish in float16 stay in float32 (``half_range``).

    Example:
        >>> Half().code
        'FP16'
    """

    def apply(self, model: onnx.ModelProto, context: Context) -> Applied[onnx.ModelProto]:
        """Return the graph in float16; the report counts the weights converted and those left.

        Returns:
            The report holds ``precision``, ``float16_weights``, ``float32_weights`` and ``left_float``: nodes
            that stay in float32, each with its reason.

        Raises:
            OperationFailed: When the graph stores no float32 weight, or none that float16 can hold.
        """
        before = _count(_stored(model, TensorProto.FLOAT))
        if before == 0:
            raise OperationFailed("fp16: the model stores no float32 weight")
        prepared = named(model)
        inputs, _ = next(context.calibration_batches(limit=_SAMPLES, batch_size=_SAMPLES))
        fitting, kept = fit_half(prepared, to_feeds(inputs))
        kept |= {**outer_nodes(fitting.graph, context.regression), **_crashing_transposes(fitting.graph)}
        with warnings.catch_warnings():
            # It warns of every value that it rounds.
            warnings.simplefilter("ignore")
            converted = convert_float_to_float16(fitting, keep_io_types=True, node_block_list=list(kept))
        _join_floats(converted.graph, {node.name for node in prepared.graph.node})
        after = _count(_stored(converted, TensorProto.FLOAT))
        if after >= before:
            why = next((reason["reason"] for reason in kept.values()), "no node reads one in float16")
            raise OperationFailed(f"fp16: none of the model's weights could be converted: {why}")
        report = {
            "changed": True,
            "precision": "float16",
            "float16_weights": _count(_stored(converted, TensorProto.FLOAT16)),
            "float32_weights": after,
            "left_float": [
                {"name": node.name, "op": node.op_type, **kept[node.name]}
                for node in fitting.graph.node
                if node.name in kept
            ],
        }
        return Applied(converted, report)


@dataclasses.dataclass(frozen=True)
class BFloat16(BFloat16Node):
    """Matrices and kernels are stored in bfloat16: half the file, in ONNX Runtime at the speed of float32.

    BF16 arithmetic does not load in ONNX Runtime on CPUs, so each weight is cast to float32 when the file is
    loaded. A runtime that computes in BF16 does so with such a file. Weights keep the range of float32 and 8
    bits of precision.

    Example:
        >>> BFloat16().code
        'BF16'
    """

    def apply(self, model: onnx.ModelProto, context: Context) -> Applied[onnx.ModelProto]:
        """Return the graph with its weights rounded to the nearest bfloat16, ties to even.

        Returns:
            The report holds ``precision`` and the number of values stored as ``bfloat16_weights`` and
            ``float32_weights``: biases, and tensors too small for the cast to shorten the file.

        Raises:
            OperationFailed: When the graph stores no weight that is worth it.
        """
        converted = onnx.ModelProto()
        converted.CopyFrom(model)
        del converted.graph.value_info[:]
        clamp_stored(converted.graph, _LARGEST_BFLOAT16, _LARGEST_BFLOAT16)
        stored = _stored(converted, TensorProto.FLOAT)
        exact = _weights_of(last_layers(converted.graph, context.regression), converted.graph)
        halved = [tensor for tensor in stored if _is_worth_it(tensor) and tensor.name not in exact]
        if not halved:
            raise OperationFailed("bf16: the model stores no float32 matrix or kernel that it would shorten")
        count = _count(halved)
        report = {
            "changed": True,
            "precision": "bfloat16_storage",
            "bfloat16_weights": count,
            "float32_weights": _count(stored) - count,
        }
        casts = [_store_bfloat16(tensor) for tensor in halved]
        nodes = [*casts, *converted.graph.node]
        copies = [onnx.NodeProto.FromString(node.SerializeToString()) for node in nodes]
        del converted.graph.node[:]
        converted.graph.node.extend(copies)
        return Applied(converted, report)


def _stored(model: onnx.ModelProto, dtype: int) -> list[onnx.TensorProto]:
    return [tensor for tensor in model.graph.initializer if tensor.data_type == dtype]


def _count(tensors: Iterable[onnx.TensorProto]) -> int:
    """Number of values in all of them."""
    return sum(int(np.prod(tensor.dims)) for tensor in tensors)


def _crashing_transposes(graph: onnx.GraphProto) -> dict[str, FloatReason]:
    """Names of transpositions that stay in float32, because ONNX Runtime 1.32 dies while it loads them.

    It dies where it swaps the first two of three dimensions, in float16, in front of a product with a stored
    matrix; attention that reads (T, B, features) has such products.
    """
    stored = {tensor.name for tensor in graph.initializer}
    multiplied = {
        node.input[0] for node in graph.node if node.op_type == "MatMul" and node.input[1] in stored
    }
    return {
        node.name: FloatReason(reason="ONNX Runtime cannot load it in float16 in front of a stored matrix")
        for node in graph.node
        if node.op_type == "Transpose"
        and node.output[0] in multiplied
        and any(len(attribute.ints) == 3 and attribute.ints[0] == 1 for attribute in node.attribute)
    }


def _join_floats(graph: onnx.GraphProto, own: Collection[str]) -> None:
    """Spare a float32 value the way through float16 between two nodes that stay in float32, in place.

    Args:
        graph: Graph with casts that the conversion has added.
        own: Names of the nodes that were there before.
    """
    added = [node for node in graph.node if node.op_type == "Cast" and node.name not in own]
    casts = {node.output[0]: node for node in added}
    narrowed = {name: node.input[0] for name, node in casts.items() if _casts_to(node, TensorProto.FLOAT16)}
    outputs = {value.name for value in graph.output}
    straight = {}
    for name, node in casts.items():
        if not _casts_to(node, TensorProto.FLOAT) or node.input[0] not in narrowed:
            continue
        if name in outputs:
            node.op_type, node.input[0] = "Identity", narrowed[node.input[0]]
            del node.attribute[:]
        else:
            straight[name] = narrowed[node.input[0]]
    for node in graph.node:
        for index, name in enumerate(node.input):
            node.input[index] = straight.get(name, name)
    read = {name for node in graph.node for name in node.input} | outputs
    for node in [node for node in added if node.output[0] not in read]:
        graph.node.remove(node)


def _casts_to(node: onnx.NodeProto, dtype: int) -> bool:
    return any(attribute.name == "to" and attribute.i == dtype for attribute in node.attribute)


def _weights_of(names: Collection[str], graph: onnx.GraphProto) -> set[str]:
    """Names of the stored values that these nodes read."""
    return {name for node in graph.node if node.name in names for name in node.input}


def _is_worth_it(tensor: onnx.TensorProto) -> bool:
    return len(tensor.dims) > 1 and 2 * int(np.prod(tensor.dims)) > _BYTES_OF_NODE


def _store_bfloat16(tensor: onnx.TensorProto) -> onnx.NodeProto:
    """Store the tensor in bfloat16, in place, and return the node that restores its name and type."""
    name = tensor.name
    values = torch.from_numpy(numpy_helper.to_array(tensor).copy()).bfloat16().view(torch.int16).numpy()
    stored = helper.make_tensor(
        f"{name}_bf16", TensorProto.BFLOAT16, list(tensor.dims), values.tobytes(), raw=True
    )
    tensor.CopyFrom(stored)
    return helper.make_node("Cast", [stored.name], [name], name=f"{name}_float", to=TensorProto.FLOAT)
