"""Problems on which samplers can be compared in seconds. Does not import torch."""

from petra_optuna.pipebench.bench import VARIANTS, PipeBench, full_space
from petra_optuna.pipebench.best_known import reference_front, reference_hypervolume
from petra_optuna.pipebench.coefficients import digest, fitted_names, profile
from petra_optuna.pipebench.outcome import Outcome

__all__ = [
    "VARIANTS",
    "Outcome",
    "PipeBench",
    "digest",
    "fitted_names",
    "full_space",
    "profile",
    "reference_front",
    "reference_hypervolume",
]
