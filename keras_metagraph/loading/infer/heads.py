"""Finds the heads of a trained graph: the tensors that its losses start from."""

from collections import Counter, deque
from collections.abc import Collection, Sequence

from keras_metagraph.graph.ir import Node, TensorName
from keras_metagraph.loading.infer import naming
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
_SLICES = frozenset({"Slice", "Split", "SplitV", "StridedSlice", "Unpack"})
_ELEMENTWISE = frozenset({"Exp", "Identity", "Sigmoid", "Softmax", "Softplus", "Tanh"})
_JOINING = frozenset({"Concat", "ConcatV2", "Reshape", "Identity"})
_CROSS_ENTROPY = "CrossEntropyWithLogits"
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

    Where weights are applied to a prediction once more, what they give is another one.

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
    whole = _put_together(predictions, tensors)
    return predictions.earliest(whole, before_weights=True)


def _put_together(
    predictions: Predictions, heads: Sequence[TensorName]
) -> list[TensorName]:
    """Takes a prediction in the place of the slices that parts of a loss take of it."""
    sources = {head: _sliced(predictions, head) for head in heads}
    counts = Counter(sources.values())
    whole = {
        head: source if source is not None and counts[source] > 1 else head
        for head, source in sources.items()
    }
    return list(dict.fromkeys(whole.values()))


def _sliced(predictions: Predictions, head: TensorName) -> TensorName | None:
    """What a head is a slice of, if only TensorFlow gave it a name."""
    tensor, cut = head, False
    while predictions.is_generic(tensor):
        node = predictions.nodes[tensor.node]
        before = predictions.before(tensor)
        steps = _RESHAPING if cut else _SLICES | _ELEMENTWISE
        if node.op not in steps or len(before) != 1:
            break
        cut = cut or node.op in _SLICES
        tensor = before[0]
    return tensor if cut else None


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
    ends = (_through_activation(predictions, tensor) for tensor in last)
    found = dict.fromkeys(_outside(predictions, tensor) for tensor in ends)
    tensors = [t for t in found if t is not None and t in predictions]
    # What scales and shifts a layer is a part of what the layer gives.
    parts = predictions.analysis.ancestors(
        before for tensor in tensors for before in predictions.nodes[tensor.node].inputs
    )
    return [t for t in tensors if t.node not in parts]


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
                given = _before_network(predictions, tensor, predictions.nodes[name])
                passed.setdefault(_before_joining(predictions, given, owners))
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
    if node.op != "Reshape" or not user.op.endswith(_CROSS_ENTROPY):
        return False
    flattens = any(_is_open(predictions, tensor) for tensor in node.inputs[1:])
    return flattens or (predictions.analysis.rank(before) or 0) > 2


def _is_open(predictions: Predictions, shape: TensorName) -> bool:
    """Whether a shape is joined of -1 and others; `tensordot` names all of them."""
    node = predictions.nodes[shape.node]
    parts = [predictions.analysis.constant_array(tensor) for tensor in node.inputs]
    return node.op.startswith("Concat") and any(
        part is not None and part.ndim == 1 and -1 in part for part in parts
    )


def _through_activation(predictions: Predictions, tensor: TensorName) -> TensorName:
    """What becomes of a tensor before it meets other data or is reduced.

    Not what the function of a loss does to it first.
    """
    dependence, inputs = predictions.roles.dependence, predictions.roles.inputs
    while True:
        users = [
            user
            for user in predictions.analysis.tensor_users.get(tensor, [])
            if predictions.counts(user) and user.op not in SHAPE_OPS
        ]
        if len(users) != 1 or users[0].op not in _ACTIVATIONS:
            flattened = len(users) == 1 and users[0].op.endswith(_CROSS_ENTROPY)
            if flattened:
                return _before_loss(predictions, tensor, users[0])
            end = _end_of_layer(predictions, tensor)
            if end is None:
                return tensor
            tensor = end
            continue
        # What a merge takes from the other branch comes in place of the tensor.
        alternative = users[0].op == "Merge"
        others = [t for t in users[0].inputs if t != tensor and not alternative]
        following = TensorName(users[0].name)
        if any(dependence[t] & inputs for t in others) or (
            predictions.is_scalar(following) or _enters_loss(tensor, following)
        ):
            return tensor
        tensor = following


def _before_network(
    predictions: Predictions, tensor: TensorName, user: Node
) -> TensorName:
    """Steps back over what a network does to its input before its first weights."""
    scope = _common_scope(tensor.node, user.name)
    outside = _outside_scope(predictions, tensor, scope) if scope else None
    return tensor if outside is None else outside


def _end_of_layer(predictions: Predictions, tensor: TensorName) -> TensorName | None:
    """What a layer gives that normalizes a tensor, by the layer's name scope.

    Args:
        predictions: The predictions of the graph.
        tensor: A tensor.

    Returns:
        The only tensor by which all that is computed from the first one leaves its
        scope, if no other data come in on the way; None if it is the tensor itself.
    """
    scope = tensor.node.rpartition("/")[0]
    inputs = predictions.roles.inputs
    data = predictions.roles.dependence[tensor] & inputs
    found: set[TensorName] = set()
    queue, seen = deque([tensor]), {tensor}
    while queue and scope:
        passed = queue.popleft()
        if predictions.roles.dependence[passed] & inputs != data:
            return None
        for user in predictions.analysis.tensor_users.get(passed, []):
            if not predictions.counts(user) or user.op in SHAPE_OPS:
                continue
            if not user.name.startswith(f"{scope}/"):
                found.add(passed)
                continue
            following = TensorName(user.name)
            if following not in seen:
                seen.add(following)
                queue.append(following)
    end = found.pop() if len(found) == 1 else None
    if end is None or end == tensor or predictions.is_scalar(end):
        return None
    return end


def _enters_loss(tensor: TensorName, following: TensorName) -> bool:
    """Whether a step is the first in a name scope that is called as losses are."""
    scopes = set(following.node.split("/")[:-1]) - set(tensor.node.split("/")[:-1])
    return any(naming.is_loss(scope) for scope in scopes)


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
