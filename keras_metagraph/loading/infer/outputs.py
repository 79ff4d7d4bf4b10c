"""Finds the tensors that a graph predicts.

Where it has labels, the predictions are what meets them in the loss, and what is
computed from that and used no further. Where it has none, they are what the last
weights give, or what nothing uses.
"""

import functools
from collections import deque
from collections.abc import Iterable, Sequence

import tensorflow as tf

from keras_metagraph.graph.ir import Node, TensorName
from keras_metagraph.loading.infer import naming
from keras_metagraph.loading.infer.analysis import SHAPE_OPS, GraphAnalysis
from keras_metagraph.loading.infer.roles import Roles
from keras_metagraph.loading.infer.updates import Training

# Ops by which a metric turns a prediction into something to compare with a label.
_DECISIONS = frozenset(
    "ArgMax ArgMin Cast Round Rint Greater GreaterEqual Less LessEqual Equal NotEqual "
    "TopK TopKV2 Squeeze Reshape ToInt32 ToInt64 Identity StopGradient".split()
)
# Ops by which a loss prepares a prediction.
_LOSS_STEPS = frozenset({"Log", "Log1p", "Neg", "LogSoftmax", "StopGradient"})
_LOSS_STEPS_WITH_CONSTANT = frozenset(
    {"Maximum", "Minimum", "ClipByValue", "Add", "AddV2", "Sub", "Mul"}
)
_RESHAPING = frozenset({"Reshape", "Cast", "Identity", "Squeeze", "ExpandDims", "Pack"})
_ELEMENTWISE = frozenset(
    "Relu Relu6 Elu Selu LeakyRelu Sigmoid Tanh Softmax LogSoftmax Softplus Identity "
    "BiasAdd Add AddV2 Reshape Squeeze Exp Mul Merge".split()
)
_NEVER = ("Assert", "NoOp", "Const", "Placeholder", "IsVariableInitialized")
_HANDLES = (tf.resource, tf.variant)


class OutputFinder:
    """Finds the outputs of a graph.

    Args:
        analysis: The graph.
        training: Its backward part.
        roles: Its inputs and labels.
        losses: What it minimizes.
    """

    def __init__(
        self,
        analysis: GraphAnalysis,
        training: Training,
        roles: Roles,
        losses: Sequence[TensorName],
    ) -> None:
        self._analysis = analysis
        self._nodes = analysis.graph.nodes
        self._order = {name: place for place, name in enumerate(self._nodes)}
        self._training = training
        self._roles = roles
        self._losses = list(losses)
        self._loss_nodes = (
            analysis.ancestors(losses) - training.backward.keys() if losses else set()
        )

    def find(self, given: Iterable[TensorName] = ()) -> dict[TensorName, str]:
        """Finds the outputs, each with the reason.

        Args:
            given: Tensors that collections name.

        Returns:
            The reason by tensor, in the order of the file.
        """
        found = {
            tensor: "a collection names it"
            for tensor in given
            if self.is_prediction(tensor) and not self._is_scalar(tensor)
        }
        if self._losses:
            heads = self._met_by_labels() or self._last_weighted()
            found = self._with_ends(heads) | found
        elif not found:
            found = self._unused()
        return {
            tensor: found[tensor]
            for tensor in sorted(found, key=lambda t: (self._order[t.node], t.index))
        }

    def others(self, outputs: Iterable[TensorName]) -> list[TensorName]:
        """Tensors that nothing uses and that are not among the outputs."""
        return [tensor for tensor in self._ends if tensor not in set(outputs)]

    def is_prediction(self, tensor: TensorName) -> bool:
        """Whether a tensor can be an output: computed from inputs, not from labels."""
        node = self._nodes.get(tensor.node)
        if node is None or not self._counts(node):
            return False
        mask = self._roles.dependence[tensor]
        return (
            bool(mask & self._roles.inputs)
            and not mask & self._roles.labels
            and tensor.node not in self._analysis.in_frames
            and self._analysis.dtype(tensor) not in _HANDLES
        )

    def _counts(self, node: Node) -> bool:
        """Whether a node belongs to the forward computation."""
        return not (
            node.op.startswith(_NEVER)
            or node.name in self._training.after
            or node.name in self._analysis.saver_nodes
            or self._analysis.is_summary(node)
            or self._analysis.is_write(node)
        )

    def _is_scalar(self, tensor: TensorName) -> bool:
        return self._analysis.rank(tensor) == 0

    # With labels: what meets them.

    def _met_by_labels(self) -> list[TensorName]:
        """The predictions that labels are compared with, the earliest on each way."""
        dependence, roles = self._roles.dependence, self._roles
        met: dict[TensorName, None] = {}
        for name in sorted(self._loss_nodes, key=self._order.__getitem__):
            node = self._nodes[name]
            if not dependence.node(name) & roles.labels:
                continue
            for tensor in node.inputs:
                if dependence[tensor] & roles.trained and self.is_prediction(tensor):
                    met.setdefault(self._before_loss(tensor, node))
        tensors = [t for t in met if not self._is_scalar(t)] or list(met)
        return self._earliest(tensors)

    def _earliest(self, tensors: list[TensorName]) -> list[TensorName]:
        kept = []
        for tensor in tensors:
            later = self._analysis.reach([tensor.node], within=self._loss_nodes)
            kept.append((tensor, later))
        return [
            tensor
            for tensor, _ in kept
            if not any(
                tensor.node in later and tensor.node != other.node
                for other, later in kept
            )
        ]

    def _before_loss(self, tensor: TensorName, user: Node) -> TensorName:
        """Steps back over what a loss does to a prediction before it meets labels."""
        while True:
            node = self._nodes[tensor.node]
            before = [t for t in node.inputs if self.is_prediction(t)]
            if len(before) != 1 or not naming.is_generic(
                self._analysis.graph, node.name
            ):
                return tensor
            constant = all(
                t == before[0] or not self._roles.dependence[t] for t in node.inputs
            )
            scope = node.name.rpartition("/")[0]
            inside = scope and f"{user.name}/".startswith(f"{scope}/")
            own = inside and not before[0].node.startswith(f"{scope}/")
            if not (
                node.op in _LOSS_STEPS
                or (node.op in _LOSS_STEPS_WITH_CONSTANT and constant)
                or (node.op in _RESHAPING and own)
            ):
                return tensor
            tensor = before[0]

    # Without labels: what the last weights give.

    def _last_weighted(self) -> list[TensorName]:
        """What follows the last weights on each way to the loss, activations too."""
        weighted = self._roles.weighted.keys()
        last = []
        for name in sorted(weighted, key=self._order.__getitem__):
            later = self._analysis.reach([name], within=self._roles.forward)
            if later & weighted == {name}:
                last.append(self._through_activation(TensorName(name)))
        return [t for t in dict.fromkeys(last) if self.is_prediction(t)]

    def _through_activation(self, tensor: TensorName) -> TensorName:
        while True:
            users = [
                user
                for user in self._analysis.tensor_users.get(tensor, [])
                if self._counts(user) and user.op not in SHAPE_OPS
            ]
            if len(users) != 1 or users[0].op not in _ELEMENTWISE:
                return tensor
            masks = [self._roles.dependence[t] for t in users[0].inputs if t != tensor]
            if any(mask & self._roles.inputs for mask in masks):
                return tensor
            following = TensorName(users[0].name)
            if self._is_scalar(following):
                return tensor
            tensor = following

    # What nothing uses.

    @functools.cached_property
    def _ends(self) -> list[TensorName]:
        """Predictions that nothing uses but summaries, metrics, updates and the like."""
        ends = [
            tensor
            for name in self._nodes
            for tensor in self._analysis.output_tensors[name]
            if name not in self._loss_nodes
            and name not in self._side_nodes
            and self.is_prediction(tensor)
            and not self._used(tensor)
        ]
        sure = [t for t in ends if t.node not in self._analysis.in_branches] or ends
        return [t for t in sure if not self._is_scalar(t)] or sure

    def _used(self, tensor: TensorName) -> bool:
        return any(
            self._counts(user)
            and user.op not in SHAPE_OPS
            and user.name not in self._side_nodes
            and not self._needs_labels(user)
            for user in self._analysis.tensor_users.get(tensor, [])
        )

    def _needs_labels(self, node: Node) -> bool:
        return bool(self._roles.dependence.node(node.name) & self._roles.labels)

    @functools.cached_property
    def _side_nodes(self) -> frozenset[str]:
        """What only a metric uses to decide, or an update of a variable to compute."""
        found: set[str] = set()
        queue = deque(self._nodes)
        while queue:
            node = self._nodes[queue.popleft()]
            if node.name in found or not self._is_side(node, found):
                continue
            found.add(node.name)
            queue.extend(t.node for t in node.inputs if t.node in self._nodes)
        return frozenset(found)

    def _is_side(self, node: Node, found: set[str]) -> bool:
        users = self._analysis.users[node.name]
        if not users or not self._counts(node):
            return False
        if all(self._analysis.is_write(u) or u.name in found for u in users):
            return True
        return (
            node.op in _DECISIONS
            and (
                naming.is_generic(self._analysis.graph, node.name)
                or not naming.is_output(node.name)
            )
            and all(self._needs_labels(u) or u.name in found for u in users)
        )

    def _with_ends(self, heads: list[TensorName]) -> dict[TensorName, str]:
        """The predictions that the loss is made of, and what is computed from them."""
        found: dict[TensorName, str] = {}
        for head in heads:
            later = self._analysis.reach([head.node])
            ends = [end for end in self._ends if end.node in later and end != head]
            if not ends or self._is_natural(head, ends, later):
                found[head] = "the loss compares it with the labels"
            found.update(dict.fromkeys(ends, "computed from what the loss compares"))
        return found

    def _is_natural(
        self, head: TensorName, ends: list[TensorName], later: set[str]
    ) -> bool:
        """Whether a user would ask for a tensor that others are computed from."""
        if naming.is_output(head.node) and not naming.is_generic(
            self._analysis.graph, head.node
        ):
            return True
        if (later - {head.node}) & self._roles.weighted.keys():
            return False  # the graph goes on: a state, an encoding
        scope = head.node.rpartition("/")[0]
        return not (
            scope and any(end.node.rpartition("/")[0] == scope for end in ends)
        )

    def _unused(self) -> dict[TensorName, str]:
        """What nothing uses; only what is called like outputs, if something is."""
        named = [t for t in self._ends if naming.is_output(t.node)]
        deliberate = [t for t in self._ends if self._is_deliberate(t)]
        return dict.fromkeys(
            dict.fromkeys([*named, *deliberate]) or self._ends, "nothing uses it"
        )

    def _is_deliberate(self, tensor: TensorName) -> bool:
        """Whether a user gave the node its name."""
        return not naming.is_generic(self._analysis.graph, tensor.node)
