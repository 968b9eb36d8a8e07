"""Maths on modules: inputs, losses, low rank, pruning, simulated quantisation, counting, training.

Knows no task, no recipe and no study.
"""

from petra_optuna.nn.batch_norm import reestimate_batch_norm
from petra_optuna.nn.counting import count_macs, count_parameters
from petra_optuna.nn.descent import descend, parameter_groups
from petra_optuna.nn.distillation import output_matching_loss, soft_label_loss
from petra_optuna.nn.factored_recurrent import FactoredRecurrent
from petra_optuna.nn.fake_quant import FakeQuantization
from petra_optuna.nn.inputs import Inputs, batch_size_of, forward, input_names, take, tensors, to_feeds
from petra_optuna.nn.low_rank import (
    LowRankPair,
    all_factors,
    decompose,
    factorize_fully,
    factors,
    merge,
    recompose,
)
from petra_optuna.nn.normalize import Normalize
from petra_optuna.nn.penalties import (
    hoyer_penalty,
    lai_scale,
    norm_penalty,
    orthogonal_penalty,
    sparsity_penalty,
)
from petra_optuna.nn.precision import training_dtype
from petra_optuna.nn.prune import prune_channels
from petra_optuna.nn.randomness import seeded
from petra_optuna.nn.ranks import choose_rank
from petra_optuna.nn.schedules import schedule_factor
from petra_optuna.nn.surgery import replace_module, shared_layers

__all__ = [
    "FactoredRecurrent",
    "FakeQuantization",
    "Inputs",
    "LowRankPair",
    "Normalize",
    "all_factors",
    "batch_size_of",
    "choose_rank",
    "count_macs",
    "count_parameters",
    "decompose",
    "descend",
    "factorize_fully",
    "factors",
    "forward",
    "hoyer_penalty",
    "input_names",
    "lai_scale",
    "merge",
    "norm_penalty",
    "orthogonal_penalty",
    "output_matching_loss",
    "parameter_groups",
    "prune_channels",
    "recompose",
    "reestimate_batch_norm",
    "replace_module",
    "schedule_factor",
    "seeded",
    "shared_layers",
    "soft_label_loss",
    "sparsity_penalty",
    "take",
    "tensors",
    "to_feeds",
    "training_dtype",
]
