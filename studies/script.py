"""How every script here ends."""

from __future__ import annotations

import sys
from collections.abc import Callable

from petra_optuna.errors import UserError


def run(main: Callable[[], None]) -> None:
    """Run a script's main function; what its user can mend ends in one line on stderr and exit code 2."""
    try:
        main()
    except (UserError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        raise SystemExit(2) from error
