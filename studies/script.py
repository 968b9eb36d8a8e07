"""How scripts here take a task, and how every one ends."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from pathlib import Path

from petra_optuna.errors import UserError


def task_parser(description: str | None) -> argparse.ArgumentParser:
    """Arguments for ``build_task``, with the description as it is written."""
    parser = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--task", default="digits")
    parser.add_argument("--data-root", type=Path)
    parser.add_argument("--checkpoint", type=Path)
    return parser


def run(main: Callable[[], None]) -> None:
    """Run a script's main function; what its user can mend ends in one line on stderr and exit code 2."""
    try:
        main()
    except (UserError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        raise SystemExit(2) from error
