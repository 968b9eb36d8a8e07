"""One node of a pipeline: a frozen record of hyperparameters with one pure method.

This module knows nothing of torch: body operations map a ``torch.nn.Module`` to another, conversions
map an ``onnx.ModelProto`` to another, and both are declared the same way.
"""

from __future__ import annotations

import abc
import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, ClassVar, Generic, Literal, NotRequired, TypedDict, TypeVar

from petra_optuna.pipeline.fields import Fielded, first_names

ModelT = TypeVar("ModelT")
Kind = Literal["structure", "training", "conversion"]


@dataclasses.dataclass(frozen=True)
class Applied(Generic[ModelT]):
    """Result of an operation.

    Attributes:
        model: The new model.
        report: What was done to it, as JSON-ready values. That of a node that legally changes nothing holds
            ``"changed": False`` and ``"reason"``.

    Example:
        >>> Applied(model, {"changed": False, "reason": "nothing to do"}).report["changed"]
        False
    """

    model: ModelT
    report: Mapping[str, Any]


class FloatReason(TypedDict):
    """Why a conversion to INT8 left something in float.

    Where the layer was chosen by measured error, ``error_before`` and ``error_after`` are the relative errors
    of the output with the layer in INT8 and in float.
    """

    reason: str
    error_before: NotRequired[float]
    error_after: NotRequired[float]


class FloatLayer(FloatReason):
    """A layer or stored weight in float: its name and operator type in the file, and the reason."""

    name: str
    op: str


def float_layers(report: Mapping[str, Any]) -> Sequence[FloatLayer]:
    """The layers and weights that a conversion's report names as left in float, under ``left_float``."""
    layers: Sequence[FloatLayer] = report.get("left_float", ())
    return layers


@dataclasses.dataclass(frozen=True)
class Operation(Fielded, abc.ABC):
    """A step of a pipeline; its dataclass fields are its hyperparameters (the paper's H_node).

    Class attributes:
        name: Key in the encoding, for example ``prune``.
        code: Short form in the paper's notation, for example ``Pr``.
        aliases: Other short forms that are read but not written.
        kind: ``structure`` changes shapes without training, ``training`` spends epochs,
            ``conversion`` turns the exported file into another file and stands last.
        recipe_fields: Fields of the recipe that the operation reads.
        weight_bytes: Fewest bytes that a weight takes in the file of a conversion.
        from_initialisation: Whether a model may start with it that nothing has trained yet.
        can_repair: Whether a conversion puts layers back to float where ``Context.repair`` asks; its report
            lists them (``float_layers``).
        format: Format of a conversion's file, for example ``int8_static``; a runtime lists those that it runs
            as they promise. None where any runtime does.
        implies: Conversion that a pipeline with this node gets when it names none.

    Example:
        >>> Prune(removed=0.3).values()["removed"]
        0.3
    """

    name: ClassVar[str]
    code: ClassVar[str]
    aliases: ClassVar[tuple[str, ...]] = ()
    kind: ClassVar[Kind]
    recipe_fields: ClassVar[tuple[str, ...]] = ()
    weight_bytes: ClassVar[float] = 4.0
    from_initialisation: ClassVar[bool] = False
    can_repair: ClassVar[bool] = False
    format: ClassVar[str | None] = None
    implies: ClassVar[type[Operation] | None] = None

    @property
    def shape_follows_weights(self) -> bool:
        """Whether what weights the model has decides which shapes a structural node leaves."""
        return False

    @abc.abstractmethod
    def apply(self, model: Any, context: Any) -> Applied[Any]:
        """Return a changed copy of ``model`` and a report. Touches neither its input nor any global.

        Args:
            model: ``torch.nn.Module`` for body operations, ``onnx.ModelProto`` for conversions.
            context: ``petra_optuna.operations.Context``: task, recipe, budget and seed.

        Raises:
            TrialError: When the work cannot be done; the input is never returned in its place.
        """

    def to_dict(self) -> dict[str, Any]:
        """``{"op": name, field: value, ...}`` with the fields that count."""
        return {"op": self.name, **self.active_values()}

    def identity(self) -> dict[str, Any]:
        """``to_dict`` by the names under which the fields were first stored: what hashes are made of."""
        return {"op": self.name, **first_names(type(self), self.active_values())}


def allot(nodes: Iterable[Operation], epochs: int) -> tuple[int, ...]:
    """Epochs for each node in order: what a training node asks for while ``epochs`` last, else 0."""
    left = epochs
    allotted = []
    for node in nodes:
        asked = int(node.values().get("epochs") or 0) if node.kind == "training" else 0
        allotted.append(min(asked, left))
        left -= allotted[-1]
    return tuple(allotted)
