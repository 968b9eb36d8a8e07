"""Print how well embeddings of CoLES and raw aggregates tell whether a credit-card client defaults.

    python -m studies.credit_default_coles --data-root DATA --controls-only
    python -m studies.credit_default_coles --data-root DATA --trials 40 --random

A row of the first table is one kind of features with LightGBM on them, fitted on training clients and scored
on test clients (see ``studies.coles``). Intervals of 95 % are of 1,000 resamples of the test clients, the
same for all rows; a value is the mean over the seeds, of which each trains an encoder of its own. The second
table is what a search makes of the encoder: its front on test, with retrainings. A run that is interrupted
goes on where it ended when the same command is given again.
"""

from __future__ import annotations

from petra_optuna.tasks.events import credit_default
from studies import coles, script


def main() -> None:
    """Print the tables."""
    coles.run(__doc__, credit_default.source, credit_default.COLES)


if __name__ == "__main__":
    script.run(main)
