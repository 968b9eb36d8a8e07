"""Which of several changes to a model break it, found by halving."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from petra_optuna.nn.time_limit import check_time

MOST_TRIES = 64
"""Most sets of changes that are tried; each is at least a forward pass of the model."""


def find_culprits(
    names: Sequence[str], problem: str, problem_of: Callable[[Sequence[str]], str | None]
) -> dict[str, str]:
    """Changes that must be left out so that the others work together, with their problems.

    A change is a culprit where it fails in company of those that were found to work. After ``MOST_TRIES``
    what has not been tried counts as one.

    Args:
        names: Names of the changes, at least one.
        problem: Problem of all of them together.
        problem_of: Maps names of changes to the problem of exactly these together, or None.
    """
    working: list[str] = []
    culprits: dict[str, str] = {}
    tries = 0
    stack = [(list(names), problem)]
    while stack:
        failing, reason = stack.pop()
        if len(failing) == 1:
            culprits[failing[0]] = reason
            continue
        middle = len(failing) // 2
        later: list[tuple[list[str], str]] = []
        for half in (failing[:middle], failing[middle:]):
            if tries == MOST_TRIES:
                culprits |= dict.fromkeys(half, f"not tried alone: {MOST_TRIES} tries found others that fail")
                continue
            check_time()
            tries += 1
            remaining = problem_of([*working, *half])
            if remaining is None:
                working += half
            else:
                later.append((half, remaining))
        stack += reversed(later)
    return culprits
