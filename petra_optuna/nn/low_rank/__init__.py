"""Low-rank factors of linear, convolution, embedding and recurrent layers."""

from petra_optuna.nn.low_rank.factored_models import (
    decomposable_layers,
    factorize_fully,
    merge_factors,
    shared_names,
    trainable_factors,
)
from petra_optuna.nn.low_rank.factored_recurrent import (
    GATES,
    FactoredRecurrent,
    Recurrent,
    State,
    matrix_names,
    recurrent_kind,
)
from petra_optuna.nn.low_rank.pairs import (
    LowRankPair,
    decompose,
    is_decomposable,
    reason_against_low_rank,
    weight_matrix,
)
from petra_optuna.nn.low_rank.ranks import Factors, RankRule, break_even_rank, singular_values_of
from petra_optuna.nn.low_rank.reduce import ReductionResult, kept_shares, reduce_layer, reduce_together
from petra_optuna.nn.low_rank.split_layers import Decomposable
from petra_optuna.nn.low_rank.substitution import Substitution, substitute

__all__ = [
    "GATES",
    "Decomposable",
    "FactoredRecurrent",
    "Factors",
    "LowRankPair",
    "RankRule",
    "Recurrent",
    "ReductionResult",
    "State",
    "Substitution",
    "break_even_rank",
    "decomposable_layers",
    "decompose",
    "factorize_fully",
    "is_decomposable",
    "kept_shares",
    "matrix_names",
    "merge_factors",
    "reason_against_low_rank",
    "recurrent_kind",
    "reduce_layer",
    "reduce_together",
    "shared_names",
    "singular_values_of",
    "substitute",
    "trainable_factors",
    "weight_matrix",
]
