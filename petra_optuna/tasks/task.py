"""A task: the model to compress, its data in four splits, and its metric."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from typing import Any, Literal, get_args

import numpy as np
import torch
from torch import nn
from torch.nn import functional
from torch.utils.data import DataLoader

from petra_optuna.errors import MeasurementFailed, TaskError
from petra_optuna.nn.batch_norm import fixed_norms
from petra_optuna.nn.batching import samples_per_call
from petra_optuna.nn.copying import private_copy
from petra_optuna.nn.inputs import ONLY_BATCH, DynamicAxes, Inputs, take
from petra_optuna.nn.outputs import OutputChoice
from petra_optuna.nn.randomness import seeded
from petra_optuna.nn.training import (
    Loss,
    TrainingStep,
    mean_absolute_error,
    mean_squared_error,
    soft_label_loss,
)
from petra_optuna.source import source_sha256
from petra_optuna.tasks.batch import check_sizes, in_float32, other_example
from petra_optuna.tasks.calibration import drawn, read_once
from petra_optuna.tasks.checks import check_classes, check_evaluation, check_split, check_training
from petra_optuna.tasks.distilling import Distillation, Kind, distillation_of
from petra_optuna.tasks.fingerprint import fingerprint_of
from petra_optuna.tasks.guard import seal
from petra_optuna.tasks.held import held_sha256
from petra_optuna.tasks.initial import Initial, initial_model
from petra_optuna.tasks.loaders import check_apart, split_of
from petra_optuna.tasks.metrics import Metric
from petra_optuna.tasks.metrics import metric as find_metric
from petra_optuna.tasks.original import Original, made_alike, original_of
from petra_optuna.tasks.outputs import Outputs, joined_targets
from petra_optuna.tasks.split import Split, Unpack, default_unpack

Mode = Literal["pretrained", "untrained"]

EXAMPLE_SAMPLES = 8
SPLITS = ("train", "calibration", "selection", "test")
NOT_FINGERPRINTED = ("name", "labels", "preprocess", "block", "fingerprint", "fingerprinted")


@dataclasses.dataclass(frozen=True)
class Task:
    """What is compressed: base model, data splits, metric, example batch, fingerprint.

    Attributes:
        name: Short name, shown and stored.
        model: The original model, in eval mode. Nobody changes it: operations work on copies.
        train, calibration, selection, test: Data splits; a search sees the first three. ``test`` may be None,
            and then a front cannot be confirmed. It is sealed (see ``tasks.guard``): it has a length, and
            reading a sample raises ``SealedSplitRead``.
        metric: Metric of quality with its direction.
        loss: Maps outputs and targets to the training loss.
        training_step: Maps model, inputs and targets to the loss, in place of forward and ``loss``.
            It hides the outputs, so distillation is off with it.
        distillation: Maps the student's outputs, the teacher's outputs and a temperature to a loss.
        labels: Names of the classes in order of their index.
        preprocess: JSON-ready description of what the input must look like; normalisation is
            inside the model.
        initial: Makes the untrained network of ``model``'s structure. When it is None every module draws its
            parameters anew, as torch's own layers can.
        trained: Whether ``model`` is trained. Only a trained model is a teacher.
        mode: Network that pipelines start from: ``model`` (``pretrained``) or an untrained one
            (``untrained``). In both modes ``model`` is the baseline and the teacher.
        fixed_norms: Names of the norms whose statistics do not move: those whose parameters are all frozen,
            and those that were in evaluation mode in a model in training mode.
        dynamic: Axes of the inputs besides the batch whose sizes vary; files take any size along them.
        block: Neighbouring samples that depend on each other, as overlapping windows of a series do; the
            bootstrap draws so many at a time.
        fingerprint: SHA-256 of model, data, metric and losses, and of all that they hold; in the mode
            ``untrained`` also of ``initial``. ``dataclasses.replace`` computes it anew where one is replaced.
        fingerprinted: The fingerprint and what it was computed of.

    Example:
        >>> task.metric.name, len(task.selection)
        ('accuracy', 128)
    """

    name: str
    model: nn.Module
    train: Split
    calibration: Split
    selection: Split
    test: Split | None
    metric: Metric
    loss: Loss = functional.cross_entropy
    training_step: TrainingStep | None = None
    distillation: Distillation = soft_label_loss
    labels: tuple[str, ...] = ()
    preprocess: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    initial: Initial | None = None
    trained: bool = True
    mode: Mode = "pretrained"
    fixed_norms: tuple[str, ...] = ()
    dynamic: DynamicAxes = dataclasses.field(default_factory=dict)
    block: int = 1
    fingerprint: str = ""
    fingerprinted: tuple[Any, ...] = dataclasses.field(default=(), repr=False, compare=False)

    def __post_init__(self) -> None:
        """Put the model in eval mode, compute the fingerprint where none was given, seal the test split.

        Raises:
            TaskError: When the model or a function holds something that a fingerprint cannot.
        """
        set_field = functools.partial(object.__setattr__, self)
        set_field("fixed_norms", self.fixed_norms or fixed_norms(self.model))
        self.model.eval()
        for name in SPLITS:
            split = getattr(self, name)
            if split is not None and split.name != name:
                set_field(name, dataclasses.replace(split, name=name))
        set_field("calibration", read_once(self.calibration))
        if self.test is not None:
            set_field("test", seal(self.test))
        fields = [field.name for field in dataclasses.fields(self) if field.name not in NOT_FINGERPRINTED]
        values = [getattr(self, name) for name in fields]
        if not self.fingerprint or self._is_of_others(values):
            set_field("fingerprint", self._computed_fingerprint())
        set_field("fingerprinted", (self.fingerprint, *values))

    def _is_of_others(self, values: Sequence[Any]) -> bool:
        """Whether ``dataclasses.replace`` brought the fingerprint along from a task that differs."""
        if not self.fingerprinted or self.fingerprinted[0] != self.fingerprint:
            return False
        return any(one is not other for one, other in zip(self.fingerprinted[1:], values, strict=True))

    def _computed_fingerprint(self) -> str:
        functions = (self.loss, self.training_step, self.distillation)
        splits = {name: getattr(self, name) for name in SPLITS}
        settings = {"fixed_norms": self.fixed_norms, "dynamic": self.dynamic}
        fingerprint = fingerprint_of(self.model, splits, self.metric, functions, settings)
        return self._untrained_fingerprint(fingerprint) if self.mode == "untrained" else fingerprint

    @cached_property
    def example(self) -> Inputs:
        """Inputs of the first selection samples, up to eight; files are measured on them, at their sizes."""
        # Whoever asks first: the same tensors serve in training later.
        with torch.inference_mode(False), seeded(0):
            inputs, _ = next(self.selection.batches(EXAMPLE_SAMPLES, limit=EXAMPLE_SAMPLES))
            return take(inputs, EXAMPLE_SAMPLES)

    @cached_property
    def other_examples(self) -> tuple[Inputs, ...]:
        """A batch of other sizes than the example's along the dynamic axes; none without such axes."""
        if not self.dynamic:
            return ()
        with torch.inference_mode(False):
            return (other_example(self.selection, self.example, self.dynamic),)

    @cached_property
    def samples_per_call(self) -> int:
        """Samples in one call of a model of this size, up to 256 (see ``nn.batching``)."""
        return samples_per_call(self.model, take(self.example, 1))

    def start(self, seed: int) -> nn.Module:
        """The network that pipelines start from, in eval mode; nobody may change it.

        Args:
            seed: Seed of the initialisation; it has no effect in the mode ``pretrained``.

        Raises:
            TaskError: When the network cannot be made.
        """
        return self.model if self.mode == "pretrained" else initial_model(self.model, self.initial, seed)

    def in_mode(self, mode: Mode) -> Task:
        """The same task in another mode.

        Raises:
            TaskError: When the mode is unknown or the task cannot have it.
        """
        if mode not in get_args(Mode):
            raise TaskError(f"`mode` must be one of {', '.join(get_args(Mode))}, got {mode!r}")
        if mode == "pretrained" and not self.trained:
            raise TaskError(f"the model of task {self.name!r} is not trained; use the mode untrained")
        if mode == self.mode:
            return self
        if mode == "pretrained":
            raise TaskError(f"task {self.name!r} was put into the mode {self.mode}; give it as it was before")
        initial_model(self.model, self.initial, seed=0)  # a task that cannot start is refused here
        return dataclasses.replace(self, mode=mode, fingerprint=self._untrained_fingerprint(self.fingerprint))

    def _untrained_fingerprint(self, fingerprint: str) -> str:
        """Fingerprint in the mode ``untrained`` of the task that has this one in the mode ``pretrained``."""
        made_by = (
            "" if self.initial is None else source_sha256(self.initial) + held_sha256(None, self.initial)
        )
        return hashlib.sha256(f"untrained {self.trained} {fingerprint} {made_by}".encode()).hexdigest()

    def evaluate(
        self, predict: Callable[[Inputs], np.ndarray], split: Split, batch_size: int | None = None
    ) -> float:
        """The metric of ``predict`` on a split.

        Outputs and targets are collected in one loop over one iterator, so they match in any order of the
        data. Random transforms of the data set are the same each time.

        Args:
            predict: Maps inputs of B samples to outputs (B, ...).
            split: Data split to evaluate on.
            batch_size: Samples a call; ``samples_per_call`` when None.

        Raises:
            MeasurementFailed: When outputs or the metric are not finite, or outputs of another length
                than their inputs.
        """
        outputs, targets = Outputs(predict, len(split)), []
        size = batch_size or self.samples_per_call
        with seeded(0):
            for inputs, target in split.batches(size):
                outputs.add(inputs, len(target))
                targets.append(target.numpy())
        return self.score(outputs.joined(), joined_targets(targets))

    def score(self, outputs: np.ndarray, targets: np.ndarray) -> float:
        """The metric of outputs (N, ...) and targets (N, ...).

        Raises:
            MeasurementFailed: When it is not finite.
        """
        return self.score_prepared(*self.metric.prepared(outputs, targets))

    def score_prepared(self, outputs: np.ndarray, targets: np.ndarray) -> float:
        """The metric of what ``Metric.prepared`` made of outputs and targets.

        Raises:
            MeasurementFailed: When it is not finite.
        """
        quality = self.metric.of_prepared(outputs, targets)
        if not np.isfinite(quality):
            raise MeasurementFailed(f"{self.metric.name} of the model's outputs is {quality}")
        return quality

    @classmethod
    def from_loaders(
        cls,
        model: nn.Module,
        train: DataLoader[Any],
        selection: DataLoader[Any],
        test: DataLoader[Any] | None = None,
        *,
        metric: str | Metric,
        name: str = "custom",
        loss: Loss | None = None,
        training_step: TrainingStep | None = None,
        distillation: Kind | Distillation | None = None,
        labels: Sequence[str] = (),
        normalize: tuple[Sequence[float], Sequence[float]] | None = None,
        calibration: DataLoader[Any] | None = None,
        unpack: Unpack = default_unpack,
        preprocess: Mapping[str, Any] | None = None,
        initial: Initial | None = None,
        trained: bool = True,
        output: OutputChoice | None = None,
        dynamic: DynamicAxes = ONLY_BATCH,
    ) -> Task:
        """A task from a model and ordinary torch loaders.

        The rows of each loader, its data set and its collate function are used; order, batch size and
        workers are the study's own. One training step and one evaluation are tried.

        Args:
            model: The original model, trained unless ``trained`` is False; a copy of it is kept.
            train: Data that training nodes train on.
            selection: Data that trials are compared on; never give test data here.
            test: Data that the front is confirmed on, once.
            metric: ``accuracy``, ``macro_f1``, ``auc``, ``rmse``, ``mae``, ``r2`` or a ``Metric``.
            name: Short name, shown and stored.
            loss: Maps outputs and targets to the loss. Default: mean squared error when the metric is one of
                values, ``mae`` excepted, which takes the mean absolute error; else cross-entropy.
            training_step: Maps model, inputs and targets to the loss, in place of forward and ``loss``; turns
                distillation off.
            distillation: How a student follows the model: ``classes`` (softmax over the axis of the classes),
                ``labels`` (a sigmoid of each output), ``values`` (squared differences), or a function of the
                student's outputs, the model's and a temperature. Default: what suits loss and outputs.
            labels: Class names; with them every class must be present in ``train``.
            normalize: Mean and standard deviation of each channel, put into the model.
            calibration: Data that conversions calibrate on. Default: up to 512 random samples of ``train``,
                of each class its share.
            unpack: Splits a batch into inputs and target.
            preprocess: JSON-ready description of the input for whoever runs the exported file.
            initial: Makes the untrained network, for the mode ``untrained``; needed where a module with
                parameters has no ``reset_parameters``.
            trained: False where nothing has trained the model: the task then takes the mode ``untrained``
                only, and the baseline is the model trained for the whole budget first.
            output: The one of several outputs that ``loss``, metric, distillation and files see: its name or
                index, or a function from all that the model returns to one tensor. Default: the only tensor,
                ``logits`` or ``out``. ``training_step`` is given the model with all of its outputs.
            dynamic: Axes besides the batch whose sizes vary, by name of the input (``input``, ``input_0``,
                ..., or the batch's keys), for example ``{"input": {1: "time"}}``. Files take any size.

        Raises:
            TaskError: When a loader, the batches, the model, its loss or its metric cannot be used, or two
                splits share rows.
            DataError: When a split is empty, a sample cannot be read or a class has no training sample.
        """
        unpack = in_float32(unpack)
        loaders = {"train": train, "calibration": calibration, "selection": selection, "test": test}
        splits = {
            part: split_of(part, loader, unpack) for part, loader in loaders.items() if loader is not None
        }
        for split in splits.values():
            check_split(split)
        check_apart(splits)
        check_sizes(splits, dynamic)
        if training_step is not None and distillation is not None:
            raise TaskError(
                "`training_step` hides the outputs, so there is no distillation; give one of the two"
            )
        inputs, _ = next(splits["selection"].batches(2))
        own_step = training_step is not None
        kept = original_of(model, inputs, normalize=normalize, output=output, own_step=own_step)
        original = kept.model
        if initial is not None and kept.changed:
            initial = functools.partial(_normalized, initial, normalize, kept)
        elif initial is not None and normalize is not None:
            initial = functools.partial(_normalized, initial, normalize)
        quality = find_metric(metric)
        criterion = loss or loss_of(quality)
        private = private_copy(original)  # a model may keep something of a call
        check_evaluation(private, splits["selection"], quality)
        tried = check_training(private, splits["train"], criterion, training_step)
        check_classes(splits["train"], tuple(labels))
        return cls(
            name=name,
            model=original,
            train=splits["train"],
            calibration=splits.get("calibration") or drawn(splits["train"], splits["selection"]),
            selection=splits["selection"],
            test=splits.get("test"),
            metric=quality,
            loss=criterion,
            training_step=training_step,
            distillation=soft_label_loss
            if tried is None
            else distillation_of(distillation, criterion, *tried),
            labels=tuple(labels),
            preprocess=dict(preprocess or {}),
            initial=initial,
            trained=trained,
            fixed_norms=kept.fixed_norms,
            dynamic={name: dict(axes) for name, axes in dynamic.items()},
        )


def loss_of(metric: Metric, scale: float = 1.0) -> Loss:
    """The training loss that goes with a metric: for ``mae`` absolute errors, for other values squares.

    Args:
        metric: Metric of quality.
        scale: Unit of the differences; it has no effect on classes.
    """
    if not metric.regression:
        return functional.cross_entropy
    loss = mean_absolute_error if metric.name == "mae" else mean_squared_error
    return loss if scale == 1.0 else functools.partial(loss, scale=scale)


def _normalized(
    initial: Initial,
    normalize: tuple[Sequence[float], Sequence[float]] | None,
    kept: Original | None = None,
) -> nn.Module:
    made = initial()
    if not isinstance(made, nn.Module):
        raise TaskError(f"`initial` must return the untrained network, got {type(made).__name__}")
    return made_alike(made, normalize, kept)
