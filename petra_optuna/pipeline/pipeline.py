"""The genome: a path of operations and a recipe (the paper's P = (G, {H_node}, {H_M}))."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, TypeVar

from petra_optuna.errors import PipelineError
from petra_optuna.pipeline import notation
from petra_optuna.pipeline.fields import Fielded, Value, declared_fields, first_names, present_names
from petra_optuna.pipeline.operation import Operation
from petra_optuna.pipeline.recipe import Recipe

T = TypeVar("T", bound=Fielded)


@dataclasses.dataclass(frozen=True)
class Pipeline:
    """Body operations, then at most one conversion, under one recipe.

    Raises:
        PipelineError: On construction, when a conversion stands anywhere but last.

    Example:
        >>> pipeline = Pipeline((Prune(removed=0.3), Train(epochs=2), QuantizeStatic()))
        >>> pipeline.notation
        'Pr-Tr-PTQ'
    """

    nodes: tuple[Operation, ...] = ()
    recipe: Recipe = Recipe()

    def __post_init__(self) -> None:
        """Hold the order grammar: ``body* conversion?``."""
        for node in self.nodes[:-1]:
            if node.kind == "conversion":
                raise PipelineError(
                    f"{type(node).__name__} converts the file and must be the last node, got {self.notation}"
                )

    @property
    def body(self) -> tuple[Operation, ...]:
        """The nodes that map a module to a module."""
        return self.nodes[:-1] if self.conversion else self.nodes

    @property
    def conversion(self) -> Operation | None:
        """The node that converts the exported file, if there is one."""
        last = self.nodes[-1] if self.nodes else None
        return last if last is not None and last.kind == "conversion" else None

    @property
    def with_implied(self) -> tuple[Operation, ...]:
        """The nodes, and the conversion that one of them implies where none is named."""
        implied = [node.implies for node in self.nodes if node.implies is not None]
        return self.nodes if self.conversion is not None or not implied else (*self.nodes, implied[-1]())

    @property
    def notation(self) -> str:
        """The paper's short form, ``LR-Reg-Pr-PTQ``; ``original`` for the empty pipeline."""
        return notation.write(node.code for node in self.nodes)

    @classmethod
    def from_notation(
        cls,
        text: str,
        operations: Iterable[type[Operation]] | None = None,
        recipe: Recipe | None = None,
    ) -> Pipeline:
        """Read the paper's short form; every node takes its default fields.

        Conversions that are not last cannot describe a file: all but the last are dropped, with a
        ``NotationWarning``, and the last one is moved to the end.

        Args:
            text: Codes joined by ``-``, for example ``LR-Reg-Pr-PTQ``.
            operations: Classes that codes may name; every imported one when None.
            recipe: Model-level parameters; the default recipe when None.

        Raises:
            PipelineError: When a code is unknown or names two classes.
        """
        classes = tuple(operations) if operations is not None else notation.imported_operations()
        nodes = tuple(operation() for operation in notation.read(text, classes))
        return cls(nodes, recipe or Recipe())

    def canonical(self) -> Pipeline:
        """The same pipeline with everything that has no effect set to its default."""
        nodes = tuple(node.canonical() for node in self.with_implied)
        return Pipeline(nodes, _read(Recipe, self._active_recipe))

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready form of the canonical pipeline; ``from_dict`` is its inverse."""
        return {"nodes": [node.to_dict() for node in self.with_implied], "recipe": self._active_recipe}

    @classmethod
    def from_dict(cls, data: dict[str, Any], operations: Iterable[type[Operation]]) -> Pipeline:
        """Inverse of ``to_dict``; reads former names of fields too.

        Raises:
            PipelineError: When an operation or field is unknown.
        """
        by_name = {operation.name: operation for operation in operations}
        nodes = []
        for item in data["nodes"]:
            operation = by_name.get(item["op"])
            if operation is None:
                raise PipelineError(f"unknown operation {item['op']!r}; known: {', '.join(sorted(by_name))}")
            nodes.append(_read(operation, {key: value for key, value in item.items() if key != "op"}))
        return cls(tuple(nodes), _read(Recipe, data.get("recipe", {})))

    @functools.cached_property
    def hash(self) -> str:
        """SHA-256 of the canonical form: equal for pipelines that do the same, in every release."""
        identity = {
            "nodes": [node.identity() for node in self.with_implied],
            "recipe": first_names(Recipe, self._active_recipe),
        }
        text = json.dumps(identity, sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()

    @property
    def _active_recipe(self) -> dict[str, Value]:
        """The fields of the recipe that a node reads."""
        used = {name for node in self.with_implied for name in node.recipe_fields}
        return self.recipe.active_values(used)

    def describe(self) -> str:
        """Long form: codes with the values that differ from their defaults."""
        return "-".join(_describe(node) for node in self.nodes) or self.notation

    def __iter__(self) -> Iterator[Operation]:
        """The nodes in order."""
        return iter(self.nodes)


def _read(cls: type[T], stored: Mapping[str, Any]) -> T:
    fields = present_names(cls, stored)
    unknown = set(fields) - {field.name for field in declared_fields(cls)}
    if unknown:
        raise PipelineError(f"{cls.__name__} has no field {', '.join(sorted(unknown))}")
    return cls(**fields)


def _describe(node: Operation) -> str:
    defaults = {field.name: field.default for field in declared_fields(type(node))}
    changed = [
        f"{name}={value:.3g}" if isinstance(value, float) else f"{name}={value}"
        for name, value in node.active_values().items()
        if value != defaults[name]
    ]
    return f"{node.code}({', '.join(changed)})" if changed else node.code
