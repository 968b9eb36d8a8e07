"""The command ``petra``, and ``python -m petra_optuna``."""

import os

# Read when torch loads OpenMP. Threads that wait by spinning take the core that another process needs:
# with other work on the machine an epoch took thirty times as long as with threads that sleep.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

from petra_optuna.cli import main

if __name__ == "__main__":
    main()
