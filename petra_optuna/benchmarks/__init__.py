"""Problems on which samplers can be compared in seconds. Does not import torch."""

from petra_optuna.benchmarks.coefficients import digest, fitted_names, profile
from petra_optuna.benchmarks.outcome import Outcome
from petra_optuna.benchmarks.pipebench import VARIANTS, PipeBench, full_space
from petra_optuna.benchmarks.reference import reference_front, reference_hypervolume

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
