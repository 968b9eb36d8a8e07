"""The network that pipelines start from where nothing is trained before them."""

from __future__ import annotations

from collections.abc import Callable

from torch import nn

from petra_optuna.errors import TaskError
from petra_optuna.nn.initialization import reinitialize
from petra_optuna.nn.randomness import seeded
from petra_optuna.tasks.fingerprint import text_of

Initial = Callable[[], nn.Module]


def initial_model(model: nn.Module, initial: Initial | None, seed: int) -> nn.Module:
    """An untrained network of the model's structure, in eval mode.

    Args:
        model: Gives the structure, and its weights to nobody.
        initial: Makes the network; every parameter of ``model`` is drawn anew by its module when None.
        seed: Of all that is drawn.

    Raises:
        TaskError: When ``initial`` makes another network, or a parameter cannot be drawn anew.
    """
    if initial is None:
        try:
            return reinitialize(model, seed)
        except ValueError as error:
            raise TaskError(
                f"the model cannot go back to initialisation: {error}; "
                "give initial=, a function that makes the untrained network"
            ) from error
    with seeded(seed):
        made = initial()
    if not isinstance(made, nn.Module):
        raise TaskError(f"initial must return the untrained network, got {type(made).__name__}")
    for what, of in (("tensors", _shapes), ("modules", text_of)):
        if of(made) != of(model):
            raise TaskError(f"initial makes another network than the model: their {what} differ")
    return made.eval()


def _shapes(model: nn.Module) -> list[tuple[str, tuple[int, ...], str]]:
    return [(name, tuple(value.shape), str(value.dtype)) for name, value in model.state_dict().items()]
