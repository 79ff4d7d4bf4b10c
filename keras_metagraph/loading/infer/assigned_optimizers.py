"""Describes the optimizers of a graph that update by plain ops."""

import dataclasses
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from keras_metagraph.errors import MetaGraphError
from keras_metagraph.graph.ir import TensorName
from keras_metagraph.loading.infer.assigned import (
    AssignedUpdate,
    UpdateProbe,
    assigned_update,
)
from keras_metagraph.loading.infer.assigned_fit import Fit, fit_update
from keras_metagraph.loading.infer.optimizers import OptimizerDescription
from keras_metagraph.loading.infer.updates import Training

_ASSIGNING = frozenset({"Assign", "AssignVariableOp"})
# The same optimizer, where a variable is exempt from weight decay.
_EXEMPT = {"BertAdamW": "LAMB"}


def describe_assigned(
    training: Training,
    variables: Sequence[str],
    run: Collection[str],
    values: Mapping[str, Any],
    feeds: Mapping[str, Any],
    counters: Mapping[str, int],
) -> tuple[list[OptimizerDescription], dict[str, str]]:
    """Finds the optimizers of variables that are updated by plain ops.

    Args:
        training: The backward part of the graph.
        variables: Names of the variables.
        run: Names of the nodes that a training step runs.
        values: Arrays by variable name.
        feeds: Values of placeholders in training, by tensor name.
        counters: The variables that count steps, and by how much.

    Returns:
        The optimizers; and why the update of a variable is none of them, for each of
        which it is not known.
    """
    updates = [assigned_update(training, name, run) for name in variables]
    unknown = {
        name: "no single gradient goes into it"
        for name, update in zip(variables, updates, strict=True)
        if update is None
    }
    groups: dict[int, list[AssignedUpdate]] = {}
    for update in updates:
        if update is not None:
            groups.setdefault(update.signature, []).append(update)
    found: list[OptimizerDescription] = []
    for group in groups.values():
        sizes = {update: np.size(values[update.variable]) for update in group}
        # Few elements tell little.
        smallest = min(group, key=lambda update: (sizes[update] < 8, sizes[update]))
        moving = _moving(training, smallest, run, counters)
        reason = "its formula is another one"
        try:
            probe = UpdateProbe(training.analysis, smallest, values, feeds, moving)
            numbers = _constants(training, smallest, values)
            fed = [np.asarray(value) for value in feeds.values()]
            numbers += [float(v) for v in fed if not v.shape and v.dtype.kind in "fiu"]
            fit = fit_update(probe, numbers)
        except MetaGraphError as error:
            fit, reason = None, " ".join([error.problem, *error.findings])
        except (tf.errors.OpError, ValueError):
            fit, reason = None, "it cannot be run on its own"
        if fit is None:
            unknown |= {update.variable: reason for update in group}
        else:
            found.append(_description(training, group, fit, run))
    return _joined(found), unknown


def _moving(
    training: Training,
    update: AssignedUpdate,
    run: Collection[str],
    counters: Mapping[str, int],
) -> dict[str, Any]:
    """The scalar variables that go on with each step, as functions of the step."""
    moving: dict[str, Any] = {
        name: lambda step, by=by: step * by
        for name, by in counters.items()
        if name in update.nodes
    }
    for name, base in _powers(training, update, run).items():
        moving[name] = lambda step, base=base: np.float64(base) ** (step + 1)
    return moving


def _powers(
    training: Training, update: AssignedUpdate, run: Collection[str]
) -> dict[str, float]:
    """The variables that a step multiplies by a constant, with that constant."""
    analysis = training.analysis
    found = {}
    for name, variable in analysis.writes.items():
        node = analysis.graph.nodes[name]
        if name not in run or variable not in update.nodes or node.op not in _ASSIGNING:
            continue
        product = analysis.graph.nodes[node.inputs[1].node]
        if product.op != "Mul" or analysis.variables[variable].shape != ():
            continue
        behind = [analysis.variable_behind(tensor) for tensor in product.inputs]
        factors = [analysis.constant(tensor) for tensor in product.inputs]
        if variable in behind and any(factor is not None for factor in factors):
            found[variable] = next(f for f in factors if f is not None)
    return found


def _constants(
    training: Training, update: AssignedUpdate, values: Mapping[str, Any]
) -> list[float]:
    """The numbers of the formula of an update."""
    analysis = training.analysis
    found = [analysis.constant(tensor) for tensor in update.scalars]
    held = [analysis.variable_behind(tensor) for tensor in update.scalars]
    found += [
        float(str(np.asarray(values[name]).reshape(())))
        for name in held
        if name is not None and name in values and np.size(values[name]) == 1
    ]
    return [float(value) for value in found if isinstance(value, int | float)]


def _description(
    training: Training,
    group: Sequence[AssignedUpdate],
    fit: Fit,
    run: Collection[str],
) -> OptimizerDescription:
    """The description of an optimizer that was fitted to one of its updates."""
    names = tuple(update.variable for update in group)
    numbers: dict[str, Any] = dict(fit.numbers)
    numbers.pop("weight_decay_rate", None)
    if fit.rate is not None:
        numbers = {"learning_rate": str(fit.rate), **numbers}
    if "use_nesterov" in numbers:
        numbers["use_nesterov"] = True
    powers = {
        f"{beta}_power": TensorName(variable)
        for variable, base in _powers(training, group[0], run).items()
        for beta in ("beta1", "beta2")
        if abs(fit.numbers.get(beta, 0.0) - base) < 1e-6
    }
    decay = fit.numbers.get("weight_decay_rate")
    if decay is not None:
        numbers["weight_decay_rate"] = decay
    return OptimizerDescription(
        fit.name,
        numbers,
        {u.variable: dict(zip(fit.slots, u.slots, strict=True)) for u in group},
        names,
        tuple(u.variable for u in group if u.gradient.indices is not None),
        tensors={} if fit.rate is None else {"learning_rate": fit.rate},
        gradients={update.variable: update.gradient for update in group},
        powers=powers,
        updates={update.variable: update.writers for update in group},
        excluded=() if decay else names,
    )


def _joined(found: Sequence[OptimizerDescription]) -> list[OptimizerDescription]:
    """Joins what differs in weight decay alone: some variables are exempt from it."""
    joined: list[OptimizerDescription] = []
    for description in sorted(found, key=_decay, reverse=True):
        for place, other in enumerate(joined):
            if _exempt(description, other) or _same(description, other):
                joined[place] = join(other, description)
                break
        else:
            joined.append(description)
    return joined


def _decay(description: OptimizerDescription) -> tuple[bool, float]:
    rate = description.hyper_parameters.get("weight_decay_rate", 0.0)
    return description.name == "LAMB", rate


def _same(one: OptimizerDescription, other: OptimizerDescription) -> bool:
    return (one.name, one.hyper_parameters) == (other.name, other.hyper_parameters)


def _exempt(one: OptimizerDescription, other: OptimizerDescription) -> bool:
    """Whether `one` is `other` without its weight decay."""
    if other.name not in (one.name, _EXEMPT.get(one.name)) or _decay(one)[1]:
        return False
    numbers = {**one.hyper_parameters, "weight_decay_rate": _decay(other)[1]}
    return bool(numbers == other.hyper_parameters)


def join(
    one: OptimizerDescription, other: OptimizerDescription
) -> OptimizerDescription:
    """One optimizer of two that have all numbers in common.

    Args:
        one: The optimizer that gives the numbers.
        other: The other one.

    Returns:
        The optimizer of the variables of both.
    """
    return dataclasses.replace(
        one,
        slots=one.slots | other.slots,
        variables=one.variables + other.variables,
        sparse=one.sparse + other.sparse,
        gradients=one.gradients | other.gradients,
        powers=one.powers or other.powers,
        updates=one.updates | other.updates,
        excluded=one.excluded + other.excluded,
    )
