"""Training the baseline of a task whose model is not trained, under the study's budget."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import logging
from pathlib import Path

import torch
from torch import nn

from petra_optuna.evaluation import CacheEntry, PrefixCache, checkpoint
from petra_optuna.operations import Context
from petra_optuna.study.controls import whole_training
from petra_optuna.study.specification import Specification
from petra_optuna.tasks import Task
from petra_optuna.tasks.fingerprint import tensor_sha256

logger = logging.getLogger(__name__)


def with_trained_baseline(task: Task, specification: Specification) -> Task:
    """The task with a trained model, which becomes baseline and teacher.

    A task whose model is trained is returned as it is. Otherwise the network is trained from initialisation
    for the study's whole budget, without a teacher. The result is kept in the study's cache; it follows from
    the specification, at its number of threads, bit for bit.

    Args:
        task: Task in the study's mode.
        specification: Specification of the study.

    Raises:
        TrainingDiverged: When the loss does not stay finite.
    """
    if task.trained:
        return task
    cache, key = PrefixCache(Path(specification.cache)), _key(task, specification)
    entry = cache.get(key)
    if entry is None:
        epochs = specification.budget.epochs
        logger.warning("the model of task %s is not trained: training it for %d epochs", task.name, epochs)
        entry = CacheEntry([], checkpoint.to_bytes(_train(task, specification), task.model))
        cache.put(key, entry)
    model = checkpoint.from_bytes(entry.checkpoint, task.model)
    weights = tensor_sha256(*model.state_dict().values())
    fingerprint = hashlib.sha256(f"{task.fingerprint} {weights}".encode()).hexdigest()
    return dataclasses.replace(task, model=model, trained=True, fingerprint=fingerprint)


def _train(task: Task, specification: Specification) -> nn.Module:
    budget = specification.budget
    pipeline = whole_training(budget, specification.space["max_length"])
    model = task.start(specification.seed)
    for index, node in enumerate(pipeline.body):
        context = Context(
            task=task,
            recipe=pipeline.recipe,
            seed=specification.seed + index,
            epochs=int(node.values()["epochs"] or 0),
            data_fraction=budget.data_fraction,
            train_precision=specification.train_precision,
        )
        model = node.apply(model, context).model
    return model


def _key(task: Task, specification: Specification) -> str:
    parts = {
        "reference": task.fingerprint,
        "most_nodes": specification.space["max_length"],
        "budget": dataclasses.asdict(specification.budget),
        "seed": specification.seed,
        "threads": specification.train_threads,
        "train_precision": specification.train_precision,
        "torch": torch.__version__,
    }
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()
