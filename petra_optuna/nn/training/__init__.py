"""The training loop, distillation losses and regularising penalties."""

from petra_optuna.nn.training.distillation import output_matching_loss, soft_label_loss
from petra_optuna.nn.training.loop import parameter_groups, run_epochs, schedule_factor, training_dtype
from petra_optuna.nn.training.penalties import (
    input_steepness,
    lai_scale,
    mean_hoyer,
    mean_orthogonal,
    norm_penalty,
    shrinkable,
    sparsity_penalty,
    sparsity_step,
)

__all__ = [
    "input_steepness",
    "lai_scale",
    "mean_hoyer",
    "mean_orthogonal",
    "norm_penalty",
    "output_matching_loss",
    "parameter_groups",
    "run_epochs",
    "schedule_factor",
    "shrinkable",
    "soft_label_loss",
    "sparsity_penalty",
    "sparsity_step",
    "training_dtype",
]
