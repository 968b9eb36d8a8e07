"""One base for the modes that see every torch function that is called inside them."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any

from torch.overrides import TorchFunctionMode


class FunctionMode(TorchFunctionMode, ABC):
    """A context in which ``intercept`` is called in place of every torch function.

    Functions that ``intercept`` itself calls run as they are.
    """

    @abstractmethod
    def intercept(self, func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Return the result of a call; ``func(*args, **kwargs)`` leaves it as it is.

        Args:
            func: Torch function that was called.
            args: Positional arguments of the call.
            kwargs: Keyword arguments of the call.
        """

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        """Pass a call on to ``intercept``."""
        return self.intercept(func, args, {} if kwargs is None else kwargs)
