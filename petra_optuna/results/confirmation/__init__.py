"""The front on the test split: intervals, repeated timing, dominance within noise, other seeds."""

from petra_optuna.results.confirmation.confirm import Progress, confirm, confirmation_of
from petra_optuna.results.confirmation.record import Confirmation
from petra_optuna.results.confirmation.tables import confirmed_markdown, confirmed_table

__all__ = [
    "Confirmation",
    "Progress",
    "confirm",
    "confirmation_of",
    "confirmed_markdown",
    "confirmed_table",
]
