"""PyTorch module to ONNX graph: dynamic batch, batch norms folded, nothing of this machine inside.

Products of stored factors are not computed at export where the product is the larger of the two: the
runtime computes them once when it loads the file, and the file stays small.
"""

from __future__ import annotations

import contextlib
import copy
import io
import logging
import warnings
from collections.abc import Iterable, Iterator
from typing import Any

import onnx
import torch
from onnxscript import ir
from onnxscript.optimizer import optimize_ir
from torch import Tensor, nn

from petra_optuna.deploy.recurrent_operators import TRANSLATIONS, RecurrentOperators
from petra_optuna.deploy.templates import Template
from petra_optuna.errors import LoweringFailed, one_line
from petra_optuna.nn.attention.kernels import layers_called
from petra_optuna.nn.inputs import Inputs, batch_size_of, input_names

OUTPUT_NAME = "output"


def export_onnx(model: nn.Module, inputs: Inputs) -> onnx.ModelProto:
    """Export a copy of ``model`` in evaluation mode.

    The graph's inputs are named by ``nn.inputs.input_names``, its output is ``output``; the first
    dimension of each is dynamic, all others are those of ``inputs``. The same model and inputs give
    the same bytes.

    Args:
        model: Returns one tensor whose first dimension is the batch.
        inputs: Example batch; its values do not matter.

    Raises:
        LoweringFailed: When the exporter cannot translate the model, with its reason.
    """
    private = copy.deepcopy(model).eval()
    return fill(capture(private, inputs), private)


def capture(model: nn.Module, inputs: Inputs) -> Template:
    """Trace a copy of ``model`` and translate it; the slow part of ``export_onnx``.

    Args:
        model: Model in evaluation mode.
        inputs: Example batch; its values do not matter.

    Raises:
        LoweringFailed: When the exporter cannot translate the model, with its reason.
    """
    example = _at_least_two(inputs)
    private = copy.deepcopy(model)
    with _exporting(), RecurrentOperators():
        program = _export(private, example)
        if not _has_dynamic_batch(program):
            program = _export(_captured_strictly(private, example), example)
        return Template.of(program.model_proto, private)


def fill(template: Template, model: nn.Module) -> onnx.ModelProto:
    """The optimised graph of a template with the values of ``model``; the other part of ``export_onnx``.

    Args:
        template: Graph of a model of the same structure.
        model: Model in evaluation mode.

    Raises:
        LoweringFailed: When the model lacks a tensor of the template, or the graph cannot be optimised.
    """
    with _exporting():
        graph = ir.from_proto(template.filled(model))
        optimize_ir(graph, should_fold=_should_fold)
        proto: onnx.ModelProto = ir.to_proto(graph)
    strip_metadata(proto)
    return proto


def strip_metadata(proto: onnx.ModelProto) -> None:
    """Remove documentation, metadata and intermediate shapes, in place.

    The exporter writes tens of kB of stack traces with absolute paths, and a conversion leaves the shapes and
    types of the graph before it.
    """
    proto.doc_string = ""
    del proto.metadata_props[:]
    for function in proto.functions:
        function.doc_string = ""
        del function.metadata_props[:], function.value_info[:]
        _strip_nodes(function.node)
    _strip_graph(proto.graph)


def _export(model: nn.Module | torch.export.ExportedProgram, example: Inputs) -> torch.onnx.ONNXProgram:
    args, kwargs = _args_and_kwargs(example)
    program = torch.onnx.export(
        model,
        args=args,
        kwargs=kwargs,
        input_names=list(input_names(example)),
        output_names=[OUTPUT_NAME],
        dynamic_shapes=_first_dimension(example, torch.export.Dim("batch")),
        dynamo=True,
        custom_translation_table=dict(TRANSLATIONS),
        external_data=False,
        optimize=False,
        verbose=False,
    )
    assert program is not None
    return program


def _captured_strictly(model: nn.Module, example: Inputs) -> torch.export.ExportedProgram:
    """The program captured from bytecode, where ``len`` of a batch is dynamic and no constant; slower."""
    args, kwargs = _args_and_kwargs(example)
    shapes = _first_dimension(example, torch.export.Dim("batch"))
    return torch.export.export(model, args, kwargs, dynamic_shapes=shapes, strict=True)


def _args_and_kwargs(example: Inputs) -> tuple[tuple[Tensor, ...], dict[str, Tensor] | None]:
    return ((), dict(example)) if isinstance(example, dict) else (tuple(example), None)


def _has_dynamic_batch(program: torch.onnx.ONNXProgram) -> bool:
    inputs = program.model.graph.inputs
    return all(value.shape is not None and not isinstance(value.shape[0], int) for value in inputs)


def _at_least_two(inputs: Inputs) -> Inputs:
    """The batch, twice where it has one sample, since the exporter takes a size of one for a constant."""
    if batch_size_of(inputs) > 1:
        return inputs
    if isinstance(inputs, dict):
        return {name: torch.cat([tensor, tensor]) for name, tensor in inputs.items()}
    return tuple(torch.cat([tensor, tensor]) for tensor in inputs)


def _first_dimension(inputs: Inputs, batch: Any) -> Any:
    def axes(tensor: Tensor) -> dict[int, Any]:
        return {0: batch}

    if isinstance(inputs, dict):
        return {name: axes(tensor) for name, tensor in inputs.items()}
    return tuple(axes(tensor) for tensor in inputs)


def _should_fold(node: ir.Node) -> bool | None:
    """Whether to compute a node at export: not a product larger than its factors; None if undecided."""
    if node.op_type != "MatMul":
        return None
    left, right = (value.const_value.numpy() for value in node.inputs if value and value.const_value)
    return False if left[..., 0].size * right[0, ...].size > left.size + right.size else None


def _first_cause(error: BaseException) -> BaseException:
    while error.__cause__ is not None:
        error = error.__cause__
    return error


@contextlib.contextmanager
def _exporting() -> Iterator[None]:
    """Let every layer be called, silence the exporter, and give its errors one line."""
    try:
        with layers_called(), _quiet():
            yield
    except (RuntimeError, torch.onnx.OnnxExporterError) as error:
        reason = _first_cause(error)
        raise LoweringFailed(f"ONNX export failed: {type(reason).__name__}: {one_line(reason)}") from error


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Silence the exporter, which writes to stdout, stderr, warnings and logs also when all is well."""
    disabled = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        with (
            warnings.catch_warnings(),
            contextlib.redirect_stdout(io.StringIO()),
            contextlib.redirect_stderr(io.StringIO()),
        ):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(disabled)


def _strip_graph(graph: onnx.GraphProto) -> None:
    graph.doc_string = ""
    del graph.metadata_props[:], graph.value_info[:]
    for values in (graph.input, graph.output):
        for value in values:
            value.doc_string = ""
            del value.metadata_props[:]
    for initializer in graph.initializer:
        initializer.doc_string = ""
        del initializer.metadata_props[:]
    _strip_nodes(graph.node)


def _strip_nodes(nodes: Iterable[onnx.NodeProto]) -> None:
    for node in nodes:
        node.doc_string = ""
        del node.metadata_props[:]
        for attribute in node.attribute:
            attribute.doc_string = ""
            for graph in (*attribute.graphs, *([attribute.g] if attribute.HasField("g") else [])):
                _strip_graph(graph)
