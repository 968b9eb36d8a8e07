"""The command ``petra``."""

from __future__ import annotations

import errno
import signal
import sys
import warnings
from types import FrameType
from typing import NoReturn

import optuna
import typer
from optuna.exceptions import ExperimentalWarning
from typer.exceptions import TyperException

from petra_optuna.cli.confirm import confirm
from petra_optuna.cli.console import escape_unprintable
from petra_optuna.cli.options import as_options
from petra_optuna.cli.recommend import recommend
from petra_optuna.cli.results import dashboard, export, front
from petra_optuna.cli.search import resume, run
from petra_optuna.cli.sensitivity import sensitivity
from petra_optuna.cli.tasks import tasks
from petra_optuna.cli.tune import tune_command
from petra_optuna.database import one_line_storage_errors
from petra_optuna.errors import TrialError, UserError

app = typer.Typer(
    name="petra",
    help="Pareto fronts of deployable PyTorch models: smaller, faster, still accurate.",
    add_completion=False,
    pretty_exceptions_enable=False,
)
for _command in (run, resume, front, confirm, export, recommend, sensitivity, tasks, dashboard):
    app.command()(_command)
app.command("tune")(tune_command)

_USAGE = 2
_INTERRUPTED = 130


def main() -> None:
    """Run the command; an error that the user can mend is one line on stderr and exit code 2."""
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    warnings.simplefilter("ignore", ExperimentalWarning)
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _stop)
    escape_unprintable()
    try:
        with one_line_storage_errors():
            code = app(args=sys.argv[1:] or ["--help"], prog_name="petra", standalone_mode=False)
    except TyperException as error:
        _fail(f"{error.format_message().rstrip('.')}; see `petra --help`")
    except (UserError, TrialError) as error:
        _fail(as_options(str(error)))
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES):
            raise
        what = error.filename or "the disk"
        _fail(f"{what}: {error.strerror}; make it writable or make room, then run this again")
    if code == _INTERRUPTED:
        is_search = sys.argv[1:2] in (["run"], ["resume"], ["tune"])
        then = "; `petra resume` runs the interrupted trial again" if is_search else ""
        typer.echo(f"petra: stopped{then}", err=True)
    sys.exit(code or 0)


def _stop(number: int, frame: FrameType | None) -> None:
    """End as by Ctrl-C: the trial is marked to be run again, folders are removed, helpers end.

    A second SIGTERM does not disturb that: the helpers of a run get Ctrl-C from the terminal and SIGTERM from
    their parent.
    """
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    signal.default_int_handler(number, frame)


def _fail(message: str) -> NoReturn:
    typer.echo(f"petra: {message}", err=True)
    sys.exit(_USAGE)
