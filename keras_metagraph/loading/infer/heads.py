"""Finds the heads of a trained graph: the tensors that its losses start from."""

from collections import deque
from collections.abc import Collection, Sequence

from keras_metagraph.graph.ir import Node, TensorName
from keras_metagraph.loading.infer.analysis import SHAPE_OPS
from keras_metagraph.loading.infer.dependence import Dependence
from keras_metagraph.loading.infer.predictions import Predictions

# Ops by which a loss prepares a prediction.
_LOSS_STEPS = frozenset(
    {"Abs", "Log", "Log1p", "Neg", "LogSoftmax", "Square", "StopGradient"}
)
_STEPS_WITH_CONSTANT = frozenset(
    {"Maximum", "Minimum", "ClipByValue", "Add", "AddV2", "Sub", "Mul", "Pow"}
)
_RESHAPING = frozenset({"Reshape", "Cast", "Identity", "Squeeze", "ExpandDims", "Pack"})
_JOINING = frozenset({"Concat", "ConcatV2", "Reshape", "Identity"})
# What may follow the last weights of a network before its output.
# fmt: off
_ACTIVATIONS = frozenset({
    "Add", "AddV2", "BiasAdd", "Elu", "Exp", "Identity", "LeakyRelu", "LogSoftmax",
    "Merge", "Mul", "Relu", "Relu6", "Reshape", "Selu", "Sigmoid", "Softmax",
    "Softplus", "Squeeze", "Tanh",
})
# fmt: on


def met_by_labels(predictions: Predictions) -> list[TensorName]:
    """The predictions that labels are compared with, the earliest on each way.

    Args:
        predictions: The predictions of the graph.

    Returns:
        Tensors outside of loops and branches; none for a graph without labels.
    """
    met: dict[TensorName, None] = {}
    for name in predictions.loss_nodes:
        node = predictions.nodes[name]
        if not predictions.needs_labels(node):
            continue
        for tensor in node.inputs:
            if predictions.is_trained(tensor) and tensor in predictions:
                head = _outside(predictions, _before_loss(predictions, tensor, node))
                if head is not None:
                    met.setdefault(head)
    tensors = [t for t in met if not predictions.is_scalar(t)] or list(met)
    return predictions.earliest(tensors)


def last_weighted(predictions: Predictions) -> list[TensorName]:
    """What follows the last weights on each way to a loss, activations too.

    Args:
        predictions: The predictions of the graph.

    Returns:
        Tensors; the reconstruction of an autoencoder, for example.
    """
    weighted = predictions.roles.weighted.keys()
    before = predictions.analysis.ancestors(
        tensor for name in weighted for tensor in predictions.nodes[name].inputs
    )
    last = predictions.sort(TensorName(name) for name in weighted - before)
    found = dict.fromkeys(_through_activation(predictions, t) for t in last)
    return [tensor for tensor in found if tensor in predictions]


def between_networks(
    predictions: Predictions, networks: Sequence[Collection[str]]
) -> list[TensorName]:
    """What one network computes and another one's weights are applied to.

    A generator's samples, an actor's actions.

    Args:
        predictions: The predictions of the graph.
        networks: Names of variables, in groups that are trained apart.

    Returns:
        Tensors; none for a single network.
    """
    if len(networks) < 2:
        return []
    bits = {
        TensorName(name): 1 << place
        for place, names in enumerate(networks)
        for name in names
    }
    owners = Dependence(predictions.analysis, bits)
    leads_to = _leading_to(predictions, owners, len(networks))
    passed: dict[TensorName, None] = {}
    for name in predictions.loss_nodes:
        mask = owners.node(name)
        following = sum(1 << place for place, led in enumerate(leads_to) if name in led)
        for tensor in predictions.nodes[name].inputs:
            own = owners[tensor]
            if own and following & mask & ~own and tensor in predictions:
                passed.setdefault(_before_joining(predictions, tensor, owners))
    tensors = [_outside(predictions, t) for t in passed if not predictions.is_scalar(t)]
    return predictions.earliest(t for t in tensors if t is not None)


def _leading_to(
    predictions: Predictions, owners: Dependence, count: int
) -> list[set[str]]:
    """For each network, the nodes from which data gets to its weights."""
    dependence, trained = predictions.roles.dependence, predictions.roles.trained
    weighted: list[list[TensorName]] = [[] for _ in range(count)]
    for name in predictions.roles.weighted:
        mask = 0
        for tensor in predictions.nodes[name].inputs:
            mask |= owners[tensor] if dependence[tensor] == trained else 0
        for place in range(count):
            if mask >> place & 1:
                weighted[place].append(TensorName(name))
    return [predictions.analysis.ancestors(tensors) for tensors in weighted]


def _outside(predictions: Predictions, tensor: TensorName) -> TensorName | None:
    """The prediction that went into a loop or a branch, if it is a single one."""
    analysis = predictions.analysis
    seen = {tensor}
    while tensor.node in analysis.in_frames or tensor.node in analysis.in_branches:
        before = {t for t in predictions.before(tensor) if predictions.is_trained(t)}
        if len(before) != 1 or before & seen:
            return None
        (tensor,) = before
        seen.add(tensor)
    return tensor


def _before_loss(
    predictions: Predictions, tensor: TensorName, user: Node
) -> TensorName:
    """Steps back over what a loss does to a prediction before it meets labels."""
    while True:
        scope = _common_scope(tensor.node, user.name)
        outside = _outside_scope(predictions, tensor, scope) if scope else None
        if outside is not None:
            tensor = outside
            continue
        before = predictions.before(tensor)
        if len(before) != 1 or not predictions.is_generic(tensor):
            return tensor
        if not _is_loss_step(predictions, tensor, before[0], user):
            return tensor
        tensor = before[0]


def _outside_scope(
    predictions: Predictions, tensor: TensorName, scope: str
) -> TensorName | None:
    """What a loss in its own name scope starts from, if it is one prediction."""
    found: set[TensorName] = set()
    queue, seen = deque([tensor]), {tensor}
    while queue:
        tensor = queue.popleft()
        if not f"{tensor.node}/".startswith(f"{scope}/"):
            found.add(tensor)
            continue
        if tensor.node in predictions.roles.weighted:
            return None  # the scope is the model's
        for before in predictions.before(tensor):
            if predictions.is_trained(before) and before not in seen:
                seen.add(before)
                queue.append(before)
    return found.pop() if len(found) == 1 and len(seen) > 1 else None


def _is_loss_step(
    predictions: Predictions, tensor: TensorName, before: TensorName, user: Node
) -> bool:
    """Whether a tensor is part of the loss rather than the prediction."""
    node = predictions.nodes[tensor.node]
    if node.op in _LOSS_STEPS:
        return True
    if node.op in _STEPS_WITH_CONSTANT:
        dependence = predictions.roles.dependence
        return all(t == before or not dependence[t] for t in node.inputs)
    if node.op not in _RESHAPING:
        return False
    # What the user gave a name to is what the user calls the prediction.
    if not predictions.is_generic(before):
        return True
    # The cross entropies want two dimensions, and flatten the outer ones.
    if node.op != "Reshape" or not user.op.endswith("CrossEntropyWithLogits"):
        return False
    shapes = [predictions.nodes[t.node].op for t in node.inputs[1:]]
    joined = any(op.startswith("Concat") for op in shapes)
    return joined or (predictions.analysis.rank(before) or 0) > 2


def _through_activation(predictions: Predictions, tensor: TensorName) -> TensorName:
    """What becomes of a tensor before it meets other data or is reduced."""
    dependence, inputs = predictions.roles.dependence, predictions.roles.inputs
    while True:
        users = [
            user
            for user in predictions.analysis.tensor_users.get(tensor, [])
            if predictions.counts(user) and user.op not in SHAPE_OPS
        ]
        if len(users) != 1 or users[0].op not in _ACTIVATIONS:
            return tensor
        others = [t for t in users[0].inputs if t != tensor]
        following = TensorName(users[0].name)
        if any(dependence[t] & inputs for t in others) or (
            predictions.is_scalar(following)
        ):
            return tensor
        tensor = following


def _before_joining(
    predictions: Predictions, tensor: TensorName, owners: Dependence
) -> TensorName:
    """Steps back over what joins a prediction with other data for the next network."""
    while True:
        before = [t for t in predictions.before(tensor) if owners[t]]
        joins = predictions.nodes[tensor.node].op in _JOINING
        if not joins or len(before) != 1 or not predictions.is_generic(tensor):
            return tensor
        tensor = before[0]


def _common_scope(name: str, other: str) -> str:
    """The innermost name scope that two nodes lie in."""
    common = []
    for part, match in zip(name.split("/"), f"{other}/".split("/"), strict=False):
        if part != match:
            break
        common.append(part)
    return "/".join(common)
