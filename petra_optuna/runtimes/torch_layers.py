"""ONNX's layers, activations and normalisations as functions of PyTorch (see ``torch_operators``)."""

from __future__ import annotations

from petra_optuna.errors import RuntimeFailed
from petra_optuna.runtimes.torch_values import Attributes, Tensor, ValueOperators, numbers, refuse

_INTERPOLATIONS = {
    ("nearest", "asymmetric", "floor"): ("nearest", None),
    ("nearest", "half_pixel", "round_prefer_ceil"): ("nearest-exact", None),
    ("linear", "half_pixel", ""): ("linear", False),
    ("linear", "pytorch_half_pixel", ""): ("linear", False),
    ("linear", "align_corners", ""): ("linear", True),
    ("cubic", "half_pixel", ""): ("cubic", False),
    ("cubic", "pytorch_half_pixel", ""): ("cubic", False),
    ("cubic", "align_corners", ""): ("cubic", True),
}
"""Mode, coordinates and rounding of Resize -> mode and ``align_corners`` of ``interpolate``."""
_MODES = {
    ("linear", 1): "linear",
    ("linear", 2): "bilinear",
    ("linear", 3): "trilinear",
    ("cubic", 2): "bicubic",
}


class LayerOperators(ValueOperators):
    """Functions by the names ``_op_OPERATOR``, as in ``ValueOperators``."""

    def _op_clip(self, at: Attributes, x: Tensor, low: Tensor = None, high: Tensor = None) -> Tensor:
        ends = (None if end is None else end.item() for end in (low, high))
        return self._torch.clamp(x, *ends) if low is not None or high is not None else x

    def _op_celu(self, at: Attributes, x: Tensor) -> Tensor:
        return self._functional.celu(x, at.get("alpha", 1.0))

    def _op_elu(self, at: Attributes, x: Tensor) -> Tensor:
        return self._functional.elu(x, at.get("alpha", 1.0))

    def _op_gelu(self, at: Attributes, x: Tensor) -> Tensor:
        return self._functional.gelu(x, approximate=at.get("approximate", "none"))

    def _op_hardsigmoid(self, at: Attributes, x: Tensor) -> Tensor:
        return self._torch.clamp(at.get("alpha", 0.2) * x + at.get("beta", 0.5), 0, 1)

    def _op_hardswish(self, at: Attributes, x: Tensor) -> Tensor:
        return self._functional.hardswish(x)

    def _op_leakyrelu(self, at: Attributes, x: Tensor) -> Tensor:
        return self._functional.leaky_relu(x, at.get("alpha", 0.01))

    def _op_logsoftmax(self, at: Attributes, x: Tensor) -> Tensor:
        return self._torch.log_softmax(x, at.get("axis", -1))

    def _op_mish(self, at: Attributes, x: Tensor) -> Tensor:
        return self._functional.mish(x)

    def _op_prelu(self, at: Attributes, x: Tensor, slope: Tensor) -> Tensor:
        return self._torch.where(x < 0, x * slope, x)

    def _op_selu(self, at: Attributes, x: Tensor) -> Tensor:
        gamma, alpha = at.get("gamma", 1.0507010221481323), at.get("alpha", 1.6732631921768188)
        return gamma * self._torch.where(x > 0, x, alpha * self._torch.expm1(x))

    def _op_softmax(self, at: Attributes, x: Tensor) -> Tensor:
        return self._torch.softmax(x, at.get("axis", -1))

    def _op_softplus(self, at: Attributes, x: Tensor) -> Tensor:
        return self._functional.softplus(x)

    def _op_softsign(self, at: Attributes, x: Tensor) -> Tensor:
        return self._functional.softsign(x)

    def _op_batchnormalization(
        self, at: Attributes, x: Tensor, scale: Tensor, bias: Tensor, mean: Tensor, variance: Tensor
    ) -> Tensor:
        return self._functional.batch_norm(x, mean, variance, scale, bias, eps=at.get("epsilon", 1e-5))

    def _op_groupnormalization(self, at: Attributes, x: Tensor, scale: Tensor, bias: Tensor) -> Tensor:
        """Scale and bias are those of groups before opset 21, then those of channels."""
        groups, channels = at["num_groups"], x.shape[1]
        scale, bias = (value.repeat_interleave(channels // len(value)) for value in (scale, bias))
        return self._functional.group_norm(x, groups, scale, bias, at.get("epsilon", 1e-5))

    def _op_instancenormalization(self, at: Attributes, x: Tensor, scale: Tensor, bias: Tensor) -> Tensor:
        return self._functional.instance_norm(x, weight=scale, bias=bias, eps=at.get("epsilon", 1e-5))

    def _op_layernormalization(self, at: Attributes, x: Tensor, scale: Tensor, bias: Tensor = None) -> Tensor:
        shape = x.shape[at.get("axis", -1) :]
        return self._functional.layer_norm(x, shape, scale, bias, at.get("epsilon", 1e-5))

    def _op_rmsnormalization(self, at: Attributes, x: Tensor, scale: Tensor) -> Tensor:
        return self._functional.rms_norm(x, x.shape[at.get("axis", -1) :], scale, at.get("epsilon", 1e-5))

    def _op_gemm(self, at: Attributes, x: Tensor, y: Tensor, bias: Tensor = None) -> Tensor:
        x, y = (value.T if at.get(name) else value for value, name in ((x, "transA"), (y, "transB")))
        if bias is None:
            return at.get("alpha", 1.0) * self._torch.matmul(x, y)
        return self._torch.addmm(bias, x, y, beta=at.get("beta", 1.0), alpha=at.get("alpha", 1.0))

    def _op_conv(self, at: Attributes, x: Tensor, weight: Tensor, bias: Tensor = None) -> Tensor:
        count = weight.dim() - 2
        function = getattr(self._functional, f"conv{count}d")
        x, padding = self._padded(x, at, count)
        strides, dilations = at.get("strides", [1] * count), at.get("dilations", [1] * count)
        return function(x, weight, bias, strides, padding, dilations, at.get("group", 1))

    def _op_convtranspose(self, at: Attributes, x: Tensor, weight: Tensor, bias: Tensor = None) -> Tensor:
        if "output_shape" in at:
            raise RuntimeFailed("PyTorch cannot run the file: a ConvTranspose with output_shape")
        count = weight.dim() - 2
        function = getattr(self._functional, f"conv_transpose{count}d")
        begins, ends = _pads(at, count)
        added = list(at.get("output_padding", [0] * count))
        both = [min(pair) for pair in zip(begins, ends, strict=True)]
        strides, dilations = at.get("strides", [1] * count), at.get("dilations", [1] * count)
        made = function(x, weight, bias, strides, both, added, at.get("group", 1), dilations)
        for axis, (begin, end, cut) in enumerate(zip(begins, ends, both, strict=True), start=2):
            made = made.narrow(axis, begin - cut, made.shape[axis] - begin - end + 2 * cut)
        return made

    def _op_maxpool(self, at: Attributes, x: Tensor) -> Tensor:
        size = at["kernel_shape"]
        function = getattr(self._functional, f"max_pool{len(size)}d")
        x, padding = self._padded(x, at, len(size), value=float("-inf"))
        dilations = at.get("dilations", [1] * len(size))
        strides = at.get("strides", [1] * len(size))
        return function(x, size, strides, padding, dilations, bool(at.get("ceil_mode")))

    def _op_averagepool(self, at: Attributes, x: Tensor) -> Tensor:
        size = at["kernel_shape"]
        begins, ends = _pads(at, len(size))
        if begins != ends:
            raise RuntimeFailed("PyTorch cannot run the file: an AveragePool with unequal padding")
        refuse(at, dilations=[1] * len(size))
        function = getattr(self._functional, f"avg_pool{len(size)}d")
        strides, counted = at.get("strides", [1] * len(size)), bool(at.get("count_include_pad"))
        return function(x, size, strides, begins, bool(at.get("ceil_mode")), counted)

    def _op_globalaveragepool(self, at: Attributes, x: Tensor) -> Tensor:
        return x.mean(tuple(range(2, x.dim())), keepdim=True)

    def _op_globalmaxpool(self, at: Attributes, x: Tensor) -> Tensor:
        return x.amax(tuple(range(2, x.dim())), keepdim=True)

    def _op_resize(
        self, at: Attributes, x: Tensor, roi: Tensor = None, scales: Tensor = None, sizes: Tensor = None
    ) -> Tensor:
        refuse(at, antialias=0, exclude_outside=0, keep_aspect_ratio_policy="stretch", axes=None)
        mode = at.get("mode", "nearest")
        rounding = at.get("nearest_mode", "round_prefer_floor") if mode == "nearest" else ""
        asked = mode, at.get("coordinate_transformation_mode", "half_pixel"), rounding
        how, corners = _INTERPOLATIONS.get(asked, ("", None))
        how = how if mode == "nearest" else _MODES.get((how, x.dim() - 2), "")
        if not how or (mode == "cubic" and abs(at.get("cubic_coeff_a", -0.75) + 0.75) > 1e-6):
            raise RuntimeFailed(f"PyTorch cannot run the file: a Resize by {' '.join(asked).strip()}")
        if sizes is not None and sizes.numel():
            return self._functional.interpolate(x, size=numbers(sizes)[2:], mode=how, align_corners=corners)
        factors = scales.tolist()[2:]
        return self._functional.interpolate(x, scale_factor=factors, mode=how, align_corners=corners)

    def _padded(self, x: Tensor, at: Attributes, count: int, value: float = 0.0) -> tuple[Tensor, list[int]]:
        """The input, padded where its ends differ, and the padding that is left to the function."""
        begins, ends = _pads(at, count)
        if begins == ends:
            return x, begins
        both = [size for pair in zip(reversed(begins), reversed(ends), strict=True) for size in pair]
        return self._functional.pad(x, both, value=value), [0] * count


def _pads(at: Attributes, count: int) -> tuple[list[int], list[int]]:
    if at.get("auto_pad", "NOTSET") not in ("NOTSET", "VALID"):
        raise RuntimeFailed("PyTorch cannot run the file: auto_pad other than NOTSET or VALID")
    pads = list(at.get("pads", [0] * 2 * count))
    return pads[:count], pads[count:]
