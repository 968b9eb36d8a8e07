"""Print how small and fast the encoders of the PETRA paper's event sets become, on events made up.

    python -m studies.full_size_encoders
    python -m studies.full_size_encoders age_group --epochs 5

The GRU of 800 units of Age Group and that of 1,024 of Alfa Battle are trained by CoLES on events in the
layout of the competitions. The events are random, so classes cannot be told from them, and no quality is
shown: what a pipeline does to the encoder is the cosine similarity of its file's embeddings of selection
clients to those of the original. That to the original's embedding of another client shows what is no better
than chance. Files are measured on a sequence of the 90th percentile of the lengths.
"""

from __future__ import annotations

import argparse
import dataclasses
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
import torch
from torch.nn import functional

from petra_optuna.deploy import OnnxRuntimeModel
from petra_optuna.evaluation import Budget
from petra_optuna.nn.inputs import forward, to_feeds
from petra_optuna.operations import LowRank, QuantizeDynamic, Train
from petra_optuna.pipeline import Pipeline, Recipe
from petra_optuna.tasks import Task
from petra_optuna.tasks.events.task import event_task
from studies import script
from studies.benchmarks.events import SOURCES, WRITERS
from studies.pipelines import Row, measure_pipelines

SHARES = (0.3, 0.2)
"""Shares of the weights that low rank keeps."""
HEADER = (
    *(
        "layout",
        "pipeline",
        "size, MB",
        "smaller, %",
        "times as fast at batch 1",
        "times as fast at batch 64",
    ),
    *("cosine, mean", "cosine, 5th percentile"),
    "cosine to another client",
)


def main() -> None:
    """Print the table."""
    parser = script.parser(__doc__)
    parser.add_argument("layouts", nargs="*", default=list(SOURCES), help=" or ".join(SOURCES))
    parser.add_argument("--clients", type=int, default=600, help="number of clients, with 145 events each")
    parser.add_argument("--epochs", type=int, default=2, help="epochs of the encoder and after low rank")
    arguments = parser.parse_args()
    script.print_table(HEADER, _rows(arguments))


def _rows(arguments: argparse.Namespace) -> Iterator[tuple[str, ...]]:
    for layout in arguments.layouts:
        with tempfile.TemporaryDirectory() as folder:
            task = _task(layout, Path(folder), arguments)
            for row in measure_pipelines(task, _pipelines(arguments.epochs), Budget(arguments.epochs)):
                yield layout, *_cells(row, task)


def _task(layout: str, folder: Path, arguments: argparse.Namespace) -> Task:
    source, coles = SOURCES[layout]
    WRITERS[layout](folder / "data", 145 * arguments.clients, arguments.clients)
    recipe = dataclasses.replace(coles.recipe, epochs=arguments.epochs)
    short = dataclasses.replace(coles, recipe=recipe)
    return event_task(source(folder / "data"), short, checkpoint=None, cache_dir=folder / "cache", seed=0)


def _pipelines(epochs: int) -> Mapping[str, Pipeline]:
    """INT8 alone, and low rank at several shares, without and with training towards the original."""
    recipe = Recipe(lr=1e-3, distillation_weight=1.0)
    pipelines = {"PDQ": Pipeline((QuantizeDynamic(),), recipe)}
    for share in SHARES:
        reduced = LowRank(rule="share", kept_weights=share)
        name = f"LR {share:g}"
        pipelines[f"{name} > PDQ"] = Pipeline((reduced, QuantizeDynamic()), recipe)
        trained = Pipeline((reduced, Train(epochs=epochs), QuantizeDynamic()), recipe)
        pipelines[f"{name} > Tr > PDQ"] = trained
    return pipelines


def _cells(row: Row, task: Task) -> tuple[str, ...]:
    artifact = row.evaluation.artifact
    alike, others = _cosines(artifact.path, task)
    return (
        row.name,
        f"{artifact.size_bytes / 1e6:.2f}",
        f"{100 * (1 - 1 / row.smaller):.1f}",
        *(f"{factor:.2f}" for factor in row.faster),
        f"{alike.mean():.4f}",
        f"{np.percentile(alike, 5):.4f}",
        f"{others.mean():.4f}",
    )


def _cosines(path: Path, task: Task) -> tuple[np.ndarray, np.ndarray]:
    """Cosine of the file's embedding of each selection client to the original's, and to another client's."""
    file = OnnxRuntimeModel(path)
    found, expected = [], []
    with torch.inference_mode():
        for inputs, _ in task.selection.batches(task.samples_per_call):
            found.append(torch.from_numpy(file.run(to_feeds(inputs))))
            expected.append(forward(task.model, inputs))
    one, other = torch.cat(found), torch.cat(expected)
    pairs = (other, other.roll(1, 0))
    alike, others = (functional.cosine_similarity(one, embeddings).numpy() for embeddings in pairs)
    return alike, others


if __name__ == "__main__":
    script.run(main)
