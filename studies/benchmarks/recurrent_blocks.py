"""A loop over steps with several steps in each turn, to measure whether that is faster."""

from __future__ import annotations

import copy
from collections.abc import Iterator

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

_AXIS = "block_axis"
_HEAD, _STEPS = "block_head", "block_steps"


def in_blocks(model: onnx.ModelProto, block: int) -> onnx.ModelProto:
    """The graph with its one ``Scan`` (a state, one output a step) taking ``block`` steps a turn.

    Args:
        model: Graph with the loop; it is not changed.
        block: Steps of a turn; the number of all steps must be a multiple of it.
    """
    blocked = copy.deepcopy(model)
    graph = blocked.graph
    nodes = [
        part for node in graph.node for part in (_loop(node, block) if node.op_type == "Scan" else [node])
    ]
    del graph.node[:]
    graph.node.extend(nodes)
    values = {_AXIS: [0], _HEAD: [-1, block], _STEPS: [-1]}
    graph.initializer.extend(numpy_helper.from_array(np.array(value), name) for name, value in values.items())
    return blocked


def _loop(scan: onnx.NodeProto, block: int) -> Iterator[onnx.NodeProto]:
    """The loop, its inputs cut into blocks before it and its outputs joined behind it."""
    state, *series = scan.input
    last, outputs = scan.output
    for name in series:
        yield helper.make_node("Shape", [name], [f"{name}_sizes"], start=1)
        yield helper.make_node("Concat", [_HEAD, f"{name}_sizes"], [f"{name}_shape"], axis=0)
        yield helper.make_node("Reshape", [name, f"{name}_shape"], [f"{name}_blocks"])
    body = next(item.g for item in scan.attribute if item.name == "body")
    yield helper.make_node(
        "Scan",
        [state, *(f"{name}_blocks" for name in series)],
        [last, f"{outputs}_blocks"],
        body=_turn(body, block),
        num_scan_inputs=len(series),
    )
    yield helper.make_node("Shape", [f"{outputs}_blocks"], [f"{outputs}_sizes"], start=2)
    yield helper.make_node("Concat", [_STEPS, f"{outputs}_sizes"], [f"{outputs}_shape"], axis=0)
    yield helper.make_node("Reshape", [f"{outputs}_blocks", f"{outputs}_shape"], [outputs])


def _turn(body: onnx.GraphProto, block: int) -> onnx.GraphProto:
    """The body ``block`` times, each time with names of its own."""
    state, *series = (value.name for value in body.input)
    following, output = (value.name for value in body.output)
    own = {name for node in body.node for name in node.output} | {state, *series}
    nodes = [
        helper.make_node(
            "Split",
            [f"{name}_block"],
            [f"{name}_{step}_row" for step in range(block)],
            axis=0,
            num_outputs=block,
        )
        for name in series
    ]
    for step in range(block):
        nodes += [
            helper.make_node("Squeeze", [f"{name}_{step}_row", _AXIS], [f"{name}_{step}"]) for name in series
        ]
        before = {state: f"{following}_{step - 1}"} if step else {}
        for node in body.node:
            copied = copy.deepcopy(node)
            copied.name = f"{node.name}_{step}"
            for names in (copied.input, copied.output):
                names[:] = [before.get(name, f"{name}_{step}") if name in own else name for name in names]
            nodes.append(copied)
        nodes.append(helper.make_node("Unsqueeze", [f"{output}_{step}", _AXIS], [f"{output}_{step}_row"]))
    rows = [f"{output}_{step}_row" for step in range(block)]
    nodes.append(helper.make_node("Concat", rows, [f"{output}_block"], axis=0))
    first, *taken = body.input
    after, given = body.output
    return helper.make_graph(
        nodes,
        "turn",
        [_value(first, f"{state}_0"), *(_value(value, f"{value.name}_block", block) for value in taken)],
        [_value(after, f"{following}_{block - 1}"), _value(given, f"{output}_block", block)],
    )


def _value(of_step: onnx.ValueInfoProto, name: str, *block: int) -> onnx.ValueInfoProto:
    width = of_step.type.tensor_type.shape.dim[1].dim_value
    return helper.make_tensor_value_info(name, TensorProto.FLOAT, [*block, "batch", width])
