"""The command ``petra``, and ``python -m petra_optuna``."""

import os
import signal

# Read when torch loads OpenMP. Threads that wait by spinning take the core that another process needs:
# with other work on the machine an epoch took thirty times as long as with threads that sleep.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

# Imports take seconds, and nothing is there to be tidied up: Ctrl-C ends them without a traceback.
_interrupt = signal.getsignal(signal.SIGINT)
if _interrupt is signal.default_int_handler:
    signal.signal(signal.SIGINT, signal.SIG_DFL)

from petra_optuna.cli import main  # noqa: E402

if _interrupt is signal.default_int_handler:
    signal.signal(signal.SIGINT, _interrupt)

if __name__ == "__main__":
    main()
