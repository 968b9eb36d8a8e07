"""What the studies of event sequences share: the controls, and a search of the encoder.

A control is a table of features of each client and LightGBM on it. All controls are fitted on the same
training clients and scored on the same test clients. Features are either aggregates of the raw events or
embeddings of an encoder that CoLES has trained; each seed is one of the encoder and of LightGBM. The search
compresses the encoder of the first seed, and its front is confirmed on the test clients.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from petra_optuna.aliases import Array
from petra_optuna.nn.inputs import Inputs, forward
from petra_optuna.results.confirmation.bootstrap import interval, resample
from petra_optuna.study import TaskSource
from petra_optuna.tasks import Task, open_once
from petra_optuna.tasks.events.dataset import CLIENT, FITTED, ClientEvents
from petra_optuna.tasks.events.downstream import Classifier, Downstream, Quality
from petra_optuna.tasks.events.store import EventSource, open_store
from petra_optuna.tasks.events.task import Coles, event_task
from petra_optuna.tasks.metrics import metric
from petra_optuna.tasks.outputs import Outputs, joined_targets
from studies import script
from studies.searched import Search, add_arguments

RESAMPLES = 1000
MOST_VALUES = 100
"""Most frequent values of each category that aggregates count."""
AGGREGATES, EMBEDDINGS, BOTH = "raw aggregates", "CoLES embeddings", "both"
CONTROLS = ("features", "quality", "mean over seeds", "low", "high", "less raw aggregates", "low", "high")
QUALITIES: tuple[Quality, ...] = ("auc", "accuracy")


@dataclasses.dataclass(frozen=True)
class Scores:
    """What the classifiers of all seeds say of the test clients.

    Attributes:
        of_features: Log probabilities (clients, classes), one array a seed, by the name of the features.
        classes: Class indices (clients,).
    """

    of_features: dict[str, list[np.ndarray]]
    classes: np.ndarray


def run(description: str | None, source: Callable[[Path | None], EventSource], coles: Coles) -> None:
    """Print the table of the controls, and that of a search.

    Args:
        description: Docstring of the script.
        source: Makes the source of a data root.
        coles: How the encoder is built, trained and judged.
    """
    parser = script.parser(description)
    parser.add_argument("--data-root", type=Path, help="folder of the data")
    parser.add_argument("--seeds", type=int, default=3, help="seeds of the controls")
    parser.add_argument("--base-epochs", type=int, help="epochs of CoLES; those of the task by default")
    parts = parser.add_mutually_exclusive_group()
    parts.add_argument("--controls-only", action="store_true", help="end before the search")
    parts.add_argument("--search-only", action="store_true", help="leave the controls out")
    add_arguments(parser, "storage/coles")
    given = parser.parse_args()
    if given.base_epochs is not None:
        coles = dataclasses.replace(coles, recipe=dataclasses.replace(coles.recipe, epochs=given.base_epochs))
    events = source(given.data_root)
    if not given.search_only:
        header = (
            "features",
            "quality",
            "mean over seeds",
            "low",
            "high",
            "less raw aggregates",
            "low",
            "high",
        )
        script.print_table(header, _rows(controls(events, coles, range(given.seeds))))
        print()
    if not given.controls_only:
        task = event_task(events, coles, checkpoint=None, cache_dir=script.CACHE, seed=0)
        Search(task, given, task.name, TaskSource.of(task.name, given.data_root)).report()


def controls(source: EventSource, coles: Coles, seeds: Sequence[int]) -> Scores:
    """Fit the classifiers of all controls on training clients and score the test clients.

    Args:
        source: Where the events come from.
        coles: How the encoder is built, trained and judged.
        seeds: Seeds of the encoder and of LightGBM.
    """
    aggregates = _aggregates(source)
    scores: dict[str, list[np.ndarray]] = {AGGREGATES: [], EMBEDDINGS: [], BOTH: []}
    for seed in seeds:
        task = event_task(source, coles, checkpoint=None, cache_dir=script.CACHE, seed=seed)
        embeddings, targets = _embeddings(task)
        raw = aggregates[targets[:, CLIENT]]
        features = {AGGREGATES: raw, EMBEDDINGS: embeddings, BOTH: np.concatenate([raw, embeddings], axis=1)}
        classifier: Classifier = dataclasses.replace(coles.classifier, seed=seed)
        for name, table in features.items():
            given, classes = Downstream(classifier, len(task.labels))(table, targets)
            scores[name].append(given)
    return Scores(scores, classes)


def aggregates_of(inputs: dict[str, Tensor], values: Sequence[int]) -> np.ndarray:
    """Features of a batch that know no order of the events.

    They are the number of events, sum, mean, standard deviation, least and largest of each number, the share
    of each value of a category, and the mean of each number over the events of that value.

    Args:
        inputs: Batch of events, see ``tasks.events.dataset``.
        values: Number of values of each category that are counted.
    """
    lengths = inputs["lengths"]
    time = next(part.shape[1] for name, part in inputs.items() if name != "lengths")
    is_event = torch.arange(time) < lengths.unsqueeze(1)
    numbers = inputs.get("numbers", torch.zeros(len(lengths), time, 0)).double()
    total = (numbers * is_event.unsqueeze(2)).sum(1)
    mean = total / lengths.unsqueeze(1)
    apart = (numbers - mean.unsqueeze(1)) * is_event.unsqueeze(2)
    deviation = (apart.square().sum(1) / lengths.unsqueeze(1)).sqrt()
    outside = torch.where(is_event, 0.0, torch.inf).unsqueeze(2)
    features = [lengths.unsqueeze(1).double(), total, mean, deviation]
    features += [(numbers + outside).amin(1), (numbers - outside).amax(1)]
    for column, count in enumerate(values):
        for value in range(1, 2 + count):
            is_value = (inputs["categories"][:, :, column] == value).double()
            times = is_value.sum(1, keepdim=True)
            features.append(times / lengths.unsqueeze(1))
            features.append((numbers * is_value.unsqueeze(2)).sum(1) / times.clamp(min=1.0))
    return torch.cat(features, 1).float().numpy()


def _aggregates(source: EventSource) -> np.ndarray:
    """Aggregates of every client (clients, D)."""
    store = open_store(source, script.CACHE)
    values = [min(MOST_VALUES, len(values)) for values in store.vocabularies]
    clients = np.arange(len(store.clients))
    dataset = ClientEvents(store, clients, np.full(len(clients), FITTED))
    batches = (dataset.__getitems__(clients[first : first + 256].tolist()) for first in clients[::256])
    return np.concatenate([aggregates_of(inputs, values) for inputs, _ in batches])


def _embeddings(task: Task) -> tuple[np.ndarray, np.ndarray]:
    """Embeddings (N, D) and targets (N, 3) of the test split, training clients included."""
    assert task.test is not None

    def predict(inputs: Inputs) -> np.ndarray:
        with torch.inference_mode():
            outputs: np.ndarray = forward(task.model, inputs).numpy()
        return outputs

    outputs, targets = Outputs(predict, len(task.test)), []
    for inputs, target in open_once(task.test).batches(task.samples_per_call):
        outputs.add(inputs, len(target))
        targets.append(target.numpy())
    return outputs.joined(), joined_targets(targets)


def _rows(scores: Scores) -> list[tuple[str, ...]]:
    """Quality of each control with its interval, and its difference to the raw aggregates."""
    rows = []
    for quality in QUALITIES:
        values, drawn = zip(*(_resampled(scores, quality, name) for name in scores.of_features), strict=True)
        for name, value, resamples in zip(scores.of_features, values, drawn, strict=True):
            own, apart = interval(value, resamples), interval(value - values[0], resamples - drawn[0])
            cells = (own.value, own.low, own.high, apart.value, apart.low, apart.high)
            rows.append((name, quality, *(f"{cell:.4f}" for cell in cells)))
    return rows


def _resampled(scores: Scores, quality: Quality, name: str) -> tuple[float, Array]:
    """Mean over the seeds, and that of each resample of the clients; all controls see the same resamples."""
    measure, outputs = metric(quality), scores.of_features[name]
    mean = float(np.mean([measure(array, scores.classes) for array in outputs]))
    drawn = resample(measure, outputs, scores.classes, RESAMPLES, np.random.default_rng(0))
    return mean, drawn.mean(axis=1)
