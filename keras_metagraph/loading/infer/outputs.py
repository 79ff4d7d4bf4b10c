"""Finds the tensors that a graph predicts.

Where it has labels, the predictions are what meets them in the loss, and what is
computed from that and used no further. Where it has none, they are what the last
weights give, or what nothing uses.
"""

import functools
from collections import deque
from collections.abc import Callable, Collection, Iterable, Sequence

import tensorflow as tf

from keras_metagraph.graph import op_defs
from keras_metagraph.graph.ir import Node, TensorName
from keras_metagraph.loading.infer import naming
from keras_metagraph.loading.infer.analysis import SHAPE_OPS, GraphAnalysis
from keras_metagraph.loading.infer.dependence import Dependence
from keras_metagraph.loading.infer.roles import Roles
from keras_metagraph.loading.infer.updates import Training

# Ops by which a metric turns a prediction into something to compare with a label.
_DECISIONS = frozenset(
    "ArgMax ArgMin Cast Round Rint Greater GreaterEqual Less LessEqual Equal NotEqual "
    "TopK TopKV2 Squeeze Reshape Identity StopGradient Log Neg Maximum Minimum "
    "ClipByValue".split()
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
_NEVER = ("Assert", "NoOp", "Const", "Placeholder", "IsVariableInit", "Iterator")
_HANDLES = (tf.resource, tf.variant)


class OutputFinder:
    """Finds the outputs of a graph.

    Args:
        analysis: The graph.
        training: Its backward part.
        roles: Its inputs and labels.
        losses: What it minimizes.
        networks: Names of the variables that are trained apart from each other, where
            there are several such groups.
    """

    def __init__(
        self,
        analysis: GraphAnalysis,
        training: Training,
        roles: Roles,
        losses: Sequence[TensorName],
        networks: Sequence[Collection[str]] = (),
    ) -> None:
        self._analysis = analysis
        self._networks = networks
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
            found = self._around_losses() | found
        elif not found:
            found = self._unused()
        return {
            tensor: found[tensor]
            for tensor in sorted(found, key=lambda t: (self._order[t.node], t.index))
        }

    def _around_losses(self) -> dict[TensorName, str]:
        """The outputs of a graph that is trained."""
        met = self._met_by_labels()
        found = self._with_ends(met or self._last_weighted())
        if not met:  # what nothing uses says more than what the loss uses
            ends = set(self._ends)
            found = {t: why for t, why in found.items() if t in ends} or found
        named = [
            tensor
            for tensor in self._given_names()
            if not met or (naming.is_output(tensor.node) and "/" not in tensor.node)
        ]
        found |= dict.fromkeys(named, "has a name, and nothing uses it")
        between = dict.fromkeys(self._between_networks(), "one network gives it to another")
        return between | found

    def others(self, outputs: Iterable[TensorName]) -> list[TensorName]:
        """Tensors that nothing uses and that are not among the outputs."""
        return [tensor for tensor in self._ends if tensor not in set(outputs)]

    def is_prediction(self, tensor: TensorName) -> bool:
        """Whether a tensor can be an output: computed from inputs, not from labels."""
        node = self._nodes.get(tensor.node)
        if node is None or not self._counts(node):
            return False
        mask = self._roles.dependence[tensor]
        dtype = self._analysis.dtype(tensor)
        if dtype in _HANDLES or (dtype is None and op_defs.op_def(node.op)):
            return False
        if not self._roles.inputs:  # a graph that takes nothing
            return True
        return bool(mask & self._roles.inputs) and not mask & self._roles.labels

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
        return self._analysis.rank(tensor) == 0 or any(
            user.op == "ScalarSummary"
            for user in self._analysis.tensor_users.get(tensor, [])
        )

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
                    head = self._outside(self._before_loss(tensor, node))
                    if head is not None:
                        met.setdefault(head)
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

    def _outside(self, tensor: TensorName) -> TensorName | None:
        """The prediction that went into a loop or a branch, if it is a single one."""
        seen = {tensor}
        while tensor.node in self._analysis.in_frames | self._analysis.in_branches:
            before = {
                t
                for t in self._nodes[tensor.node].inputs
                if self._roles.dependence[t] & self._roles.trained
                and self.is_prediction(t)
            }
            if len(before) != 1 or before & seen:
                return None
            (tensor,) = before
            seen.add(tensor)
        return tensor

    def _before_loss(self, tensor: TensorName, user: Node) -> TensorName:
        """Steps back over what a loss does to a prediction before it meets labels."""
        while True:
            outside = self._outside_scope(tensor, _common_scope(tensor.node, user.name))
            if outside is not None:
                tensor = outside
                continue
            node = self._nodes[tensor.node]
            before = [t for t in node.inputs if self.is_prediction(t)]
            if len(before) != 1 or not naming.is_generic(
                self._analysis.graph, node.name
            ):
                return tensor
            if not self._is_loss_step(node, before[0], user):
                return tensor
            tensor = before[0]

    def _outside_scope(self, tensor: TensorName, scope: str) -> TensorName | None:
        """What a loss in its own scope starts from, if it is one prediction."""
        if not scope:
            return None
        inside = f"{scope}/"
        found: set[TensorName] = set()
        queue, seen = deque([tensor]), {tensor}
        while queue:
            tensor = queue.popleft()
            if not f"{tensor.node}/".startswith(inside):
                found.add(tensor)
                continue
            if tensor.node in self._roles.weighted:
                return None
            for before in self._nodes[tensor.node].inputs:
                mask = self._roles.dependence[before]
                if mask & self._roles.trained and self.is_prediction(before):
                    if before not in seen:
                        seen.add(before)
                        queue.append(before)
        return found.pop() if len(found) == 1 and len(seen) > 1 else None

    def _is_loss_step(self, node: Node, before: TensorName, user: Node) -> bool:
        """Whether a node is part of the loss rather than of the prediction."""
        if node.op in _LOSS_STEPS:
            return True
        if node.op in _LOSS_STEPS_WITH_CONSTANT:
            return all(
                t == before or not self._roles.dependence[t] for t in node.inputs
            )
        if node.op not in _RESHAPING:
            return False
        # What the user gave a name to is what the user calls the prediction.
        if not naming.is_generic(self._analysis.graph, before.node):
            return True
        # The cross entropies want two dimensions, and flatten the outer ones.
        return (
            node.op == "Reshape"
            and user.op.endswith("CrossEntropyWithLogits")
            and (
                self._nodes[node.inputs[1].node].op.startswith("Concat")
                or (self._analysis.rank(before) or 0) > 2
            )
        )

    # Without labels: what the last weights give.

    def _last_weighted(self) -> list[TensorName]:
        """What follows the last weights on each way to the loss, activations too."""
        weighted = self._roles.weighted.keys()
        before = self._analysis.ancestors(
            tensor for name in weighted for tensor in self._nodes[name].inputs
        )
        last = [
            self._through_activation(TensorName(name))
            for name in sorted(weighted - before, key=self._order.__getitem__)
        ]
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

    # Several networks: what one gives to the next.

    def _between_networks(self) -> list[TensorName]:
        """What one network computes and another one's weights are applied to.

        A generator's samples, an actor's actions.
        """
        if len(self._networks) < 2:
            return []
        bits = {
            TensorName(name): 1 << place
            for place, names in enumerate(self._networks)
            for name in names
        }
        networks = Dependence(self._analysis, bits)
        goes_on = self._analysis.ancestors(map(TensorName, self._roles.weighted))
        passed: dict[TensorName, None] = {}
        for name in sorted(
            self._loss_nodes & goes_on, key=self._order.__getitem__
        ):
            mask = networks.node(name)
            for tensor in self._nodes[name].inputs:
                own = networks[tensor]
                if own and own & mask == own != mask and self.is_prediction(tensor):
                    passed.setdefault(self._before_joining(tensor, networks))
        tensors = [self._outside(t) for t in passed if not self._is_scalar(t)]
        return self._earliest([t for t in tensors if t is not None])

    def _before_joining(self, tensor: TensorName, networks: Dependence) -> TensorName:
        """Steps back over what joins a prediction with other data for the next."""
        while True:
            node = self._nodes[tensor.node]
            before = [
                t for t in node.inputs if networks[t] and self.is_prediction(t)
            ]
            if (
                node.op not in ("Concat", "ConcatV2", "Reshape", "Identity")
                or len(before) != 1
                or not naming.is_generic(self._analysis.graph, node.name)
            ):
                return tensor
            tensor = before[0]

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
            and name not in self._analysis.in_frames
            and self.is_prediction(tensor)
            and not self._used(tensor)
            and not self._trains_only(tensor)
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

    def _trains_only(self, tensor: TensorName) -> bool:
        """Whether only an optimizer uses a tensor, to bring gradients into shape."""
        users = {u.name for u in self._analysis.tensor_users.get(tensor, [])}
        return bool(users) and users <= self._training.after - (
            self._training.backward.keys()
        )

    def _needs_labels(self, node: Node) -> bool:
        return bool(self._roles.dependence.node(node.name) & self._roles.labels)

    @functools.cached_property
    def _side_nodes(self) -> frozenset[str]:
        """What only metrics use to decide, or updates of variables to compute."""
        return self._backwards(self._feeds_writes) | self._backwards(self._decides)

    def _backwards(
        self, belongs: Callable[[Node, Collection[str]], bool]
    ) -> frozenset[str]:
        """Nodes that belong to a set, tested from the last ones backwards."""
        found: set[str] = set()
        queue = deque(reversed(self._nodes))
        while queue:
            node = self._nodes[queue.popleft()]
            if (
                node.name not in found
                and self._analysis.users[node.name]
                and self._counts(node)
                and belongs(node, found)
            ):
                found.add(node.name)
                queue.extend(t.node for t in node.inputs if t.node in self._nodes)
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
        return all(self._needs_labels(u) or u.name in found for u in users)

    def _with_ends(self, heads: list[TensorName]) -> dict[TensorName, str]:
        """The predictions that the loss is made of, and what is computed from them."""
        found: dict[TensorName, str] = {}
        for head in heads:
            later = self._analysis.reach([head.node])
            ends = [end for end in self._ends if end.node in later and end != head]
            ends = [end for end in ends if not self._is_by_product(end)] or ends
            if not ends or self._is_natural(head, ends, later):
                found[head] = "the loss compares it with the labels"
            found.update(dict.fromkeys(ends, "computed from what the loss compares"))
        return found

    def _is_by_product(self, tensor: TensorName) -> bool:
        """Whether a tensor is what a loop gives beside its results."""
        node = self._nodes[tensor.node]
        return naming.is_generic(self._analysis.graph, node.name) and (
            node.op in ("Exit", "RefExit")
            or any(
                self._nodes[t.node].op.startswith("TensorArray") for t in node.inputs
            )
        )

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
        chosen = dict.fromkeys([*named, *self._given_names()]) or self._ends
        found = dict.fromkeys(chosen, "nothing uses it")
        for tensor in chosen:  # a class, and the scores that it is decided by
            node = self._nodes[tensor.node]
            if node.op in ("ArgMax", "Round", "Greater", "GreaterEqual"):
                scores = [t for t in node.inputs if self.is_prediction(t)]
                found |= dict.fromkeys(scores[:1], f"{tensor} is decided by it")
        return found

    def _given_names(self) -> list[TensorName]:
        """What nothing uses, though a user gave it a name."""
        return [
            tensor
            for tensor in self._ends
            if not naming.is_generic(self._analysis.graph, tensor.node)
            and (not self._losses or self._roles.dependence[tensor] & self._roles.trained)
        ]


def _common_scope(name: str, other: str) -> str:
    """The innermost name scope that two nodes lie in."""
    common = []
    for part, match in zip(name.split("/"), f"{other}/".split("/"), strict=False):
        if part != match:
            break
        common.append(part)
    return "/".join(common)
