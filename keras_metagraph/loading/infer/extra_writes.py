"""What a training step does to weights beside the update of the optimizer."""

import dataclasses
from collections.abc import Collection, Mapping
from typing import Any

import numpy as np
import tensorflow as tf

from keras_metagraph.errors import MetaGraphError
from keras_metagraph.graph.ir import TensorName
from keras_metagraph.loading.infer.assigned import rows_of
from keras_metagraph.loading.infer.optimizers import OptimizerDescription
from keras_metagraph.loading.infer.schedule_fit import shortest
from keras_metagraph.loading.infer.scratch import Scratch, corner, loose_part
from keras_metagraph.loading.infer.updates import Training


@dataclasses.dataclass(frozen=True)
class ExtraWrites:
    """What else a training step does to the variables of an optimizer.

    Attributes:
        decay: The part that is taken away from each weight, as
            `DecoupledWeightDecayExtension` of `tf.contrib.opt` does it; 0 if none is.
        decayed: Names of the variables from which it is taken.
        findings: What else is done before the update. What is done after it (weights
            that are clipped, averages) is left to the graph.
    """

    decay: float = 0.0
    decayed: tuple[str, ...] = ()
    findings: tuple[str, ...] = ()


def extra_writes(
    training: Training,
    description: OptimizerDescription,
    run: Collection[str],
    values: Mapping[str, Any],
    feeds: Mapping[str, Any],
) -> ExtraWrites:
    """Finds what writes the variables of an optimizer, beside its updates.

    Args:
        training: The backward part of the graph.
        description: The optimizer.
        run: Names of the nodes that a training step runs.
        values: Arrays by variable name.
        feeds: Values of placeholders in training, by tensor name.

    Returns:
        Weight decay, and what is not known.
    """
    analysis = training.analysis
    own = {name for names in description.updates.values() for name in names}
    skipped = {v.initializer for v in analysis.variables.values()} | own
    before = analysis.ancestors(TensorName(name) for name in own)
    decays: dict[str, float] = {}
    findings = []
    for name, variable in analysis.writes.items():
        if variable not in description.updates or name in skipped:
            continue
        if name not in run or name not in before:
            continue
        try:
            decays[variable] = _decay(training, name, variable, values, feeds)
        except (MetaGraphError, tf.errors.OpError, ValueError, _OtherError):
            op = analysis.graph.nodes[name].op
            findings.append(f"not carried: {name} ({op}) writes {variable}, too")
    # The number that the program had is the shortest.
    rates = sorted(set(decays.values()), key=lambda rate: len(str(rate)))
    if not np.allclose(rates, rates[:1], rtol=1e-3):
        findings.append(f"not carried: weights decay by different parts, {decays}")
    return ExtraWrites(rates[0] if rates else 0.0, tuple(decays), tuple(findings))


class _OtherError(Exception):
    """A write is no weight decay."""


def _decay(
    training: Training,
    name: str,
    variable: str,
    values: Mapping[str, Any],
    feeds: Mapping[str, Any],
) -> float:
    """The part of a weight that a write takes away."""
    graph = training.analysis.graph
    nodes = _cone(training, name)
    rows = rows_of(training, nodes)
    weight = corner(values[variable])
    count = min(3, *weight.shape[:1]) if rows.indices else len(np.atleast_1d(weight))
    fed: dict[str, Any] = {str(tensor): np.arange(count) for tensor in rows.indices}
    fed |= {str(tensor): np.array(weight.shape) for tensor in rows.shapes}
    scratch = Scratch(
        loose_part(graph, nodes),
        list(training.analysis.variables),
        {**values, variable: weight},
    )
    found = []
    for size in (1.0, 100.0):
        before = np.linspace(-size, 2 * size, weight.size).reshape(weight.shape)
        before = before.astype(weight.dtype)
        scratch.run([name], {**feeds, **fed}, {variable: before})
        after = scratch.value(variable)
        lost = np.atleast_1d(before - after)[:count]
        rest = np.atleast_1d(before)[:count].astype(np.float64)
        part_lost = float(np.sum(lost * rest) / np.sum(rest**2))
        if not np.allclose(lost, part_lost * rest, atol=1e-6 * size):
            raise _OtherError
        found.append(part_lost)
    if not np.allclose(found, found[0], rtol=1e-3) or not 0 < found[0] < 1:
        raise _OtherError
    return _near(training, nodes, found[0])


def _near(training: Training, nodes: Collection[str], value: float) -> float:
    """The number of the graph that a measured one is."""
    constants = [training.analysis.constant(TensorName(name)) for name in nodes]
    near = [c for c in constants if c and abs(c - value) <= 1e-3 * abs(value)]
    return float(near[0]) if near else shortest(value)


def _cone(training: Training, name: str) -> set[str]:
    """The nodes that a write needs, without the backward part of the graph."""
    seen: set[str] = set()
    stack = [name]
    while stack:
        current = stack.pop()
        if current not in seen:
            seen.add(current)
            inputs = training.analysis.graph.nodes[current].inputs
            stack += [t.node for t in inputs if t.node not in training.backward]
    return seen
