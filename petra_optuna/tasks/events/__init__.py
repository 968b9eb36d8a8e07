"""Tasks of event sequences of clients: financial transactions, purchases, monthly statements."""

from petra_optuna.tasks.events import age_group, alfa_battle, completejourney, credit_default, event_sequences

__all__ = ["age_group", "alfa_battle", "completejourney", "credit_default", "event_sequences"]
