"""What names say: the words that people use for labels, outputs, flags and so on."""

import re
from collections.abc import Iterable, Mapping

from keras_metagraph.graph.ir import Graph, TensorName

_LABEL = re.compile(
    r"(^|[^a-z])(labels?|targets?|y_?true|ground_?truth|gt|answers?|annotations?)"
    r"([^a-z]|$)|^ys?_?$|^y[-_](input|placeholder|ph|batch|train|data)$"
    r"|^(input|placeholder|ph|batch)[-_]y$"
)
_MEASURE = re.compile(r"length|_len([^a-z]|$)|num_|size|count")
_OUTPUT = re.compile(
    r"logits?|predict|(^|[^a-z])preds?([^a-z]|$)|probabilit|(^|[^a-z])probs?([^a-z]|$)"
    r"|outputs?([^a-z]|$)|scores?([^a-z]|$)|softmax|sigmoid|classes([^a-z]|$)"
    r"|y_?(hat|pred|conv|_out)|inference|embed|decoded|reconstruct|hypothesis"
)
_LOSS = re.compile(r"(^|[^a-z])(total_?)?(loss|cost|objective)([^a-z]|$)")
_PLAIN_LOSS = re.compile(r"(total_?|train_?)?(loss|cost)(_op|_val(ue)?|_\d+)?")
_FLAG = re.compile(
    r"(is_?)?train(ing)?(_(flag|phase|mode|bool|ph))?$|^is_?train|phase([^a-z]|$)"
)
_INFERENCE_FLAG = re.compile(r"test|infer|eval|valid|determin|predict")
_KEEP = re.compile(r"keep|retain")
_DROP = re.compile(r"drop_?(out)?_?(rate|prob|ratio|p)?([^a-z]|$)")
_RATE = re.compile(r"learning_?rate|(^|[^a-z])lr([^a-z]|$)|step_?size")
_TRAIN_COLLECTION = re.compile(
    r"^train(ing|er)?_?(ops?|steps?)?$|^optimi[sz]ers?$|minimi[sz]e|^train_?ops?$"
)
_GENERIC_SUFFIX = re.compile(r"_\d+$")
# Names that TensorFlow's own functions give, and that are no op types.
# fmt: off
_GENERIC_NAMES = frozenset({
    "add", "batchnorm", "boolean_mask", "clip_by_value", "concat", "cond",
    "control_dependency", "div", "einsum", "embedding_lookup", "eq", "eye",
    "floordiv", "group_deps", "matmul", "moments", "moving_average", "mul", "neg",
    "norm", "not_equal", "ones", "ones_like", "pow", "range", "read", "split",
    "stack", "strided_slice", "sub", "tensordot", "transpose", "truediv", "unstack",
    "value", "while", "xw_plus_b", "zeros", "zeros_like",
})
# fmt: on


def is_label(name: str) -> bool:
    """Whether a node is called as labels are."""
    text = last(name)
    return bool(_LABEL.search(text)) and not _MEASURE.search(text)


def is_output(name: str) -> bool:
    """Whether a node or collection is called as outputs are."""
    return bool(_OUTPUT.search(last(name)))


def is_loss(name: str) -> bool:
    """Whether a node is called as losses are."""
    return bool(_LOSS.search(last(name)))


def is_plain_loss(name: str) -> bool:
    """Whether a node is called a loss and nothing more."""
    return bool(_PLAIN_LOSS.fullmatch(last(name)))


def is_training_flag(name: str) -> bool:
    """Whether a placeholder is called as training flags are."""
    return bool(_FLAG.search(last(name)))


def is_inference_flag(name: str) -> bool:
    """Whether a flag is called as flags are that are true for inference."""
    text = last(name)
    return bool(_INFERENCE_FLAG.search(text)) and "train" not in text


def is_keep_probability(name: str) -> bool:
    """Whether a placeholder is called as the share that dropout keeps."""
    return bool(_KEEP.search(last(name)))


def is_dropout_rate(name: str) -> bool:
    """Whether a placeholder is called as the share that dropout drops."""
    return bool(_DROP.search(last(name))) and not is_keep_probability(name)


def is_learning_rate(name: str) -> bool:
    """Whether a placeholder is called as learning rates are."""
    return bool(_RATE.search(last(name)))


def is_train_collection(name: str) -> bool:
    """Whether a collection is called as those that hold the train op."""
    return bool(_TRAIN_COLLECTION.search(name.lower()))


def last(name: str) -> str:
    """The last part of a node's name, in lower case."""
    return name.rpartition("/")[2].lower()


def is_generic(graph: Graph, name: str) -> bool:
    """Whether TensorFlow made the last part of a node's name, not a user."""
    node = graph.nodes[name]
    text = _GENERIC_SUFFIX.sub("", name.rpartition("/")[2])
    op = node.op.lower()
    return text.lower() in (op, op.rstrip("v234")) or text.lower() in _GENERIC_NAMES


def input_keys(
    tensors: Iterable[TensorName], aliases: Mapping[TensorName, str] | None = None
) -> dict[str, str]:
    """Names that Keras takes for inputs, after the nodes.

    A key is the last part of the node's name where that is unique, else the whole name
    with `_` for `/`. Parts of a sparse tensor, and the outputs of a node with several,
    keep what tells them apart.

    Args:
        tensors: The tensors, in order.
        aliases: What the graph calls tensors that have no name of their own.

    Returns:
        Tensor names by key.
    """
    tensors, aliases = list(tensors), aliases or {}
    nodes = [tensor.node for tensor in tensors]
    short = {}
    for tensor in tensors:
        if tensor in aliases:
            short[tensor] = aliases[tensor]
            continue
        head, _, tail = tensor.node.rpartition("/")
        if tail in ("indices", "values", "shape", "dense_shape") and head:
            tail = f"{head.rpartition('/')[2]}_{tail}"
        several = nodes.count(tensor.node) > 1 or tensor.index
        short[tensor] = f"{tail}_{tensor.index}" if several else tail
    return _unique(short)


def output_keys(
    graph: Graph, tensors: Iterable[TensorName], given: Mapping[str, str]
) -> dict[str, str]:
    """Names for outputs, after collections and nodes.

    Args:
        graph: The graph of the tensors.
        tensors: The tensors, in order.
        given: Names that collections have for some tensors, by tensor name.

    Returns:
        Tensor names by key. For a node whose name says nothing (`dense_1/BiasAdd`),
        the key is that of its scope, unless that is a loss.
    """
    tensors = list(tensors)
    scopes = [tensor.node.rpartition("/")[0] for tensor in tensors]
    short = {}
    for tensor, scope in zip(tensors, scopes, strict=True):
        if str(tensor) in given:
            short[tensor] = given[str(tensor)].replace("/", "_")
            continue
        tail = tensor.node.rpartition("/")[2]
        speaks = scope and scopes.count(scope) == 1 and not is_loss(scope)
        if speaks and is_generic(graph, tensor.node):
            tail = scope.rpartition("/")[2]
        short[tensor] = f"{tail}_{tensor.index}" if tensor.index else tail
    return _unique(short)


def _unique(short: Mapping[TensorName, str]) -> dict[str, str]:
    """Falls back to whole names where short ones clash."""
    counts: dict[str, int] = {}
    for key in short.values():
        counts[key] = counts.get(key, 0) + 1
    keys: dict[str, str] = {}
    for tensor, key in short.items():
        if counts[key] > 1:
            key = tensor.node.replace("/", "_")
            key = f"{key}_{tensor.index}" if tensor.index or key in keys else key
        while key in keys:
            key += "_"
        keys[key] = str(tensor)
    return keys
