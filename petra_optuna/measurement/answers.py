"""Where a child process that answers JSON lines writes them."""

from __future__ import annotations

import os
import sys
from typing import TextIO


def private_stdout() -> TextIO:
    """A private copy of stdout; what native code prints on the original goes to stderr from now on."""
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "w")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    return answers
