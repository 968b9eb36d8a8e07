"""Captured graphs by structure: a model of a structure that was exported before is not traced again.

Tracing a model and translating it to ONNX takes most of an export's time and never reads a weight. What reads
weights is the optimisation after it: batch norms are folded, constants computed, equal tensors merged. So a
template is the graph *before* the optimisation, with the names of the parameters and buffers that its
initialisers are. A model's own values are put into a copy, and the copy is optimised. A first export goes the
same way, so that a file does not depend on what was exported before it.

Templates stay in the memory of the process. What a structure is (``graph_key``) is decided by the very
classes and functions of the model, which no file could hold.
"""

from __future__ import annotations

import dataclasses
from collections import OrderedDict
from collections.abc import Hashable, Mapping

import onnx
import torch
from torch import Tensor, nn

from petra_optuna.errors import LoweringFailed

_CAPACITY = 64


@dataclasses.dataclass(frozen=True)
class Template:
    """A captured graph, not optimised.

    Attributes:
        graph: The graph in ONNX's format; the initialisers in ``own`` hold no values.
        own: Names of the initialisers that are parameters and buffers of the model, bit for bit.
        reusable: Whether these are all initialisers.
    """

    graph: bytes
    own: frozenset[str]
    reusable: bool

    @classmethod
    def of(cls, proto: onnx.ModelProto, model: nn.Module) -> Template:
        """Take the values of the model's parameters and buffers out of its captured graph, in place."""
        tensors = _own_tensors(model)
        own = [stored for stored in proto.graph.initializer if _holds(stored, tensors.get(stored.name))]
        for stored in own:
            stored.ClearField("raw_data")
        names = frozenset(stored.name for stored in own)
        return cls(proto.SerializeToString(), names, len(own) == len(proto.graph.initializer))

    def filled(self, model: nn.Module) -> onnx.ModelProto:
        """The graph with the values of a model of the same structure.

        Raises:
            LoweringFailed: When the model has no such tensor.
        """
        proto: onnx.ModelProto = onnx.ModelProto.FromString(self.graph)
        tensors = _own_tensors(model)
        for stored in proto.graph.initializer:
            if stored.name not in self.own:
                continue
            tensor = tensors.get(stored.name)
            if tensor is None or tuple(tensor.shape) != tuple(stored.dims):
                raise LoweringFailed(f"the model has no tensor {stored.name!r} of shape {tuple(stored.dims)}")
            stored.raw_data = _bytes(tensor)
        return proto


class Templates:
    """The templates of one process by ``graph_key``, the 64 that were used last.

    A template is some hundred kilobytes: the graph of a ResNet-18 without its weights.
    """

    def __init__(self) -> None:
        self._by_key: OrderedDict[Hashable, Template] = OrderedDict()

    def get(self, key: Hashable | None) -> Template | None:
        """The template that has this key, or None."""
        template = self._by_key.get(key)
        if template is not None:
            self._by_key.move_to_end(key)
        return template

    def put(self, key: Hashable | None, template: Template) -> None:
        """Keep a template that can be used again; a key of None cannot be found again."""
        if key is None or not template.reusable:
            return
        self._by_key[key] = template
        self._by_key.move_to_end(key)
        if len(self._by_key) > _CAPACITY:
            self._by_key.popitem(last=False)


def _own_tensors(model: nn.Module) -> Mapping[str, Tensor]:
    """Parameters and buffers, those that are not saved included, under all their names."""
    return {
        **dict(model.named_parameters(remove_duplicate=False)),
        **dict(model.named_buffers(remove_duplicate=False)),
    }


def _holds(stored: onnx.TensorProto, tensor: Tensor | None) -> bool:
    return (
        tensor is not None and tuple(stored.dims) == tuple(tensor.shape) and stored.raw_data == _bytes(tensor)
    )


def _bytes(tensor: Tensor) -> bytes:
    """Bytes in the order of the index, as ONNX stores them."""
    return tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()
