"""Masks, bounds and ranges that a shorter type cannot hold: the file computes what the model computes."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from petra_optuna.deploy import OnnxRuntimeModel, export_onnx
from petra_optuna.errors import OperationFailed
from petra_optuna.nn.inputs import to_feeds
from petra_optuna.nn.quantization import FakeQuantization, why_too_coarse
from petra_optuna.operations import BFloat16, Half, QuantizeDynamic, QuantizeStatic

CONVERSIONS = {
    "minmax": QuantizeStatic(),
    "percentile": QuantizeStatic(calibration="percentile"),
    "entropy": QuantizeStatic(calibration="entropy"),
    "dynamic": QuantizeDynamic(),
    "fp16": Half(),
    "bf16": BFloat16(),
}
STEPS, WIDTH = 6, 16


class Attention(nn.Module):
    """Attends to the steps that the mask leaves; ``fill`` says how it leaves the others out."""

    def __init__(self, fill: Callable[[Tensor, Tensor], Tensor]) -> None:
        super().__init__()
        self.fill = fill
        self.query, self.key, self.head = nn.Linear(WIDTH, 16), nn.Linear(WIDTH, 16), nn.Linear(WIDTH, 8)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        scores = (self.query(x) / 4) @ self.key(x).transpose(1, 2)
        return self.head((self.fill(scores, mask.unsqueeze(1)).softmax(-1) @ x)[:, 0])


class Causal(nn.Module):
    """Rows of a table of -inf, looked up by place, are added to the scores."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = Attention(self.add)
        self.register_buffer("table", torch.full((64, 64), -torch.inf).triu(1))

    def add(self, scores: Tensor, _mask: Tensor) -> Tensor:
        table: Tensor = self.table
        return scores + table[torch.arange(STEPS)][:, :STEPS]

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        return self.inner(x, mask)


class Pooled(nn.Module):
    """A function of the last layer's steps and the mask, and a head behind it."""

    def __init__(self, pool: Callable[[Tensor, Tensor], Tensor], scale: float = 1.0) -> None:
        super().__init__()
        self.pool, self.scale = pool, scale
        self.body, self.head = nn.Linear(WIDTH, 32), nn.Linear(32, 8)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        return self.head(self.pool(self.body(x * self.scale), mask))


def masked_fill(value: float) -> Callable[[Tensor, Tensor], Tensor]:
    return lambda scores, mask: scores.masked_fill(mask, value)


def added(value: float) -> Callable[[Tensor, Tensor], Tensor]:
    return lambda scores, mask: scores + mask.float() * value


def rms(x: Tensor, _mask: Tensor) -> Tensor:
    squares = (x * 300).square().mean(-1, keepdim=True)
    return (x * 300 * torch.rsqrt(squares + 1e-12)).mean(1)


MODELS: dict[str, Callable[[], nn.Module]] = {
    "where -inf": lambda: Attention(masked_fill(-torch.inf)),
    "where -1e9": lambda: Attention(masked_fill(-1e9)),
    "where least float": lambda: Attention(masked_fill(torch.finfo(torch.float32).min)),
    "add -1e9": lambda: Attention(added(-1e9)),
    "add -1e4": lambda: Attention(added(-1e4)),
    "two masks": lambda: Attention(lambda s, m: added(-1e30)(added(-1e30)(s, m), m)),
    "table of -inf": Causal,
    "largest step": lambda: Pooled(lambda x, m: x.masked_fill(m.unsqueeze(-1), -torch.inf).amax(1)),
    "largest step, -1e30": lambda: Pooled(lambda x, m: (x + m.unsqueeze(-1).float() * -1e30).amax(1)),
    "bounds": lambda: Pooled(lambda x, _: x.clamp(-1e9, 1e30).mean(1)),
    "squares": lambda: Pooled(rms),
    "unit length": lambda: Pooled(lambda x, _: functional.normalize(x.mean(1), eps=1e-12)),
}


class Batches:
    """The part of a context that conversions read."""

    repair, regression = False, False

    def __init__(self, shift: float = 0.0, scale: float = 1.0, shortest: int = 2) -> None:
        generator = torch.Generator().manual_seed(0)
        self.x = torch.randn(64, STEPS, WIDTH, generator=generator) * scale + shift
        self.mask = torch.arange(STEPS) >= torch.randint(shortest, STEPS + 1, (64, 1), generator=generator)

    def calibration_batches(
        self, limit: int = 256, batch_size: int = 64
    ) -> Iterator[tuple[tuple[Tensor, ...], Tensor]]:
        for start in range(0, min(limit, 64), batch_size):
            kept = slice(start, start + batch_size)
            yield (self.x[kept], self.mask[kept]), torch.zeros(len(self.x[kept]))


@pytest.fixture(scope="module")
def exported() -> dict[str, object]:
    """Each model and its graph, exported once."""
    torch.manual_seed(0)
    inputs = next(Batches().calibration_batches())[0]
    models = {name: make().eval() for name, make in MODELS.items()}
    return {name: (model, export_onnx(model, inputs)) for name, model in models.items()}


@pytest.mark.parametrize("conversion", CONVERSIONS)
def test_masks_bounds_and_small_constants_survive_every_conversion(
    conversion: str, exported: dict[str, tuple[nn.Module, object]]
) -> None:
    context = Batches()
    inputs = (context.x, context.mask)
    errors = {}
    for name, (model, graph) in exported.items():
        with torch.no_grad():
            expected = model(*inputs).numpy()
        applied = CONVERSIONS[conversion].apply(graph, context)  # type: ignore[arg-type]
        actual = OnnxRuntimeModel(applied.model).run(to_feeds(inputs))
        assert np.isfinite(actual).all(), name
        errors[name] = float(np.linalg.norm(actual - expected) / np.linalg.norm(expected))
    allowed = {"entropy": 0.12, "fp16": 0.002, "bf16": 0.006}.get(conversion, 0.04)
    assert {name: error for name, error in errors.items() if error > allowed} == {}


FAR = {
    "far from zero": (Pooled(lambda x, _: x.mean(1)), Batches(shift=1000.0)),
    "far and a batch norm": (
        Pooled(lambda x, _: functional.layer_norm(x, (32,)).mean(1)),
        Batches(shift=-1e4),
    ),
    "beyond float16": (Pooled(lambda x, _: functional.layer_norm(x, (32,)).mean(1)), Batches(scale=1e5)),
    "nothing left by the mask": (Attention(masked_fill(-1e9)), Batches(shortest=0)),
    "nothing left, added": (Attention(added(-1e9)), Batches(shortest=0)),
}


@pytest.mark.parametrize("name", FAR)
def test_ranges_far_from_zero_and_rows_without_a_value_survive_every_conversion(name: str) -> None:
    model, context = FAR[name]
    inputs = (context.x, context.mask)
    graph = export_onnx(model.eval(), inputs)
    with torch.no_grad():
        expected = model(*inputs).numpy()
    spread = expected - expected.mean(0)
    errors = {}
    for conversion, operation in CONVERSIONS.items():
        if name.startswith("far") and conversion not in ("fp16", "bf16"):
            with pytest.raises(OperationFailed, match="does not fit INT8, samples differ by"):
                operation.apply(graph, context)
            continue
        converted = operation.apply(graph, context).model
        actual = OnnxRuntimeModel(converted).run(to_feeds(inputs))
        assert np.isfinite(actual).all(), conversion
        errors[conversion] = float(np.linalg.norm(actual - actual.mean(0) - spread) / np.linalg.norm(spread))
    assert {
        name: error for name, error in errors.items() if error > (0.3 if name == "entropy" else 0.15)
    } == {}


@pytest.mark.parametrize("name", ["where -inf", "add -1e9", "table of -inf", "largest step, -1e30"])
def test_training_under_simulated_int8_leaves_masks_as_they_are(name: str) -> None:
    torch.manual_seed(0)
    model, context = MODELS[name]().eval(), Batches()
    inputs = (context.x, context.mask)
    with torch.no_grad():
        expected = model(*inputs)
    simulation = FakeQuantization(model, [inputs])
    with torch.no_grad():
        rounded = model(*inputs)
    simulation.remove()
    assert 0 < float((rounded - expected).norm() / expected.norm()) < 0.06


def test_what_int8_cannot_hold() -> None:
    generator = torch.Generator().manual_seed(0)
    normal = torch.randn(64, 50, generator=generator)
    mask = torch.rand(64, 50, generator=generator) < 0.5
    assert why_too_coarse(normal) is None
    assert why_too_coarse(normal.relu()) is None
    assert why_too_coarse(mask * -1e9) is None  # two values, both exact
    assert why_too_coarse(torch.full((4, 4), 3.0)) is None
    assert "samples differ by" in str(why_too_coarse(normal + 1e3))
    assert "not all finite" in str(why_too_coarse(normal.masked_fill(mask, -torch.inf)))
    for fill in (-1e4, -1e9, 1e30):
        masked = normal.masked_fill(mask, fill)
        assert "mask the others" in str(why_too_coarse(masked))
        assert why_too_coarse(masked, may_mask=False) is None
