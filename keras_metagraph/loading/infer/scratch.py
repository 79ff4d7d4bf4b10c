"""Runs parts of a graph on copies of its variables, to see what they compute."""

import dataclasses
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from keras_metagraph.errors import MissingVariableError
from keras_metagraph.graph.ir import Graph, Node, TensorName
from keras_metagraph.graph.passes.repair_attributes import RECORDED_SHAPES
from keras_metagraph.graph.variables import VARIABLE_OPS
from keras_metagraph.session.executor import SessionExecutor, cone

_EDGE = 6


def corner(array: Any) -> Any:
    """A small part of an array: updates do the same to each element.

    Args:
        array: A weight.

    Returns:
        The first elements along each axis.
    """
    array = np.asarray(array)
    return array[tuple(slice(0, _EDGE) for _ in array.shape)]


def loose_part(graph: Graph, names: Collection[str]) -> Graph:
    """The nodes of a graph, free to run on other shapes and without all others.

    Args:
        graph: A graph.
        names: Names of nodes; what they take from others is fed.

    Returns:
        The nodes, which wait for nobody outside and have no recorded shapes.
    """
    nodes: dict[str, Node] = {}
    for name, node in graph.nodes.items():
        if name in names:
            controls = [other for other in node.control_inputs if other in names]
            nodes[name] = dataclasses.replace(node, control_inputs=controls)
    # What is fed must be there, as it is named.
    for name in {t.node for n in nodes.values() for t in n.inputs} - nodes.keys():
        nodes[name] = dataclasses.replace(
            graph.nodes[name], inputs=[], control_inputs=[]
        )
    for name, node in nodes.items():
        attrs = {k: v for k, v in node.attrs.items() if k != RECORDED_SHAPES}
        nodes[name] = dataclasses.replace(node, attrs=attrs)
    return Graph(nodes, graph.functions, graph.producer)


def branch_conditions(graph: Graph, names: Collection[str]) -> set[str]:
    """What makes constants run only in the branch that is taken.

    Without it both constants of `tf.cond(step < 10, lambda: 0.1, lambda: 0.01)` would
    be there, and the first one win.

    Args:
        graph: A graph.
        names: Names of nodes.

    Returns:
        Names of the nodes that decide about some of them, where these need nothing
        but variables.
    """
    found: set[str] = set()
    for name in names:
        for control in graph.nodes[name].control_inputs:
            pivot = graph.nodes[control]
            if control in found or pivot.op != "Identity" or control in names:
                continue
            switch = graph.nodes[pivot.inputs[0].node]
            if switch.op != "Switch":
                continue
            before = graph.ancestors([switch.name])
            ends = (n for n in map(graph.nodes.__getitem__, before) if not n.inputs)
            if all(end.op in VARIABLE_OPS or end.op == "Const" for end in ends):
                found |= {control, *before}
    return found


class Scratch:
    """A graph with copies of those of its variables that a run needs.

    Args:
        graph: A repaired graph.
        variables: Names of its variables.
        values: Arrays by variable name.
    """

    def __init__(
        self, graph: Graph, variables: Sequence[str], values: Mapping[str, Any]
    ) -> None:
        self._names = frozenset(variables)
        self._values = values
        self._executor = SessionExecutor(graph, {})

    def run(
        self,
        fetches: Sequence[str],
        feeds: Mapping[str, Any] | None = None,
        state: Mapping[str, Any] | None = None,
    ) -> list[Any]:
        """Runs tensors and operations once.

        Args:
            fetches: Names of tensors (`name:index`) and operations.
            feeds: Values by tensor name; those of tensors elsewhere do not matter.
            state: Values that variables have before the run.

        Returns:
            An array for each tensor, `None` for operations.

        Raises:
            MissingVariableError: If a variable that is needed has no value.
            SignatureError: If a placeholder that is needed is not fed.
            UntrustedContentError: If the fetches need ops that are not run.
        """
        nodes = self._executor.graph.nodes
        feeds = {
            name: value
            for name, value in (feeds or {}).items()
            if TensorName.parse(name).node in nodes
        }
        self._make(fetches, feeds, state or {})
        for name, value in (state or {}).items():
            if name in self._executor.variables:
                self._executor.variables[name].assign(value)
        found: list[Any] = self._executor.run(list(fetches), feeds)
        return found

    def value(self, variable: str) -> Any:
        """The value that a variable has after the last run."""
        return self._executor.variables[variable].numpy()

    def reset(self) -> None:
        """Gives all copies the values that they began with."""
        for name, variable in self._executor.variables.items():
            if name in self._values:
                variable.assign(self._values[name])

    def _make(
        self, fetches: Sequence[str], feeds: Mapping[str, Any], state: Mapping[str, Any]
    ) -> None:
        roots = [TensorName.parse(name) for name in fetches]
        fed = {TensorName.parse(name) for name in feeds}
        names, _ = cone(self._executor.graph, roots, fed)
        wanted = sorted(names & self._names - self._executor.variables.keys())
        missing = [n for n in wanted if n not in self._values and n not in state]
        if missing:
            raise MissingVariableError(
                "Variables that the graph's training reads have no value:",
                findings=missing,
                fix="load a checkpoint that has them.",
            )
        for name in wanted:
            value = np.asarray(state.get(name, self._values.get(name)))
            self._executor.variables[name] = tf.Variable(value, trainable=False)
