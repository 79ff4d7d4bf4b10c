"""Takes the branch that a known predicate chooses.

Whether a graph trains or not is a feed; once it is a constant, half of the conditions
of a training graph are no conditions any more. What only the other branch needs (the
labels, say) is then not needed at all.
"""

import dataclasses
import operator
from collections.abc import Callable
from typing import Any

import numpy as np
import tensorflow as tf

from keras_metagraph.graph import walk
from keras_metagraph.graph.ir import Graph, Node, TensorName
from keras_metagraph.graph.passes import build
from keras_metagraph.graph.passes.result import PassResult

_SWITCHES = {"Switch", "RefSwitch"}
_MERGES = {"Merge", "RefMerge"}
_SAME = {"Identity", "PlaceholderWithDefault", "StopGradient"}
_FUNCTIONS: dict[str, Callable[..., Any]] = {
    "Equal": operator.eq,
    "Greater": operator.gt,
    "GreaterEqual": operator.ge,
    "Less": operator.lt,
    "LessEqual": operator.le,
    "LogicalAnd": np.logical_and,
    "LogicalNot": np.logical_not,
    "LogicalOr": np.logical_or,
    "NotEqual": operator.ne,
}
_IFS = {"If", "StatelessIf"}


def fold_conditions(graph: Graph) -> PassResult:
    """Folds `Switch`, `Merge` and `If` on predicates that constants decide.

    Nodes that cannot run any more stay in the graph, but nothing that runs needs them.
    """
    return _Folding(graph).run()


class _Folding:
    """One run of the pass."""

    def __init__(self, graph: Graph) -> None:
        self._graph = graph
        self._rewriter = build.Rewriter(graph)
        self._known: dict[TensorName, Any] = {}
        self._dead: set[TensorName] = set()
        self._dead_nodes: set[str] = set()
        self._moved: dict[TensorName, TensorName] = {}

    def run(self) -> PassResult:
        if not any(
            node.op in _SWITCHES or node.op in _IFS
            for node in self._graph.nodes.values()
        ):
            return PassResult(self._graph, False)
        for node in walk.schedule(self._graph, loops=True):
            self._visit(node)
        self._rewire()
        return PassResult(self._rewriter.graph(), self._rewriter.modified)

    def _visit(self, node: Node) -> None:
        if node.op in _MERGES:
            self._merge(node)
        elif self._is_dead(node):
            self._dead_nodes.add(node.name)
        elif node.op in _SWITCHES:
            self._switch(node)
        elif node.op in _IFS and node.inputs[0] in self._known:
            self._choose(node)
        else:
            self._evaluate(node)

    def _is_dead(self, node: Node) -> bool:
        return any(
            tensor in self._dead or tensor.node in self._dead_nodes
            for tensor in node.inputs
        ) or not self._dead_nodes.isdisjoint(node.control_inputs)

    def _alive(self, tensor: TensorName) -> bool:
        return tensor not in self._dead and tensor.node not in self._dead_nodes

    def _switch(self, node: Node) -> None:
        if node.inputs[1] not in self._known:
            return
        taken = int(bool(self._known[node.inputs[1]]))
        data = node.inputs[0]
        self._dead.add(TensorName(node.name, 1 - taken))
        self._moved[TensorName(node.name, taken)] = data
        if data in self._known:
            self._known[TensorName(node.name, taken)] = self._known[data]
        op = "RefIdentity" if node.op == "RefSwitch" else "Identity"
        self._rewriter.replace(
            Node(node.name, op, [data], list(node.control_inputs), dict(node.attrs))
        )

    def _merge(self, node: Node) -> None:
        closes = [
            tensor.node in self._graph.nodes
            and self._graph.nodes[tensor.node].op in walk.BACK_EDGES
            for tensor in node.inputs
        ]
        alive = [
            place
            for place, tensor in enumerate(node.inputs)
            if self._alive(tensor) and not closes[place]
        ]
        dead_controls = not self._dead_nodes.isdisjoint(node.control_inputs)
        if not alive or dead_controls:
            self._dead_nodes.add(node.name)
        elif len(alive) == 1 and len(node.inputs) > 1 and not any(closes):
            tensor = node.inputs[alive[0]]
            self._moved[TensorName(node.name, 0)] = tensor
            self._known[TensorName(node.name, 1)] = np.int32(alive[0])
            if tensor in self._known:
                self._known[TensorName(node.name, 0)] = self._known[tensor]
            self._replace_merge(node, alive[0])

    def _replace_merge(self, node: Node, place: int) -> None:
        """Leaves a copy of the one live input under the name of the merge."""
        reference = node.op == "RefMerge"
        attrs = {"T": node.attrs["T"]}
        self._rewriter.replace(
            Node(
                node.name,
                "RefIdentity" if reference else "Identity",
                [node.inputs[place]],
                list(node.control_inputs),
                attrs,
            )
        )
        index = build.const_node(f"{node.name}/value_index", place, build.INT32)
        self._moved[TensorName(node.name, 1)] = self._rewriter.add(index)

    def _choose(self, node: Node) -> None:
        """Calls the chosen branch of an `If`."""
        chosen = bool(self._known[node.inputs[0]])
        branch = node.attrs["then_branch" if chosen else "else_branch"].func
        self._rewriter.replace(
            Node(
                node.name,
                branch.name,
                node.inputs[1:],
                list(node.control_inputs),
                dict(branch.attr),
            )
        )

    def _evaluate(self, node: Node) -> None:
        output = TensorName(node.name)
        if node.op == "Const":
            tensor = node.attrs["value"].tensor
            if not tensor.tensor_shape.dim:
                self._known[output] = tf.make_ndarray(tensor)[()]
        elif node.op in _SAME or (node.op == "Enter" and _is_constant(node)):
            if node.inputs[0] in self._known:
                self._known[output] = self._known[node.inputs[0]]
        elif node.op in _FUNCTIONS and all(t in self._known for t in node.inputs):
            values = [self._known[tensor] for tensor in node.inputs]
            self._known[output] = np.bool_(_FUNCTIONS[node.op](*values))

    def _rewire(self) -> None:
        """Sends what took a chosen branch's output to where it comes from."""
        if not self._moved:
            return
        for node in list(self._rewriter.nodes.values()):
            inputs = [self._follow(tensor) for tensor in node.inputs]
            if inputs != node.inputs:
                self._rewriter.replace(dataclasses.replace(node, inputs=inputs))

    def _follow(self, tensor: TensorName) -> TensorName:
        while tensor in self._moved and not self._kept(tensor):
            tensor = self._moved[tensor]
        return tensor

    def _kept(self, tensor: TensorName) -> bool:
        """Whether the tensor still exists: the value of a merge does."""
        return tensor.index == 0 and self._graph.nodes[tensor.node].op in _MERGES


def _is_constant(enter: Node) -> bool:
    return "is_constant" in enter.attrs and bool(enter.attrs["is_constant"].b)
