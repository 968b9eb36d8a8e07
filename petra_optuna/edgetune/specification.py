"""What a tuning study is made with; a run under its name with another specification is refused."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from typing import Any, Final

import optuna
from optuna.distributions import BaseDistribution, distribution_to_json, json_to_distribution

from petra_optuna.edgetune.budgets import TuningBudget
from petra_optuna.edgetune.limits import FigureLimit
from petra_optuna.errors import StudyError, UserError
from petra_optuna.inference import EdgeDevice, InferenceSpace, inference_objective
from petra_optuna.samplers import sampler_of

SPECIFICATION: Final = "petra:tuning"
"""Key of the specification among a study's user attributes."""


@dataclasses.dataclass(frozen=True)
class WorkloadSource:
    """How a workload is built again.

    Attributes:
        name: Name of a built-in workload, or of one that only the program that made it can give.
        data_root: Absolute path of the data's folder; None where the workload needs none.
    """

    name: str
    data_root: str | None = None


@dataclasses.dataclass(frozen=True)
class TuningSpecification:
    """What a tuning study is made with.

    Attributes:
        workload: How the workload is built.
        fingerprint: SHA-256 of the workload's task.
        space: Parameters by name: of the model, of training, and ``train_threads``.
        objective: Name of the objective.
        direction: Whether less or more of it is better.
        inference_objective: What settings are tuned for; None for tuning without regard to inference.
        inferences: Samples that a model serves, in the objectives that count inference.
        budget: What trials train from rung to rung.
        algorithm: Name of the search algorithm.
        groups: Parameters by the name of another algorithm that draws them.
        inference_algorithm: Name of the algorithm of the nested searches.
        device: Device that models are served on, with the cores that emulate it.
        max_batch: Largest batch that is served.
        energy: What counts or estimates energy.
        train_threads: Threads of training where they are no parameter.
        seed: Seed of the search and of all training.
        limits: Bounds on figures of a trial (``FigureLimit``); one beyond them is no result.
    """

    workload: WorkloadSource
    fingerprint: str
    space: Mapping[str, BaseDistribution]
    objective: str
    direction: str
    inference_objective: str | None
    inferences: int
    budget: TuningBudget
    algorithm: str
    groups: Mapping[str, tuple[str, ...]]
    inference_algorithm: str
    device: EdgeDevice
    max_batch: int
    energy: str
    train_threads: int
    seed: int
    limits: tuple[FigureLimit, ...] = ()

    def groups_in(self, space: Mapping[str, BaseDistribution]) -> dict[str, tuple[str, ...]]:
        """The groups' parameters that are in a space, that of the study or that of the nested searches."""
        return {
            name: tuple(one for one in parameters if one in space)
            for name, parameters in self.groups.items()
            if any(one in space for one in parameters)
        }

    def check(self) -> None:
        """Refuse what no run could begin with.

        Raises:
            UserError: When an algorithm or objective is unknown, or a number is out of range.
        """
        sampler_of(self.algorithm, self.groups_in(self.space), self.space, self.seed)
        settings = InferenceSpace.of(self.device, self.max_batch).parameters
        sampler_of(self.inference_algorithm, self.groups_in(settings), settings, self.seed)
        if self.inference_objective is not None:
            inference_objective(self.inference_objective)
        if self.train_threads < 1:
            raise UserError(f"`train_threads` must be at least 1, got {self.train_threads}")
        if self.inferences < 0:
            raise UserError(f"`inferences` must be at least 0, got {self.inferences}")
        for limit in self.limits:
            if limit.needs_serving and self.inference_objective is None:
                raise UserError(
                    f"limit {limit} bounds serving, which nothing tunes; give `inference_objective`"
                )

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready form; ``from_dict`` is its inverse."""
        fields = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        return {
            **fields,
            "workload": dataclasses.asdict(self.workload),
            "space": {name: distribution_to_json(one) for name, one in self.space.items()},
            "budget": self.budget.to_dict(),
            "groups": {name: list(names) for name, names in self.groups.items()},
            "device": self.device.to_dict(),
            "limits": [str(limit) for limit in self.limits],
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> TuningSpecification:
        """Inverse of ``to_dict``."""
        return cls(
            **{
                **data,
                "workload": WorkloadSource(**data["workload"]),
                "space": {name: json_to_distribution(text) for name, text in data["space"].items()},
                "budget": TuningBudget(**data["budget"]),
                "groups": {name: tuple(names) for name, names in data["groups"].items()},
                "device": EdgeDevice.from_dict(data["device"]),
                "limits": tuple(FigureLimit.parse(text) for text in data.get("limits", ())),
            }
        )

    def differences(self, other: TuningSpecification) -> list[str]:
        """What another specification has otherwise, in words; where the data lies does not count."""
        mine, theirs = self.to_dict(), other.to_dict()
        for fields in (mine, theirs):
            fields["workload"] = fields["workload"]["name"]
        return [
            f"{name} was {json.dumps(mine[name])}, now {json.dumps(theirs[name])}"
            for name in mine
            if mine[name] != theirs[name]
        ]


def is_tuning(study: optuna.Study) -> bool:
    """Whether the study is a tuning study."""
    return SPECIFICATION in study.user_attrs


def specification_of(study: optuna.Study) -> TuningSpecification:
    """The specification of a tuning study.

    Raises:
        StudyError: When it is none.
    """
    if not is_tuning(study):
        raise StudyError(f"study {study.study_name!r} is no tuning study; `petra tune` makes one")
    return TuningSpecification.from_dict(study.user_attrs[SPECIFICATION])
