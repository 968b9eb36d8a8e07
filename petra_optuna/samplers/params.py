"""A plan of plain parameters, for an objective that does not use our encoding.

A child has its parent's parameters, of which some change. Which others there are may follow from the
values of some; that is learnt from past trials, so that dead parameters leave a child and those of a
branch that it enters are drawn. What the objective asks beyond the plan is left free.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from optuna.trial import FrozenTrial

from petra_optuna.evolution import change_value, draw_value
from petra_optuna.samplers.conditional import ConditionalSpace
from petra_optuna.samplers.history import History
from petra_optuna.samplers.identity import params_hash
from petra_optuna.samplers.options import Options
from petra_optuna.samplers.planner import ALTERED
from petra_optuna.samplers.records import Plan, PlanRequest
from petra_optuna.samplers.variation import (
    TRIES,
    choose_parent,
    choose_step_size,
    operator_rates,
    select_parents,
)

CHANGE, REDRAW, SWITCH = "change_params", "redraw_param", "switch_branch"
OPERATORS = (CHANGE, REDRAW, SWITCH)
"""Small changes of some parameters; one parameter drawn afresh; another branch of the search space."""


def plan_params(options: Options, history: History, request: PlanRequest) -> Plan:
    """Plan a trial of a study that does not use our encoding.

    Args:
        options: Options of the sampler.
        history: All trials, with the conditional space seen in them.
        request: Trial to plan, and the parameters that hold a value.
    """
    fixed = {**request.held, **request.enqueued}
    index = history.index_of(request.number)
    rng = np.random.default_rng([request.seed, index])
    if index < options.population_size or rng.random() < options.immigrants:
        return Plan(index, {})
    parents = [trial for trial in select_parents(options, history, rng) if trial.params]
    if not parents:
        return Plan(index, {})
    rates = operator_rates(options, history, OPERATORS)
    is_duplicate = history.duplicate_check(request.number)
    plans: dict[str, Plan] = {}
    plan = Plan(index, {})
    for _ in range(TRIES + 2 * options.candidates):
        if len(plans) == options.candidates:
            break
        parent, operator = choose_parent(parents, options, rng), rates.choose(rng)
        step = choose_step_size(options, history, rng)
        child = _child(operator, parent, history.conditional_space, fixed, step, rng)
        if child is None:
            continue
        params, is_altered = child
        digest = params_hash(params)
        plan = Plan(
            index,
            params,
            operator=None if is_altered else operator,
            parent=parent.number,
            hash=digest,
            strength=step if options.strength == "adaptive" and operator == CHANGE else None,
            note=ALTERED if is_altered else None,
        )
        if not options.avoid_duplicates or not is_duplicate(digest):
            plans[digest] = plan
    children = list(plans.values()) or [plan]
    if len(children) == 1:
        return children[0]
    return children[int(np.argmax(history.gains([child.params for child in children])))]


def _child(
    operator: str,
    parent: FrozenTrial,
    space: ConditionalSpace,
    fixed: Mapping[str, Any],
    step: float,
    rng: np.random.Generator,
) -> tuple[dict[str, Any], bool] | None:
    """The child's parameters and whether fixed ones changed it; None where the operator is not possible."""
    changed = _apply(operator, parent, space, step, rng)
    if changed is None:
        return None
    held = {name: value for name, value in fixed.items() if name in changed}
    different = [name for name in sorted(changed) if {**changed, **held}[name] != parent.params[name]]
    params = space.active_params({**changed, **held}, different)
    while missing := space.missing_params(params):
        params |= {
            name: fixed[name] if name in fixed else draw_value(space.distribution(name), rng)
            for name in missing
        }
    return params, any(changed[name] != value for name, value in held.items())


def _apply(
    operator: str, parent: FrozenTrial, space: ConditionalSpace, step: float, rng: np.random.Generator
) -> dict[str, Any] | None:
    """The parent's parameters after an operator; None where it is not possible."""
    distributions, names = parent.distributions, sorted(parent.params)
    if operator == CHANGE:
        certain = names[int(rng.integers(len(names)))]
        return {
            name: change_value(distributions[name], parent.params[name], rng, step)
            if name == certain or rng.random() < 1 / len(names)
            else parent.params[name]
            for name in names
        }
    if operator == REDRAW:
        name = names[int(rng.integers(len(names)))]
        return {**parent.params, name: draw_value(distributions[name], rng)}
    branching = sorted(space.branching_params(parent.params))
    if not branching:
        return None
    name = branching[int(rng.integers(len(branching)))]
    return {**parent.params, name: change_value(distributions[name], parent.params[name], rng, step)}
