"""The training loop, distillation losses and regularising penalties."""

from petra_optuna.nn.training.distillation import output_matching_loss, soft_label_loss
from petra_optuna.nn.training.loop import (
    parameter_groups,
    run_epochs,
    schedule_factor,
    training_threads,
)
from petra_optuna.nn.training.penalties import (
    input_steepness,
    lai_scale,
    mean_hoyer,
    mean_orthogonal,
    norm_penalty,
    sparsity_gradient_hook,
    sparsity_penalty,
    trainable_matrices,
)
from petra_optuna.nn.training.precision import disagreement, forward_in, inputs_device, training_dtype

__all__ = [
    "disagreement",
    "forward_in",
    "input_steepness",
    "inputs_device",
    "lai_scale",
    "mean_hoyer",
    "mean_orthogonal",
    "norm_penalty",
    "output_matching_loss",
    "parameter_groups",
    "run_epochs",
    "schedule_factor",
    "soft_label_loss",
    "sparsity_gradient_hook",
    "sparsity_penalty",
    "trainable_matrices",
    "training_dtype",
    "training_threads",
]
