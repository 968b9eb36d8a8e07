"""The source of functions and classes as a hash: what a cache key must know of code that is not ours."""

from __future__ import annotations

import functools
import hashlib
import inspect
from typing import Any


def source_sha256(thing: Any) -> str:
    """SHA-256 of a class's or function's name and source; of a partial, its function and arguments.

    What has no Python source (built in, or typed at a prompt) counts by its name.
    """
    if isinstance(thing, functools.partial):
        # The text of a function holds its address, which differs between processes.
        args = tuple(source_sha256(arg) if callable(arg) else arg for arg in thing.args)
        parts = [source_sha256(thing.func), repr(args), repr(sorted(thing.keywords.items()))]
        return hashlib.sha256("\n".join(parts).encode()).hexdigest()
    named = thing if inspect.isroutine(thing) or inspect.isclass(thing) else type(thing)
    try:
        text = inspect.getsource(named)
    except (OSError, TypeError):
        text = ""
    name = f"{named.__module__}.{named.__qualname__}"
    return hashlib.sha256(f"{name}\n{text}".encode()).hexdigest()
