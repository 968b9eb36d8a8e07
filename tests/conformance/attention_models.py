"""Small transformers of torch, torchvision, timm and Hugging Face with random weights."""

from __future__ import annotations

from torch import Tensor, nn

from petra_optuna.tasks.torchvision_shim import load_torchvision

WIDTH, HEADS, DEPTH = 32, 4, 2


class Encoder(nn.Module):
    """torch's encoder of embedded tokens, pre- or post-norm, and a head on the mean over positions."""

    def __init__(
        self, tokens: int, classes: int, *, batch_first: bool = True, norm_first: bool = False
    ) -> None:
        super().__init__()
        self.batch_first = batch_first
        self.embedding = nn.Embedding(tokens, WIDTH)
        layer = nn.TransformerEncoderLayer(
            WIDTH, HEADS, 96, batch_first=batch_first, norm_first=norm_first, dropout=0.0
        )
        self.encoder = nn.TransformerEncoder(layer, DEPTH, enable_nested_tensor=False)
        self.head = nn.Linear(WIDTH, classes)

    def forward(self, numbers: Tensor) -> Tensor:
        """Map (B, T) to logits (B, classes)."""
        vectors = self.embedding(numbers)
        if self.batch_first:
            return self.head(self.encoder(vectors).mean(1))  # type: ignore[no-any-return]
        return self.head(self.encoder(vectors.transpose(0, 1)).mean(0))  # type: ignore[no-any-return]


class Classifier(nn.Module):
    """Logits alone of a Hugging Face classifier."""

    def __init__(self, classifier: nn.Module) -> None:
        super().__init__()
        self.classifier = classifier

    def forward(self, numbers: Tensor) -> Tensor:
        """Map (B, T) to logits (B, classes)."""
        return self.classifier(input_ids=numbers).logits  # type: ignore[no-any-return]


def swin(classes: int, version: int = 1) -> nn.Module:
    """torchvision's Swin for images of 16 x 16; every other window is shifted."""
    windows = load_torchvision().models.swin_transformer
    parts = {}
    if version == 2:
        parts = {"block": windows.SwinTransformerBlockV2, "downsample_layer": windows.PatchMergingV2}
    model: nn.Module = windows.SwinTransformer(
        patch_size=[2, 2],
        embed_dim=16,
        depths=[2, 2],
        num_heads=[2, 4],
        window_size=[4, 4],
        num_classes=classes,
        stochastic_depth_prob=0.0,
        **parts,
    )
    nn.init.normal_(model.get_parameter("head.weight"), std=0.2)  # torchvision's are nearly zero
    return model


def deit(classes: int) -> nn.Module:
    """timm's DeiT for images of 16 x 16."""
    load_torchvision()  # timm imports it
    from timm.models.vision_transformer import VisionTransformer

    model = VisionTransformer(
        img_size=16, patch_size=4, embed_dim=WIDTH, depth=DEPTH, num_heads=HEADS, num_classes=classes
    )
    nn.init.normal_(model.get_parameter("head.weight"), std=0.2)  # timm's are nearly zero
    return model


def bert(tokens: int, classes: int) -> nn.Module:
    """Hugging Face's BERT with a classifier."""
    load_torchvision()  # transformers imports it
    from transformers import BertConfig, BertForSequenceClassification

    config = BertConfig(
        vocab_size=tokens,
        hidden_size=WIDTH,
        num_hidden_layers=DEPTH,
        num_attention_heads=HEADS,
        intermediate_size=96,
        max_position_embeddings=16,
        initializer_range=0.2,
    )
    config.num_labels = classes
    return Classifier(BertForSequenceClassification(config))


def distilbert(tokens: int, classes: int) -> nn.Module:
    """Hugging Face's DistilBERT with a classifier."""
    load_torchvision()  # transformers imports it
    from transformers import DistilBertConfig, DistilBertForSequenceClassification

    config = DistilBertConfig(
        vocab_size=tokens,
        dim=WIDTH,
        n_layers=DEPTH,
        n_heads=HEADS,
        hidden_dim=96,
        max_position_embeddings=16,
        initializer_range=0.2,
    )
    config.num_labels = classes
    return Classifier(DistilBertForSequenceClassification(config))
