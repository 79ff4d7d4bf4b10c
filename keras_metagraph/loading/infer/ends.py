"""Finds the ends of a graph: predictions that nothing else is computed from."""

import functools
from collections import deque
from collections.abc import Callable, Collection, Sequence

from keras_metagraph.graph.ir import Node, TensorName
from keras_metagraph.loading.infer import naming
from keras_metagraph.loading.infer.analysis import SHAPE_OPS
from keras_metagraph.loading.infer.predictions import Predictions

# Ops by which a metric turns a prediction into something to compare with a label.
# fmt: off
_DECISIONS = frozenset({
    "ArgMax", "ArgMin", "Cast", "ClipByValue", "Equal", "Greater", "GreaterEqual",
    "Identity", "Less", "LessEqual", "Log", "Maximum", "Minimum", "Neg", "NotEqual",
    "Reshape", "Rint", "Round", "Squeeze", "StopGradient", "TopK", "TopKV2",
})
# fmt: on
_EXITS = ("Exit", "RefExit")


class Ends:
    """The ends of a graph.

    Args:
        predictions: The predictions of the graph.
    """

    def __init__(self, predictions: Predictions) -> None:
        self._predictions = predictions
        self._analysis = predictions.analysis
        self._loss_nodes = frozenset(predictions.loss_nodes)

    @functools.cached_property
    def all(self) -> list[TensorName]:
        """Predictions that only summaries, metrics, updates and the like use.

        Single numbers are among them only where a graph that is not trained has
        nothing else: most are statistics for a summary.
        """
        several = [t for t in self._found if not self._predictions.is_scalar(t)]
        return several or ([] if self._predictions.losses else self._found)

    @functools.cached_property
    def _found(self) -> list[TensorName]:
        ends = [
            tensor
            for name in self._predictions.nodes
            if name not in self._loss_nodes
            and name not in self._side_nodes
            and name not in self._analysis.in_frames
            for tensor in self._analysis.output_tensors[name]
            if tensor in self._predictions and self._is_end(tensor)
        ]
        return [t for t in ends if t.node not in self._analysis.in_branches] or ends

    @property
    def named(self) -> list[TensorName]:
        """Those that a user gave a name."""
        return [t for t in self.all if not self._predictions.is_generic(t)]

    def following(self, tensor: TensorName) -> list[TensorName]:
        """The ends that are computed from a tensor; not what loops give beside."""
        later = self._analysis.reach([tensor.node])
        ends = [end for end in self.all if end.node in later and end != tensor]
        return self.without_by_products(ends)

    def without_by_products(self, ends: Sequence[TensorName]) -> list[TensorName]:
        """Ends that are no states which loops leave beside what they are run for.

        Args:
            ends: Some of the ends.

        Returns:
            The others; where there are none, what loops give of which nothing is used.
        """
        kept = [end for end in ends if not self._is_by_product(end)]
        return kept or [end for end in ends if not self._is_beside(end)]

    def _is_end(self, tensor: TensorName) -> bool:
        users = self._analysis.tensor_users.get(tensor, [])
        if any(self._uses(user) for user in users):
            return False
        # An optimizer's way of bringing gradients into shape is no end.
        names = {user.name for user in users}
        training = self._predictions.training
        return not names or not names <= training.after - training.backward.keys()

    def _uses(self, node: Node) -> bool:
        """Whether a node computes something from what it takes."""
        return (
            self._predictions.counts(node)
            and node.op not in SHAPE_OPS
            and node.name not in self._side_nodes
            and not self._predictions.needs_labels(node)
        )

    def _is_by_product(self, tensor: TensorName) -> bool:
        """Whether a tensor is a state that a loop leaves, or its outputs unnamed."""
        node = self._predictions.nodes[tensor.node]
        return self._predictions.is_generic(tensor) and (
            node.op in _EXITS
            or any(
                self._predictions.nodes[t.node].op.startswith("TensorArray")
                for t in node.inputs
            )
        )

    def _is_beside(self, tensor: TensorName) -> bool:
        """Whether a loop leaves a tensor that is used for what else it gives."""
        node = self._predictions.nodes[tensor.node]
        if node.op not in _EXITS:
            return False
        return any(
            self._uses(user)
            for switch in self._exits_of(node)
            for user in self._analysis.tensor_users.get(TensorName(switch.name), [])
        )

    def _exits_of(self, node: Node) -> list[Node]:
        """What else the loop gives that an exit belongs to."""
        condition = self._condition(node)
        users = self._analysis.users.get(condition or "", [])
        return [
            exit_node
            for switch in users
            for exit_node in self._analysis.users[switch.name]
            if exit_node.op in _EXITS and exit_node.name != node.name
        ]

    def _condition(self, node: Node) -> str | None:
        """The `LoopCond` of the loop that an exit belongs to."""
        switch = self._predictions.nodes.get(node.inputs[0].node)
        return switch.inputs[1].node if switch and len(switch.inputs) > 1 else None

    @functools.cached_property
    def _side_nodes(self) -> frozenset[str]:
        """What only metrics use to decide, or updates of variables to compute."""
        return self._backwards(self._feeds_writes) | self._backwards(self._decides)

    def _backwards(
        self, belongs: Callable[[Node, Collection[str]], bool]
    ) -> frozenset[str]:
        """Nodes that belong to a set, tested from the last ones backwards."""
        nodes = self._predictions.nodes
        found: set[str] = set()
        queue = deque(reversed(nodes))
        while queue:
            node = nodes[queue.popleft()]
            if (
                node.name not in found
                and self._analysis.users[node.name]
                and self._predictions.counts(node)
                and belongs(node, found)
            ):
                found.add(node.name)
                queue.extend(t.node for t in node.inputs if t.node in nodes)
        return frozenset(found)

    def _feeds_writes(self, node: Node, found: Collection[str]) -> bool:
        users = self._analysis.users[node.name]
        return all(self._analysis.is_write(u) or u.name in found for u in users)

    def _decides(self, node: Node, found: Collection[str]) -> bool:
        if node.op not in _DECISIONS or (
            naming.is_output(node.name)
            and not naming.is_generic(self._analysis.graph, node.name)
        ):
            return False
        users = self._analysis.users[node.name]
        return all(self._predictions.needs_labels(u) or u.name in found for u in users)
