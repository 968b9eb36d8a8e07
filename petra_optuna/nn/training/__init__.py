"""The training loop, distillation losses and regularising penalties."""

from petra_optuna.nn.training.distillation import (
    output_matching_loss,
    sigmoid_label_loss,
    soft_label_loss,
)
from petra_optuna.nn.training.loop import (
    parameter_groups,
    run_epochs,
    schedule_factor,
    training_threads,
)
from petra_optuna.nn.training.losses import (
    Loss,
    TrainingStep,
    functional_form,
    mean_absolute_error,
    mean_squared_error,
    with_label_smoothing,
)
from petra_optuna.nn.training.penalties import (
    input_steepness,
    lai_scale,
    mean_hoyer,
    mean_orthogonal,
    norm_penalty,
    sparsity_penalty,
    trainable_matrices,
)
from petra_optuna.nn.training.precision import (
    OUTPUT_TOLERANCE,
    VALUE_TOLERANCE,
    disagreement,
    forward_in,
    inputs_device,
    training_dtype,
)

__all__ = [
    "OUTPUT_TOLERANCE",
    "VALUE_TOLERANCE",
    "Loss",
    "TrainingStep",
    "disagreement",
    "forward_in",
    "functional_form",
    "input_steepness",
    "inputs_device",
    "lai_scale",
    "mean_absolute_error",
    "mean_hoyer",
    "mean_orthogonal",
    "mean_squared_error",
    "norm_penalty",
    "output_matching_loss",
    "parameter_groups",
    "run_epochs",
    "schedule_factor",
    "sigmoid_label_loss",
    "soft_label_loss",
    "sparsity_penalty",
    "trainable_matrices",
    "training_dtype",
    "training_threads",
    "with_label_smoothing",
]
