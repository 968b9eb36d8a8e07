"""The forms of attention modules whose heads can leave, by the names of their layers and numbers.

That a module is of a form is checked by value after pruning: without some heads a model must compute what it
computes where the output layer ignores them.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

from petra_optuna.nn.attention.layered import PARTS


@dataclasses.dataclass(frozen=True)
class Form:
    """Names in an attention module of one form.

    Attributes:
        heads: Attribute with the number of heads.
        output: Layer that reads the heads, below the module; ``..`` starts at the module's parent.
        fused: Layer that makes queries, keys and values, all heads of each side by side.
        separate: Layers that make queries, keys and values, in place of ``fused``.
        widths: Attributes with the number of features of all heads; those that are missing are passed over.
        optional: Layers and parameters that some modules of the form have besides, each with the dimension
            along which its heads stand and the number of equal parts there, by name.
    """

    heads: str
    output: str
    fused: str = ""
    separate: tuple[str, ...] = ()
    widths: tuple[str, ...] = ()
    optional: Mapping[str, tuple[int, int]] = dataclasses.field(default_factory=dict)


FORMS = (
    Form("num_heads", "out_proj", "in_proj"),  # LayeredAttention
    Form(
        "num_heads",
        "out_proj",
        separate=("q_proj", "k_proj", "v_proj"),
        optional={"in_proj_bias": (0, PARTS)},
    ),  # LayeredAttention; Hugging Face's CLIP, BART, SigLIP
    Form(
        "num_heads",
        "proj",
        "qkv",
        widths=("attn_dim",),
        optional={
            "relative_position_bias_table": (1, 1),
            "logit_scale": (0, 1),
            "cpb_mlp.2.weight": (0, 1),
            "gate.weight": (0, 1),
            "gate.bias": (0, 1),
        },
    ),  # timm's Attention, LayeredWindowAttention
    Form(
        "num_attention_heads", "..output.dense", separate=("query", "key", "value"), widths=("all_head_size",)
    ),  # Hugging Face's BERT, RoBERTa, ELECTRA
    Form(
        "num_attention_heads", "dense", separate=("query", "key", "value"), widths=("all_head_size",)
    ),  # Hugging Face's ALBERT
    Form("num_attention_heads", "o_proj", separate=("q_proj", "k_proj", "v_proj")),  # its ViT, DINOv2
    Form("n_heads", "out_lin", separate=("q_lin", "k_lin", "v_lin"), widths=("dim",)),  # DistilBERT
    Form("heads", "to_out", "to_qkv"),  # as in vit-pytorch
    Form("heads", "to_out.0", "to_qkv"),  # with a dropout behind the output
)
NUMBERS = frozenset(name for form in FORMS for name in (form.heads, *form.widths))
"""Attributes of attention modules that change with their heads."""
