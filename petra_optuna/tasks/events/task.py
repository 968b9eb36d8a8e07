"""A task of event sequences: an encoder trained by CoLES, judged by LightGBM on its embeddings."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from petra_optuna.models import EventEncoder
from petra_optuna.models.coles import contrastive_loss
from petra_optuna.models.event_encoder import FIRST_VALUE, PADDING, UNKNOWN, Cell
from petra_optuna.source import source_sha256
from petra_optuna.tasks.arrays import whole_batch
from petra_optuna.tasks.calibration import Drawn, drawn
from petra_optuna.tasks.classification import BaseRecipe, LabeledSplits, load_checkpoint, trained_base
from petra_optuna.tasks.events.dataset import (
    CLIENT,
    FITTED,
    SCORED,
    ClientEvents,
    dynamic_axes,
    measured_first,
    sliced,
)
from petra_optuna.tasks.events.downstream import Classifier, Quality, downstream_metric
from petra_optuna.tasks.events.parts import SELECTION, TEST, TRAIN, UNLABELLED
from petra_optuna.tasks.events.store import EventSource, EventStore, open_store
from petra_optuna.tasks.images import positions_in_class
from petra_optuna.tasks.split import Split
from petra_optuna.tasks.task import Task

MOST_CLIENTS = 20_000
"""Most training clients on whom LightGBM is fitted, and most clients whom the selection split scores."""
CALIBRATION_CLIENTS = 256
DRAW_SEED = 20250611
"""Seed of the draw of clients where there are more than ``MOST_CLIENTS``."""


@dataclasses.dataclass(frozen=True)
class Coles:
    """How an encoder is built, trained and judged.

    Attributes:
        cell: Recurrent layer, ``gru`` or ``lstm``.
        hidden: Number of its hidden units.
        embedding: Width of the output; None for the state of the recurrent layer.
        slices: Number of slices of a client in a batch.
        shortest, longest: Least and largest number of events of a slice.
        recipe: Recipe of the training.
        quality: Metric of the probabilities.
        classifier: Classifier of embeddings.
    """

    cell: Cell
    hidden: int
    embedding: int | None
    slices: int
    shortest: int
    longest: int
    recipe: BaseRecipe
    quality: Quality
    classifier: Classifier

    def key(self) -> dict[str, Any]:
        """JSON-ready values that the trained weights depend on besides the recipe."""
        names = ("cell", "hidden", "embedding", "slices", "shortest", "longest")
        return {name: getattr(self, name) for name in names}


def event_task(
    source: EventSource, coles: Coles, *, checkpoint: Path | None, cache_dir: Path, seed: int
) -> Task:
    """The task of a source of events.

    The encoder trains on random slices of training clients; unlabelled clients train it too. In a search it
    trains by the same loss, and by the squared distance from the embeddings of the original as far as the
    recipe distils. Splits are by client. The selection and the test split hold training clients beside their
    own, on whose embeddings, made by the same file, LightGBM is fitted; the own ones are scored. Calibration
    is the first and the second half of the events of up to 256 training clients; half of them are scored.

    Args:
        source: Where events and targets come from.
        coles: How the encoder is built, trained and judged.
        checkpoint: safetensors with the state_dict of the encoder. When None it is trained and kept.
        cache_dir: Folder of the stored events and of the encoder.
        seed: Seed of the encoder's training.

    Raises:
        DataError: When events, targets or checkpoint are missing, damaged or of another layout.
        TaskError: When pyarrow is needed and not installed.
    """
    store = open_store(source, cache_dir)
    data = event_splits(source.name, store, coles)
    make = functools.partial(build_model, store.embeddings, len(store.schema.numbers), coles)
    if checkpoint is not None:
        model = make()
        load_checkpoint(model, checkpoint, described(store, coles))
        model.eval()
    else:
        model = trained_base(
            data,
            make,
            coles.recipe,
            structure={**coles.key(), "loss": source_sha256(coles_loss)},
            cache_dir=cache_dir,
            seed=seed,
            loss=coles_loss,
            notice=f"no checkpoint given: training the encoder for {coles.recipe.epochs} epochs",
        )
    return Task(
        name=data.name,
        model=model,
        initial=make,
        train=data.splits["train"],
        calibration=data.splits["calibration"],
        selection=data.splits["selection"],
        test=data.splits["test"],
        metric=downstream_metric(coles.quality, coles.classifier, len(data.labels)),
        loss=coles_loss,
        distillation=squared_distance,
        labels=data.labels,
        preprocess=data.preprocess,
        dynamic=dynamic_axes(store),
    )


def build_model(embeddings: tuple[tuple[int, int], ...], numbers: int, coles: Coles) -> nn.Module:
    """The untrained encoder.

    Args:
        embeddings: Rows and width of each category's embedding.
        numbers: Number of numeric values of an event.
        coles: Sizes of the encoder.
    """
    return EventEncoder(embeddings, numbers, coles.hidden, coles.cell, coles.embedding)


def described(store: EventStore, coles: Coles) -> str:
    """The encoder in the words of an error."""
    cell, size, head = coles.cell, coles.hidden, coles.embedding
    columns = f"{len(store.embeddings)} categories and {len(store.schema.numbers)} numbers"
    return f"EventEncoder with {columns}, {cell} of {size}, embedding {head or size}"


def coles_loss(outputs: Tensor, targets: Tensor) -> Tensor:
    """The contrastive loss of a batch by the number of its slices.

    Args:
        outputs: Embeddings, those of one client's slices one behind the other: (B k, D).
        targets: Targets (B, 3), see ``dataset``; rows of one client are pairs too.
    """
    clients = targets[:, CLIENT].repeat_interleave(len(outputs) // len(targets))
    return contrastive_loss(outputs, clients) / len(outputs)


def squared_distance(student: Tensor, teacher: Tensor, temperature: float) -> Tensor:
    """Mean over the batch of the squared distance of two embeddings, in the unit of ``coles_loss``.

    Args:
        student: Embeddings (B, D).
        teacher: Embeddings of the same shape, without gradient.
        temperature: Has no meaning here; taken so that all distillation losses are called alike.
    """
    return (student - teacher).square().sum(1).mean()


def event_splits(name: str, store: EventStore, coles: Coles) -> LabeledSplits:
    """The splits that ``event_task`` describes, ``calibration`` among them.

    Args:
        name: Name of the task.
        store: Stored events.
        coles: Sizes of the slices.
    """
    parts = store.parts
    (learning,) = np.nonzero((parts == TRAIN) | (parts == UNLABELLED))
    labelled = _drawn_clients(np.flatnonzero(parts == TRAIN))
    augment = functools.partial(sliced, count=coles.slices, shortest=coles.shortest, longest=coles.longest)
    train = ClientEvents(store, learning, np.full(len(learning), FITTED))
    splits = {
        "train": Split(train, whole_batch, augment=augment, name="train"),
        "calibration": _calibration(store, labelled),
        "selection": _scored(store, labelled, _drawn_clients(np.flatnonzero(parts == SELECTION))),
        "test": _scored(store, labelled, np.flatnonzero(parts == TEST)),
    }
    return LabeledSplits(name, splits, store.labels, preprocess_of(store))


def preprocess_of(store: EventStore) -> Mapping[str, Any]:
    """JSON-ready description of the inputs, vocabularies included, without which nobody can make them."""
    schema = store.schema
    categories = [
        {"name": category.name, "vocabulary": list(values)}
        for category, values in zip(schema.categories, store.vocabularies, strict=True)
    ]
    numbers = [{"name": number.name, "transform": number.transform} for number in schema.numbers]
    return {
        "dtype": "float32",
        "layout": "NTC, events of a client in the order of their times, zeros behind the last one",
        "client": schema.client,
        "time": schema.time,
        "events": f"the last {schema.longest}",
        "categories": categories,
        "category_numbers": {"padding": PADDING, "unknown": UNKNOWN, "first_value": FIRST_VALUE},
        "numbers": numbers,
        "transforms": {"log": "sign(x) log(1 + |x|)", "none": "x"},
    }


def _drawn_clients(clients: np.ndarray) -> np.ndarray:
    """At most ``MOST_CLIENTS`` of them, in their order."""
    if len(clients) <= MOST_CLIENTS:
        return clients
    return np.sort(np.random.default_rng(DRAW_SEED).choice(clients, MOST_CLIENTS, replace=False))


def _scored(store: EventStore, fitted: np.ndarray, scored: np.ndarray) -> Split:
    clients = np.concatenate([fitted, scored])
    roles = np.repeat([FITTED, SCORED], [len(fitted), len(scored)])
    order = measured_first(store.lengths[clients])
    return Split(ClientEvents(store, clients[order], roles[order]), whole_batch)


def _calibration(store: EventStore, labelled: np.ndarray) -> Split:
    """Two halves of the events of each client, side by side: pairs for the loss."""
    of_train = drawn(Split(ClientEvents(store, labelled, np.full(len(labelled), FITTED)), whole_batch))
    assert isinstance(of_train.dataset, Drawn)
    clients = labelled[list(of_train.dataset.rows[:CALIBRATION_CLIENTS])]
    is_scored = positions_in_class(torch.from_numpy(store.targets[clients])).numpy() % 2
    lengths = store.lengths[clients]
    half = lengths // 2
    begin = np.diff(store.offsets)[clients] - lengths
    halves = ClientEvents(
        store,
        clients.repeat(2),
        np.where(is_scored, SCORED, FITTED).repeat(2),
        np.stack([begin, begin + half], axis=1).flatten(),
        np.stack([np.maximum(half, 1), lengths - half], axis=1).flatten(),
    )
    split = Split(halves, whole_batch)
    return dataclasses.replace(split, dataset=Drawn(split, range(len(halves)), split))
