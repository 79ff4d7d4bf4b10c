"""Which tensors of a graph can be predictions."""

import functools
from collections.abc import Iterable, Sequence

import tensorflow as tf

from keras_metagraph.graph import op_defs
from keras_metagraph.graph.ir import Node, TensorName
from keras_metagraph.loading.infer import naming
from keras_metagraph.loading.infer.analysis import GraphAnalysis
from keras_metagraph.loading.infer.roles import Roles
from keras_metagraph.loading.infer.updates import Training

_NEVER = ("Assert", "NoOp", "Const", "Placeholder", "IsVariableInit", "Iterator")
_HANDLES = (tf.resource, tf.variant)


class Predictions:
    """What is computed from the inputs of a graph, and not from its labels.

    Args:
        analysis: The graph.
        training: Its backward part.
        roles: Its inputs and labels.
        losses: What it minimizes.

    Attributes:
        analysis: The graph.
        nodes: Its nodes by name.
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
        self.analysis = analysis
        self.nodes = analysis.graph.nodes
        self.training = training
        self.roles = roles
        self.losses = list(losses)
        self._order = {name: place for place, name in enumerate(self.nodes)}

    @functools.cached_property
    def loss_nodes(self) -> list[str]:
        """The nodes that the losses need, in the order of the file."""
        names = self.analysis.ancestors(self.losses) - self.training.backward.keys()
        return sorted(names, key=self._order.__getitem__)

    def __contains__(self, tensor: TensorName) -> bool:
        """Whether a tensor is computed from inputs, and not from labels."""
        if not self.can_be_named(tensor):
            return False
        mask = self.roles.dependence[tensor]
        # A graph may take nothing.
        return bool(mask & self.roles.inputs) or not self.roles.inputs

    def can_be_named(self, tensor: TensorName) -> bool:
        """Whether a tensor can be an output if somebody says that it is one."""
        node = self.nodes.get(tensor.node)
        if node is None or not self.counts(node):
            return False
        dtype = self.analysis.dtype(tensor)
        if dtype in _HANDLES or (dtype is None and op_defs.op_def(node.op)):
            return False
        return not self.roles.dependence[tensor] & self.roles.labels

    def counts(self, node: Node) -> bool:
        """Whether a node belongs to the forward computation."""
        return not (
            node.op.startswith(_NEVER)
            or node.name in self.training.after
            or node.name in self.analysis.saver_nodes
            or self.analysis.is_summary(node)
            or self.analysis.is_write(node)
        )

    def is_trained(self, tensor: TensorName) -> bool:
        """Whether a tensor depends on the trained variables."""
        return bool(self.roles.dependence[tensor] & self.roles.trained)

    def needs_labels(self, node: Node) -> bool:
        """Whether a node depends on labels."""
        return bool(self.roles.dependence.node(node.name) & self.roles.labels)

    def is_scalar(self, tensor: TensorName) -> bool:
        """Whether a tensor is one number, as far as the file tells."""
        return self.analysis.rank(tensor) == 0 or any(
            user.op == "ScalarSummary"
            for user in self.analysis.tensor_users.get(tensor, [])
        )

    def is_generic(self, tensor: TensorName) -> bool:
        """Whether TensorFlow named a tensor, not a user."""
        return naming.is_generic(self.analysis.graph, tensor.node)

    def before(self, tensor: TensorName) -> list[TensorName]:
        """The predictions that a tensor is computed from."""
        return [t for t in self.nodes[tensor.node].inputs if t in self]

    def sort(self, tensors: Iterable[TensorName]) -> list[TensorName]:
        """Tensors in the order of the file."""
        return sorted(tensors, key=lambda t: (self._order[t.node], t.index))

    def earliest(
        self, tensors: Iterable[TensorName], *, before_weights: bool = False
    ) -> list[TensorName]:
        """The tensors that are not computed from others among them.

        Args:
            tensors: Some predictions.
            before_weights: Whether those remain that weights are applied for.
        """
        followed = set(self.loss_nodes)
        if before_weights:
            followed -= self.roles.weighted.keys()
        later = {
            tensor: self.analysis.reach([tensor.node], within=followed)
            for tensor in tensors
        }
        return [
            tensor
            for tensor in later
            if not any(
                tensor.node in names and tensor.node != other.node
                for other, names in later.items()
            )
        ]
