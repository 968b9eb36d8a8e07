"""Cache keys: what a cached model depends on, and nothing else.

key_0 covers the task (weights, data, metric), this package's code, library versions, the seed, the
training threads, the instruction set, the bits of INT8 weights, and the type that the study asks to train in
and this machine gains by;
key_i chains the node, the recipe as far as it uses it, and its share of the budget. Each node
seeds itself from its key, so a cached prefix and a cold run agree bit for bit.
"""

from __future__ import annotations

import functools
import hashlib
import json
from importlib import metadata
from pathlib import Path

import torch

from petra_optuna.aliases import TrainPrecision
from petra_optuna.evaluation.budget import Budget
from petra_optuna.measurement import LIBRARIES
from petra_optuna.nn.training import training_dtype
from petra_optuna.operations.saturation import weight_bits
from petra_optuna.pipeline import Pipeline
from petra_optuna.source import source_sha256
from petra_optuna.tasks import Task

_CODE = ("evaluation", "models", "nn", "operations", "pipeline", "tasks")


def base_key(task: Task, seed: int, train_precision: TrainPrecision = "auto") -> str:
    """Key of the network that pipelines start from, under this seed, precision, code and machine."""
    return _digest(
        {
            "task": task.fingerprint,
            "code": code_digest(),
            "libraries": {name: metadata.version(name) for name in LIBRARIES},
            "seed": seed,
            "threads": torch.get_num_threads(),
            "instruction_set": torch.backends.cpu.get_cpu_capability(),
            "weight_bits": weight_bits(),
            "train_precision": train_precision,
            "training_dtype": str(training_dtype(torch.device("cpu"))),
        }
    )


def prefix_keys(base_key: str, pipeline: Pipeline, budget: Budget) -> tuple[str, ...]:
    """One key for every body node, each chained to the one before it, the first to ``base_key``.

    A training node counts by the epochs that it gets, not by those that it asks for.
    """
    keys = []
    key = base_key
    for node, epochs in zip(pipeline.body, budget.allot(pipeline.body), strict=True):
        recipe = pipeline.recipe.active_values()
        trains = node.kind == "training"
        given = {"epochs": epochs} if trains else {}
        key = _digest(
            {
                "before": key,
                "node": {**node.to_dict(), **given},
                "code": source_sha256(type(node)),
                "recipe": {name: recipe[name] for name in node.recipe_fields if name in recipe},
                "epochs": epochs,
                "data_fraction": budget.data_fraction if trains else None,
            }
        )
        keys.append(key)
    return tuple(keys)


def node_seed(key: str) -> int:
    """Seed of the node that has this key, a 63-bit integer."""
    return int(key[:16], 16) >> 1


@functools.cache
def code_digest() -> str:
    """SHA-256 over the sources that decide what a node does to a model."""
    root = Path(__file__).parents[1]
    digest = hashlib.sha256()
    for folder in _CODE:
        for path in sorted((root / folder).rglob("*.py")):
            digest.update(path.relative_to(root).as_posix().encode())
            digest.update(path.read_bytes())
    return digest.hexdigest()


def _digest(parts: dict[str, object]) -> str:
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()
