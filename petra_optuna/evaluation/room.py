"""Telling a pipeline that cannot be built from a temporary folder that is full.

Libraries write files of their own there. Where they cannot, they fail with errors of which nobody can see it:
a graph that does not parse, a file that does not load. So what fails while there is little room left is put
down to the folder.
"""

from __future__ import annotations

import shutil
import tempfile
from types import TracebackType

from torch import nn

from petra_optuna.errors import StudyError, UserError

_COPIES = 4
"""Copies of a model that the making of its file keeps at the same time, at most."""
_LEAST_BYTES = 2**20


class room_to_build:  # noqa: N801  # a context manager, named as those of contextlib are
    """Puts a failure in the block down to the temporary folder, if there is no room in it.

    Args:
        model: Model whose file is built in the block.

    Raises on exit:
        StudyError: In place of the failure, when the temporary folder is nearly full.
    """

    def __init__(self, model: nn.Module) -> None:
        self._needed = _LEAST_BYTES + _COPIES * sum(weight.nbytes for weight in model.parameters())

    def __enter__(self) -> None:
        """Nothing."""

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Replace the failure, unless it says itself what it is of."""
        if not isinstance(error, Exception) or isinstance(error, OSError | UserError):
            return
        folder = tempfile.gettempdir()
        free = shutil.disk_usage(folder).free
        if free < self._needed:
            raise StudyError(
                f"the temporary folder {folder} has {free} bytes free, a model needs {self._needed}; "
                "make room there or set TMPDIR to another folder, then run this again"
            ) from error
