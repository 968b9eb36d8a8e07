"""Exports of a structure once in a process, and without what the exporter does anew at each of them.

Most of a study's time on tiny networks is tracing and translating one structure again and again. A template
gives the bytes that an export of its own would give (``deploy/test_templates.py``), and the graph's outputs
are compared with the model's all the same.
"""

from __future__ import annotations

import contextlib
import functools
from collections import OrderedDict
from collections.abc import Hashable, Iterator

import pytest
from torch._export import utils as _export_utils
from torch.onnx._internal.exporter._constants import TORCHLIB_OPSET
from torch.onnx._internal.exporter._registration import ONNXRegistry

from petra_optuna.deploy import Templates, templates
from petra_optuna.deploy.templates import Template

_shared: OrderedDict[Hashable, Template] = OrderedDict()
"""Templates of this process, some hundred kilobytes each at most."""
_empty = Templates.__init__


@contextlib.contextmanager
def shared_templates() -> Iterator[None]:
    """All ``Templates`` that are made meanwhile hold the same ones, also those of earlier tests."""

    def share(self: Templates) -> None:
        self._by_key = _shared

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Templates, "__init__", share)
        patch.setattr(templates, "_CAPACITY", 256)
        yield


@contextlib.contextmanager
def own_templates() -> Iterator[None]:
    """``Templates`` that are made meanwhile are empty, as they are outside of tests."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Templates, "__init__", _empty)
        yield


@contextlib.contextmanager
def quick_exporter() -> Iterator[None]:
    """Operators are listed and their sources read once, not at every export: a third of its time here."""
    whole = functools.cache(ONNXRegistry.from_torchlib)

    def registry(opset_version: int = TORCHLIB_OPSET) -> ONNXRegistry:
        """A registry of its own, for the exporter adds the translations of its caller."""
        copy = ONNXRegistry()
        copy._opset_version = opset_version
        copy.functions = {target: list(own) for target, own in whole(opset_version).functions.items()}
        return copy

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ONNXRegistry, "from_torchlib", staticmethod(registry))
        # They are listed anew for operators that are registered meanwhile, which no test does.
        listed = functools.cache(_export_utils._materialize_cpp_cia_ops)
        patch.setattr(_export_utils, "_materialize_cpp_cia_ops", listed)
        yield
