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
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.data import DataLoader, Subset

from petra_optuna.errors import MeasurementFailed, TaskError
from petra_optuna.nn.batch_norm import fixed_norms
from petra_optuna.nn.batching import samples_per_call
from petra_optuna.nn.inputs import ONLY_BATCH, DynamicAxes, Inputs, take
from petra_optuna.nn.outputs import OutputChoice
from petra_optuna.nn.training import output_matching_loss, soft_label_loss
from petra_optuna.source import source_sha256
from petra_optuna.tasks.batch import check_sizes, in_float32, other_example
from petra_optuna.tasks.checks import check_classes, check_forward, check_loss, check_split
from petra_optuna.tasks.fingerprint import fingerprint_of
from petra_optuna.tasks.guard import seal
from petra_optuna.tasks.initial import Initial, initial_model
from petra_optuna.tasks.metrics import Metric
from petra_optuna.tasks.metrics import metric as find_metric
from petra_optuna.tasks.original import Original, original_of
from petra_optuna.tasks.outputs import Outputs, joined_targets
from petra_optuna.tasks.split import Split, default_unpack

Loss = Callable[[Tensor, Tensor], Tensor]
TrainingStep = Callable[[nn.Module, Inputs, Tensor], Tensor]
Distillation = Callable[[Tensor, Tensor, float], Tensor]
Unpack = Callable[[Any], tuple[Inputs, Tensor]]
Mode = Literal["pretrained", "untrained"]

CALIBRATION_SAMPLES = 512
EXAMPLE_SAMPLES = 8


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
        fingerprint: SHA-256 of model, data and metric; in the mode ``untrained`` also of ``initial``.

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
    fingerprint: str = ""

    def __post_init__(self) -> None:
        """Put the model in eval mode, compute the fingerprint where none was given, seal the test split."""
        object.__setattr__(self, "fixed_norms", self.fixed_norms or fixed_norms(self.model))
        self.model.eval()
        if not self.fingerprint:
            splits = {
                "train": self.train,
                "calibration": self.calibration,
                "selection": self.selection,
                "test": self.test,
            }
            functions = (self.loss, self.training_step, self.distillation, self.metric.function)
            settings = {"fixed_norms": self.fixed_norms, "dynamic": self.dynamic}
            fingerprint = fingerprint_of(self.model, splits, self.metric.name, functions, settings)
            if self.mode == "untrained":
                fingerprint = self._untrained_fingerprint(fingerprint)
            object.__setattr__(self, "fingerprint", fingerprint)
        if self.test is not None:
            object.__setattr__(self, "test", seal(self.test))

    @cached_property
    def example(self) -> Inputs:
        """Inputs of the first selection samples, up to eight; files are measured on them, at their sizes."""
        with torch.inference_mode(False):  # whoever asks first: the same tensors serve in training later
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
        made_by = "" if self.initial is None else source_sha256(self.initial)
        return hashlib.sha256(f"untrained {self.trained} {fingerprint} {made_by}".encode()).hexdigest()

    def evaluate(
        self, predict: Callable[[Inputs], np.ndarray], split: Split, batch_size: int | None = None
    ) -> float:
        """The metric of ``predict`` on a split.

        Outputs and targets are collected in one loop over one iterator, so they match in any order of the
        data.

        Args:
            predict: Maps inputs of B samples to outputs (B, ...).
            split: Data split to evaluate on.
            batch_size: Samples a call; ``samples_per_call`` when None.

        Raises:
            MeasurementFailed: When outputs or the metric are not finite, or outputs of another length
                than their inputs.
        """
        outputs, targets = Outputs(predict, len(split)), []
        for inputs, target in split.batches(batch_size or self.samples_per_call):
            outputs.add(inputs, len(target))
            targets.append(target.numpy())
        return self.score(outputs.joined(), joined_targets(targets))

    def score(self, outputs: np.ndarray, targets: np.ndarray) -> float:
        """The metric of outputs (N, ...) and targets (N, ...).

        Raises:
            MeasurementFailed: When it is not finite.
        """
        quality = self.metric(outputs, targets)
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

        The data set and the collate function of each loader are used; order, batch size and workers are
        the study's own.

        Args:
            model: The original model, trained unless ``trained`` is False; a copy of it is kept.
            train: Data that training nodes train on.
            selection: Data that trials are compared on; never give test data here.
            test: Data that the front is confirmed on, once.
            metric: ``accuracy``, ``macro_f1``, ``auc``, ``rmse`` or a ``Metric``.
            name: Short name, shown and stored.
            loss: Maps outputs and targets to the loss. Default: mean squared error when the metric is
                ``rmse``, else cross-entropy.
            training_step: Maps model, inputs and targets to the loss, in place of forward and ``loss``; turns
                distillation off.
            labels: Class names; with them every class must be present in ``train``.
            normalize: Mean and standard deviation of each channel, put into the model.
            calibration: Data that conversions calibrate on. Default: up to 512 evenly spaced samples of
                ``train``.
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
            TaskError: When a loader, the batches or the model cannot be used.
            DataError: When a split is empty or a class has no training sample.
        """
        unpack = in_float32(unpack)
        splits = {"train": _split(train, unpack), "selection": _split(selection, unpack)}
        if calibration is not None:
            splits["calibration"] = _split(calibration, unpack)
        if test is not None:
            splits["test"] = _split(test, unpack)
        for part, split in splits.items():
            check_split(part, split)
        check_sizes(splits, dynamic)
        inputs, _ = next(splits["selection"].batches(2))
        own_step = training_step is not None
        kept = original_of(model, inputs, normalize=normalize, output=output, own_step=own_step)
        original = kept.model
        if initial is not None:
            initial = functools.partial(_wrapped, kept, initial, normalize)
        quality = find_metric(metric)
        regression = quality.name == "rmse"
        criterion = loss or (mean_squared_error if regression else functional.cross_entropy)
        check_forward(original, splits["selection"])
        check_loss(original, splits["train"], criterion, training_step)
        check_classes(splits["train"], tuple(labels))
        return cls(
            name=name,
            model=original,
            train=splits["train"],
            calibration=splits.get("calibration") or every_kth(splits["train"]),
            selection=splits["selection"],
            test=splits.get("test"),
            metric=quality,
            loss=criterion,
            training_step=training_step,
            distillation=output_matching_loss if regression else soft_label_loss,
            labels=tuple(labels),
            preprocess=dict(preprocess or {}),
            initial=initial,
            trained=trained,
            fixed_norms=kept.fixed_norms,
            dynamic={name: dict(axes) for name, axes in dynamic.items()},
        )


def every_kth(split: Split, count: int = CALIBRATION_SAMPLES) -> Split:
    """Up to ``count`` evenly spaced samples, without augmentation."""
    step = -(-len(split) // count)
    subset = Subset(split.dataset, list(range(0, len(split), step)))
    return dataclasses.replace(split, dataset=subset, augment=None)


def mean_squared_error(outputs: Tensor, targets: Tensor) -> Tensor:
    """Mean squared error value by value: outputs (B, 1) against targets (B,) do not broadcast to (B, B)."""
    rows = len(targets)
    return functional.mse_loss(outputs.reshape(rows, -1), targets.reshape(rows, -1).to(outputs.dtype))


def _wrapped(
    kept: Original, initial: Initial, normalize: tuple[Sequence[float], Sequence[float]] | None
) -> nn.Module:
    made = initial()
    if not isinstance(made, nn.Module):
        raise TaskError(f"`initial` must return the untrained network, got {type(made).__name__}")
    return kept.like(made, normalize)


def _split(loader: DataLoader[Any], unpack: Unpack) -> Split:
    if not isinstance(loader, DataLoader):
        raise TaskError(f"every split must be a torch DataLoader, got {type(loader).__name__}")
    if loader.batch_size is None and loader.batch_sampler is None:
        raise TaskError("a DataLoader with batch_size=None has no samples to batch; give it a batch size")
    return Split(loader.dataset, loader.collate_fn, unpack)
