"""PyTorch as a runtime, on the CPU and on CUDA: reads the same ONNX files and runs them operator by operator.

PyTorch's own file formats are not safe in a shared store: ``torch.export.load`` unpickles sample inputs and
some weights, and evaluates the expressions of dynamic shapes as Python. An ONNX file holds data only.
"""

from __future__ import annotations

import contextlib
import importlib
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from petra_optuna.errors import FOREIGN_ERRORS, RuntimeFailed, one_line
from petra_optuna.runtimes.base import (
    ARITHMETIC,
    RunScript,
    Runtime,
    Session,
    WeightedKernels,
    typed_kernels,
)
from petra_optuna.runtimes.device_clock import DeviceClock
from petra_optuna.runtimes.onnx_file import read_onnx
from petra_optuna.runtimes.torch_operators import Operators

_SHORT = {"float32": "f32", "float16": "f16", "bfloat16": "bf16"}
_CONVOLUTIONS, _LINEAR, _RECURRENT = ("Conv",), ("Gemm", "MatMul"), ("GRU", "LSTM")
_WEIGHTED = (*_CONVOLUTIONS, *_LINEAR, *_RECURRENT)


def _weighted(kinds: Sequence[str]) -> frozenset[str]:
    """The operators by name: with the type of a stored weight, or alone where the weight is computed."""
    return frozenset(kinds) | typed_kernels(kinds, _SHORT.values())


class PyTorch(Runtime):
    """PyTorch on the CPU and on CUDA. FP32 computes in FP32, never in TF32; FP16 and BF16 compute as such."""

    name: ClassVar[str] = "torch"
    package: ClassVar[str] = "torch"
    suffix: ClassVar[str] = ".onnx"
    weighted: ClassVar[WeightedKernels] = WeightedKernels(
        convolution=_weighted(_CONVOLUTIONS), linear=_weighted(_LINEAR), recurrent=_weighted(_RECURRENT)
    )
    devices: ClassVar[tuple[str, ...]] = ("cpu", "cuda")

    def precisions(self, device: str = "cpu") -> tuple[str, ...]:
        """FP32 and BF16 on the CPU, FP16 as well on CUDA; none where PyTorch sees no such device."""
        if device == "cpu":
            return ("float32", "bfloat16")
        if device.partition(":")[0] not in self.devices:
            return ()
        return ("float32", "float16", "bfloat16") if _torch().cuda.is_available() else ()

    def formats(self, device: str = "cpu") -> tuple[str, ...]:
        """FP32, and FP16 and BF16 where PyTorch computes in them."""
        return self.precisions(device)

    def open(self, path: Path | bytes, threads: int, device: str = "cpu") -> PyTorchSession:
        """Load a file, or the bytes of one."""
        self.check_device(device)
        return PyTorchSession(read_onnx(path), threads, device)

    def inspect(self, path: Path, device: str = "cpu") -> tuple[Session, Counter[str]]:
        """Load a file and count its operators, those with weights with the type that they compute in."""
        session = self.open(path, threads=1, device=device)
        return session, session.kernels()

    def run_script(self, device: str = "cpu") -> RunScript:
        """A session of this package, which runs the file's operators in PyTorch."""
        return RunScript(
            imports="from petra_optuna.runtimes import runtime",
            load=f'session = runtime("{self.name}").open(file, threads or 1, device="{device}")\n'
            "names = session.inputs",
            run="session.run(feeds)",
        )

    def clock(self, device: str = "cpu") -> Callable[[], float]:
        """The host's clock on the CPU, else a clock of events on the device."""
        if device == "cpu":
            return time.perf_counter
        cuda = _torch().cuda
        # An event that records itself would go to the GPU that CUDA uses by itself.
        return DeviceClock(lambda: cuda.current_stream(device).record_event(cuda.Event(enable_timing=True)))

    def machine(self, device: str = "cpu") -> dict[str, Any]:
        """Name of the GPU and version of CUDA that PyTorch was built with; empty on the CPU."""
        if device == "cpu":
            return {}
        torch = _torch()
        return {"gpu": torch.cuda.get_device_name(device), "cuda": torch.version.cuda}

    def gpus(self) -> int:
        """Number of GPUs that ``CUDA_VISIBLE_DEVICES`` lets CUDA see."""
        return int(_torch().cuda.device_count())

    def device_uuid(self, device: str = "cpu") -> str | None:
        """UUID of the GPU, which CUDA numbers within ``CUDA_VISIBLE_DEVICES``; None on the CPU."""
        return None if device == "cpu" else f"GPU-{_torch().cuda.get_device_properties(device).uuid}"


class PyTorchSession:
    """A file's nodes, ready to run; what depends on its stored values alone is computed once.

    Attributes:
        inputs: Names of the inputs.

    Args:
        proto: File, parsed.
        threads: Largest number of CPU threads of a call.
        device: ``cpu``, ``cuda`` or ``cuda:N``.
    """

    def __init__(self, proto: Any, threads: int, device: str) -> None:
        self._torch = torch = _torch()
        self._threads, self._device = threads, device
        asked = {item.key: item.value for item in proto.metadata_props}.get(ARITHMETIC, "float32")
        if asked not in _SHORT:
            raise RuntimeFailed(f"PyTorch cannot load the file: it asks for arithmetic in {asked!r}")
        self._float = getattr(torch, asked)
        self.inputs = [item.name for item in proto.graph.input]
        self._outputs = [item.name for item in proto.graph.output]
        onnx = importlib.import_module("onnx")
        types = {
            number: getattr(torch, str(dtype))
            for number, dtype in _types(onnx).items()
            if hasattr(torch, str(dtype))
        }
        types[onnx.TensorProto.FLOAT] = self._float
        self._operators = Operators(torch, types, self._placed)
        self._constants = {
            item.name: self._placed(_stored(torch, onnx, item)) for item in proto.graph.initializer
        }
        try:
            with self._settings():
                self._nodes = self._fold(proto.graph.node, onnx)
        except FOREIGN_ERRORS as error:
            raise RuntimeFailed(f"PyTorch cannot load the file: {one_line(error)}") from error

    def run(self, feeds: Mapping[str, np.ndarray]) -> list[np.ndarray]:
        """The outputs as arrays, in FP32 where they are of a shorter float."""
        try:
            with self._settings():
                values = {name: self._placed(self._torch.from_numpy(feeds[name])) for name in self.inputs}
                for node in self._nodes:
                    node.run(self._constants, values)
                outputs = [values[name] for name in self._outputs]
                return [
                    (value.float() if value.is_floating_point() else value).cpu().numpy() for value in outputs
                ]
        except FOREIGN_ERRORS as error:
            raise RuntimeFailed(f"PyTorch cannot run the file: {one_line(error)}") from error

    def kernels(self) -> Counter[str]:
        """Number of operators by name: ``Conv.f32``, or ``Relu`` where no stored weight gives a type."""
        return Counter(node.kernel(self._constants) for node in self._nodes)

    def _fold(self, nodes: Any, onnx: Any) -> list[_Node]:
        """Compute the nodes whose inputs are all constants; return the others, in order."""
        left = []
        for item in _order(nodes, {*self.inputs, *self._constants}):
            node = _Node(item, self._operators, self._torch, onnx)
            if all(name in self._constants for name in node.inputs if name):
                node.run({}, self._constants, keep=True)
            else:
                left.append(node)
        last = {name: index for index, node in enumerate(left) for name in node.inputs}
        for index, node in enumerate(left):
            kept = {*self._constants, *self._outputs}
            node.done = [
                name for name in dict.fromkeys(node.inputs) if last[name] == index and name not in kept
            ]
        return left

    def _placed(self, tensor: Any) -> Any:
        """The tensor where it is used: floats on the device in the session's type, integers on the CPU."""
        if not tensor.is_floating_point():
            return tensor
        dtype = self._float if tensor.dtype == self._torch.float32 else tensor.dtype
        return tensor.to(self._device, dtype)

    @contextlib.contextmanager
    def _settings(self) -> Iterator[None]:
        """No gradients, the session's threads, and no TF32 in place of FP32."""
        torch, before = self._torch, self._torch.get_num_threads()
        if before != self._threads:
            torch.set_num_threads(self._threads)
        try:
            with torch.inference_mode(), torch.backends.cudnn.flags(enabled=True, allow_tf32=False):
                yield
        finally:
            if before != self._threads:
                torch.set_num_threads(before)


class _Node:
    """One operator, ready to run.

    Attributes:
        op_type: ONNX name of the operator.
        inputs, outputs: Names of its values; an empty name is an input that is left out.
        done: Names of inputs that no later node reads.
    """

    def __init__(self, proto: Any, operators: Operators, torch: Any, onnx: Any) -> None:
        if proto.domain not in ("", "ai.onnx"):
            raise RuntimeFailed(f"PyTorch cannot load the file: operator {proto.domain}.{proto.op_type}")
        self.op_type = proto.op_type
        self.inputs, self.outputs = list(proto.input), list(proto.output)
        self.done: list[str] = []
        self._attributes = {item.name: _attribute(torch, onnx, item) for item in proto.attribute}
        self._function = operators.find(proto.op_type)

    def run(self, constants: Mapping[str, Any], values: dict[str, Any], keep: bool = False) -> None:
        """Compute the outputs into ``values``, and drop the values in ``done`` unless ``keep`` is set."""
        given = [
            None if not name else values[name] if name in values else constants[name] for name in self.inputs
        ]
        result = self._function(self._attributes, *given)
        outputs = result if isinstance(result, tuple) else (result,)
        values.update(zip(self.outputs, outputs, strict=False))
        for name in () if keep else self.done:
            values.pop(name, None)

    def kernel(self, constants: Mapping[str, Any]) -> str:
        """The operator's name, with the type of its weight where it has one."""
        weight = constants.get(self.inputs[1]) if self.op_type in _WEIGHTED else None
        return self.op_type if weight is None else f"{self.op_type}.{_SHORT[str(weight.dtype).split('.')[1]]}"


def _order(nodes: Any, available: set[str]) -> list[Any]:
    """Sort nodes after those that make their inputs; a converter may append its casts at the end."""
    ordered, waiting, available = [], list(nodes), available | {""}
    while waiting:
        later = []
        for node in waiting:
            if available.issuperset(node.input):
                ordered.append(node)
                available.update(node.output)
            else:
                later.append(node)
        if len(later) == len(waiting):
            raise RuntimeFailed(f"PyTorch cannot load the file: nothing makes an input of {later[0].name!r}")
        waiting = later
    return ordered


def _torch() -> Any:
    return importlib.import_module("torch")


def _types(onnx: Any) -> dict[int, Any]:
    return {
        number: onnx.helper.tensor_dtype_to_np_dtype(number)
        for number in onnx.TensorProto.DataType.values()
        if number not in (onnx.TensorProto.UNDEFINED, onnx.TensorProto.STRING)
    }


def _stored(torch: Any, onnx: Any, item: Any) -> Any:
    array = onnx.numpy_helper.to_array(item)
    if item.data_type == onnx.TensorProto.BFLOAT16:
        return torch.from_numpy(array.view(np.int16).copy()).view(torch.bfloat16)
    return torch.from_numpy(array.copy())


def _attribute(torch: Any, onnx: Any, item: Any) -> Any:
    value = onnx.helper.get_attribute_value(item)
    if isinstance(value, onnx.TensorProto):
        return _stored(torch, onnx, value)
    return value.decode() if isinstance(value, bytes) else value
