"""A call of a torch function, whose arguments can be read and changed."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from typing import Any

from torch import Tensor


@dataclasses.dataclass(frozen=True)
class TorchCall:
    """A call of a torch function."""

    function: Callable[..., Any]
    args: tuple[Any, ...]
    kwargs: dict[str, Any]

    @property
    def name(self) -> str:
        """Name of the function."""
        return getattr(self.function, "__name__", "")

    def run(self) -> Any:
        """What the function returns."""
        return self.function(*self.args, **self.kwargs)

    def get(self, index: int, name: str) -> Any:
        """An argument by its place or name; None where it is not given."""
        return self.args[index] if index < len(self.args) else self.kwargs.get(name)

    def replace(self, index: int, name: str, value: Any) -> TorchCall:
        """The call with another argument."""
        if index < len(self.args):
            return dataclasses.replace(self, args=(*self.args[:index], value, *self.args[index + 1 :]))
        return dataclasses.replace(self, kwargs={**self.kwargs, name: value})

    def tensors(self) -> Iterator[Tensor]:
        """Every tensor among the arguments, those in lists as well."""
        tensors: list[Tensor] = []
        self.map(tensors.append)
        yield from tensors

    def map(self, change: Callable[[Tensor], Any]) -> TorchCall:
        """The call with every tensor changed, those in lists as well."""

        def change_value(value: Any) -> Any:
            if isinstance(value, list | tuple):
                return type(value)([change_value(item) for item in value])
            return change(value) if isinstance(value, Tensor) else value

        kwargs = {name: change_value(value) for name, value in self.kwargs.items()}
        return dataclasses.replace(
            self, args=tuple(change_value(value) for value in self.args), kwargs=kwargs
        )
