"""PyTorch module to ONNX graph: dynamic batch, batch norms folded, nothing of this machine inside.

Products of stored factors are not computed at export where the product is the larger of the two: the
runtime computes them once when it loads the file, and the file stays small.
"""

from __future__ import annotations

import contextlib
import importlib
import inspect
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

from petra_optuna.deploy.pooling_operators import POOLING_TRANSLATIONS, PoolingOperators
from petra_optuna.deploy.recurrent_operators import TRANSLATIONS, RecurrentOperators
from petra_optuna.deploy.templates import Template
from petra_optuna.deploy.unwritable import refuse_unwritable
from petra_optuna.errors import FOREIGN_ERRORS, LoweringFailed, one_line
from petra_optuna.nn.attention.kernels import layers_called
from petra_optuna.nn.copying import private_copy
from petra_optuna.nn.inputs import (
    ONLY_BATCH,
    DynamicAxes,
    Inputs,
    batch_size_of,
    doubled,
    input_names,
    mapped,
    sizes_along,
)

OUTPUT_NAME = "output"
_TOO_LARGE: type[Exception] = importlib.import_module("google.protobuf.message").EncodeError
"""What protobuf raises for more than 2 GiB."""


def export_onnx(model: nn.Module, inputs: Inputs, dynamic: DynamicAxes = ONLY_BATCH) -> onnx.ModelProto:
    """Export a copy of ``model`` in evaluation mode.

    The graph's inputs are named by ``nn.inputs.input_names``, its output is ``output``; the first
    dimension of each is dynamic, and so are the axes that are named; all others are those of ``inputs``.
    The same model and inputs give the same bytes.

    Args:
        model: Returns one tensor whose first dimension is the batch.
        inputs: Example batch; its values do not matter.
        dynamic: Axes besides the batch that are dynamic.

    Raises:
        LoweringFailed: When the exporter cannot translate the model, with its reason.
    """
    private = private_copy(model).eval()
    return fill(capture(private, inputs, dynamic), private)


def capture(model: nn.Module, inputs: Inputs, dynamic: DynamicAxes = ONLY_BATCH) -> Template:
    """Trace a copy of ``model`` and translate it; the slow part of ``export_onnx``.

    Args:
        model: Model in evaluation mode.
        inputs: Example batch; its values do not matter.
        dynamic: Axes besides the batch that are dynamic.

    Raises:
        LoweringFailed: When the exporter cannot translate the model or fixes a dynamic axis, with its reason.
    """
    refuse_unwritable(model, inputs)
    example = _at_least_two(inputs, dynamic)
    private = _with_signature(private_copy(model), example)
    pooling = PoolingOperators() if dynamic else contextlib.nullcontext()
    with _exporting(), RecurrentOperators(), pooling:
        program = _export(private, example, dynamic)
        if _fixed_axis(program, dynamic) is not None:
            program = _export(_captured_strictly(private, example, dynamic), example, dynamic)
        fixed = _fixed_axis(program, dynamic)
        if dynamic and fixed is not None:
            raise LoweringFailed(f"ONNX export failed: the model fixes the size of {fixed}")
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


def _export(
    model: nn.Module | torch.export.ExportedProgram, example: Inputs, dynamic: DynamicAxes
) -> torch.onnx.ONNXProgram:
    args, kwargs = _args_and_kwargs(example)
    program = torch.onnx.export(
        model,
        args=args,
        kwargs=kwargs,
        input_names=list(input_names(example)),
        output_names=[OUTPUT_NAME],
        dynamic_shapes=_dynamic_shapes(example, dynamic),
        dynamo=True,
        custom_translation_table={**TRANSLATIONS, **POOLING_TRANSLATIONS},
        external_data=False,
        optimize=False,
        verbose=False,
    )
    assert program is not None
    return program


def _captured_strictly(
    model: nn.Module, example: Inputs, dynamic: DynamicAxes
) -> torch.export.ExportedProgram:
    """The program captured from bytecode, where ``len`` of a batch is dynamic and no constant; slower."""
    args, kwargs = _args_and_kwargs(example)
    shapes = _dynamic_shapes(example, dynamic, named=False)
    return torch.export.export(model, args, kwargs, dynamic_shapes=shapes, strict=True)


def _args_and_kwargs(example: Inputs) -> tuple[tuple[Tensor, ...], dict[str, Tensor] | None]:
    return ((), dict(example)) if isinstance(example, dict) else (tuple(example), None)


def _with_signature(model: nn.Module, example: Inputs) -> nn.Module:
    """The model with a parameter for each input where its ``forward`` takes any: shapes go by parameters."""
    kinds = {parameter.kind for parameter in inspect.signature(model.forward).parameters.values()}
    if not kinds & {inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD}:
        return model
    anything = model.forward

    def forward(*args: Any, **kwargs: Any) -> Any:
        return anything(*args, **kwargs)

    parameters = [
        inspect.Parameter(name, inspect.Parameter.POSITIONAL_OR_KEYWORD) for name in input_names(example)
    ]
    vars(forward)["__signature__"] = inspect.Signature(parameters)
    model.forward = forward
    return model


def _fixed_axis(program: torch.onnx.ONNXProgram, dynamic: DynamicAxes) -> str | None:
    """An axis that is to be dynamic and has a size in the graph, in words; None where there is none."""
    for value in program.model.graph.inputs:
        for axis, named in {0: "batch", **dynamic.get(str(value.name), {})}.items():
            if value.shape is None or isinstance(value.shape[axis], int):
                return f"axis {axis} ({named}) of {value.name}"
    return None


def _at_least_two(inputs: Inputs, dynamic: DynamicAxes) -> Inputs:
    """The batch, twice along an axis of size one, since the exporter takes a size of one for a constant."""
    if batch_size_of(inputs) < 2:
        inputs = mapped(inputs, lambda tensor: torch.cat([tensor, tensor]))
    return doubled(inputs, dynamic) if 1 in sizes_along(inputs, dynamic).values() else inputs


def _dynamic_shapes(inputs: Inputs, dynamic: DynamicAxes, *, named: bool = True) -> Any:
    """What the exporter is told of each input: its dynamic axes, by names that the graph then has."""
    batch = torch.export.Dim("batch")

    def axes(name: str) -> dict[int, Any]:
        others = dynamic.get(name, {})
        return {0: batch, **(others if named else dict.fromkeys(others, torch.export.Dim.DYNAMIC))}

    shapes = {name: axes(name) for name in input_names(inputs)}
    return shapes if isinstance(inputs, dict) else tuple(shapes.values())


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
    except (*FOREIGN_ERRORS, _TOO_LARGE, torch.onnx.OnnxExporterError) as error:
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
