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
from petra_optuna.samplers.branches import Branches
from petra_optuna.samplers.breeding import TRIES, parents_of, pick, rates_of, strength
from petra_optuna.samplers.history import History
from petra_optuna.samplers.identity import params_hash
from petra_optuna.samplers.options import Options
from petra_optuna.samplers.planner import ALTERED
from petra_optuna.samplers.records import Plan

CHANGE, REDRAW, SWITCH = "change_params", "redraw_param", "switch_branch"
OPERATORS = (CHANGE, REDRAW, SWITCH)
"""Small changes of some parameters; one parameter drawn afresh; another branch of the search space."""


def plan_params(options: Options, history: History, planned: int, fixed: Mapping[str, Any]) -> Plan:
    """Plan a trial of a study that does not use our encoding.

    Args:
        options: Of the sampler.
        history: All trials, with the branches seen.
        planned: Number of the trial to plan.
        fixed: Parameters that hold a value.
    """
    index = history.index_of(planned)
    rng = np.random.default_rng([options.seed, index])
    if index < options.population_size or rng.random() < options.immigrants:
        return Plan(index, {})
    parents = [trial for trial in parents_of(options, history, rng) if trial.params]
    if not parents:
        return Plan(index, {})
    rates = rates_of(options, history, OPERATORS)
    taken = history.taken(planned)
    plans: dict[str, Plan] = {}
    plan = Plan(index, {})
    for _ in range(TRIES + 2 * options.candidates):
        if len(plans) == options.candidates:
            break
        parent, operator = pick(parents, options, rng), rates.choose(rng)
        step = strength(options, history, rng)
        child = _child(operator, parent, history.branches, fixed, step, rng)
        if child is None:
            continue
        params, altered = child
        plan = Plan(
            index,
            params,
            operator=None if altered else operator,
            parent=parent.number,
            hash=params_hash(params),
            strength=step if options.strength == "adaptive" and operator == CHANGE else None,
            note=ALTERED if altered else None,
        )
        if not options.avoid_duplicates or not taken(params_hash(params)):
            plans[params_hash(params)] = plan
    found = list(plans.values()) or [plan]
    if len(found) == 1:
        return found[0]
    return found[int(np.argmax(history.gains([each.params for each in found])))]


def _child(
    operator: str,
    parent: FrozenTrial,
    branches: Branches,
    fixed: Mapping[str, Any],
    step: float,
    rng: np.random.Generator,
) -> tuple[dict[str, Any], bool] | None:
    """The child's parameters and whether fixed ones changed it; None where the operator is not possible."""
    changed = _changed(operator, parent, branches, step, rng)
    if changed is None:
        return None
    held = {name: value for name, value in fixed.items() if name in changed}
    different = [name for name in sorted(changed) if {**changed, **held}[name] != parent.params[name]]
    params = branches.live({**changed, **held}, different)
    while missing := branches.missing(params):
        params |= {
            name: fixed[name] if name in fixed else draw_value(branches.distribution(name), rng)
            for name in missing
        }
    return params, any(changed[name] != value for name, value in held.items())


def _changed(
    operator: str, parent: FrozenTrial, branches: Branches, step: float, rng: np.random.Generator
) -> dict[str, Any] | None:
    kinds, names = parent.distributions, sorted(parent.params)
    if operator == CHANGE:
        certain = names[int(rng.integers(len(names)))]
        return {
            name: change_value(kinds[name], parent.params[name], rng, step)
            if name == certain or rng.random() < 1 / len(names)
            else parent.params[name]
            for name in names
        }
    if operator == REDRAW:
        name = names[int(rng.integers(len(names)))]
        return {**parent.params, name: draw_value(kinds[name], rng)}
    switches = sorted(branches.switches(parent.params))
    if not switches:
        return None
    name = switches[int(rng.integers(len(switches)))]
    return {**parent.params, name: change_value(kinds[name], parent.params[name], rng, step)}
