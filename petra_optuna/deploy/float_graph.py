"""The graph of a model in FP32, exported or made of an earlier export's template, and checked."""

from __future__ import annotations

import contextlib
import dataclasses
import time
from collections.abc import Sequence

import onnx
from torch import nn

from petra_optuna.deploy.checks import check_batch_norms
from petra_optuna.deploy.convolutions import CONV2D, has_conv1d, to_conv2d
from petra_optuna.deploy.export import capture, fill
from petra_optuna.deploy.graph_key import graph_key
from petra_optuna.deploy.parity import check_parity
from petra_optuna.deploy.templates import Template, Templates
from petra_optuna.errors import LoweringFailed, RuntimeFailed
from petra_optuna.nn.inputs import ONLY_BATCH, DynamicAxes, Inputs


@dataclasses.dataclass(frozen=True)
class FloatGraph:
    """A model's graph in FP32.

    Attributes:
        proto: The graph.
        layout: Layout of its one-dimensional convolutions; None where it has none.
        parity_s: Seconds that running model and graph on the example took.
        reused: Whether the template of an earlier export served.
    """

    proto: onnx.ModelProto
    layout: str | None
    parity_s: float
    reused: bool = False


def float_graph(
    model: nn.Module,
    inputs: Inputs,
    convolutions: str,
    templates: Templates,
    dynamic: DynamicAxes = ONLY_BATCH,
    others: Sequence[Inputs] = (),
) -> FloatGraph:
    """The graph of a model, which computes what the model computes.

    A template whose graph does not is not trusted: the model is exported anew.

    Args:
        model: Model in evaluation mode; it is not changed.
        inputs: Example batch.
        convolutions: Layout of one-dimensional convolutions, where there are any.
        templates: Graphs of earlier exports; a new one is added.
        dynamic: Axes besides the batch that are dynamic.
        others: Batches of other sizes along them.

    Raises:
        LoweringFailed: When the export fails, or its graph differs from the model.
        RuntimeFailed: When ONNX Runtime cannot load or run the graph.
    """
    key = graph_key(model, inputs, dynamic)
    template = templates.get(key)
    if template is not None:
        with contextlib.suppress(LoweringFailed, RuntimeFailed):
            return dataclasses.replace(_checked(template, model, inputs, convolutions, others), reused=True)
    template = capture(model, inputs, dynamic)
    graph = _checked(template, model, inputs, convolutions, others)
    templates.put(key, template)
    return graph


def _checked(
    template: Template, model: nn.Module, inputs: Inputs, convolutions: str, others: Sequence[Inputs]
) -> FloatGraph:
    proto = fill(template, model)
    layout = convolutions if has_conv1d(proto) else None
    if layout == CONV2D:
        proto = to_conv2d(proto)
    check_batch_norms(proto)
    began = time.perf_counter()
    check_parity(model, proto, inputs, others=others)
    return FloatGraph(proto, layout, time.perf_counter() - began)
