"""The untrained network that pipelines start from in the mode ``untrained``."""

from __future__ import annotations

from collections.abc import Callable

from torch import nn

from petra_optuna.errors import TaskError
from petra_optuna.nn.initialization import reinitialize
from petra_optuna.nn.randomness import seeded
from petra_optuna.tasks.held import text_of

Initial = Callable[[], nn.Module]


def initial_model(model: nn.Module, initial: Initial | None, seed: int) -> nn.Module:
    """An untrained network of the model's structure, in eval mode.

    Args:
        model: Network of the same structure; its weights are not used.
        initial: Makes the network; when None every module of ``model`` draws its parameters anew.
        seed: Seed of everything that is drawn.

    Raises:
        TaskError: When ``initial`` makes another network, or a parameter cannot be drawn anew.
    """
    if initial is None:
        try:
            return reinitialize(model, seed)
        except ValueError as error:
            raise TaskError(
                f"the model cannot go back to initialisation: {error}; "
                "give `initial`, a function that makes the untrained network"
            ) from error
    with seeded(seed):
        made = initial()
    if not isinstance(made, nn.Module):
        raise TaskError(f"`initial` must return the untrained network, got {type(made).__name__}")
    for what, describe in (("tensors", _shapes), ("modules", text_of)):
        if describe(made) != describe(model):
            raise TaskError(f"`initial` makes another network than the model: their {what} differ")
    return made.eval()


def _shapes(model: nn.Module) -> list[tuple[str, tuple[int, ...], str]]:
    """Name, shape and type of each tensor of the model."""
    return [(name, tuple(value.shape), str(value.dtype)) for name, value in model.state_dict().items()]
