"""Finds the tensors that a graph takes its data from.

They are placeholders, and where queues, readers or iterators feed the graph, the
tensors that come out of these: there the graph is cut.
"""

import dataclasses
from collections import deque
from collections.abc import Iterable
from typing import Any

import tensorflow as tf

from keras_metagraph.graph.ir import Node, TensorName
from keras_metagraph.loading.infer.analysis import GraphAnalysis

PLACEHOLDERS = frozenset({"Placeholder", "PlaceholderV2", "PlaceholderWithDefault"})
_PIPELINE_PREFIXES = (
    "QueueDequeue",
    "IteratorGetNext",
    "ReaderRead",
    "InfeedDequeue",
    "Unstage",
    "RecordInput",
)
_PYTHON = frozenset({"PyFunc", "PyFuncStateless", "EagerPyFunc"})
_PARSERS = ("ParseExample", "ParseSingleExample", "ParseSequenceExample", "DecodeCSV")
_NAMING = PLACEHOLDERS | {"Identity", "StringJoin", "Pack", "Const"}
_HUB = "/hub_input/"
_HANDLES = (tf.resource, tf.variant)
_SLICES = frozenset({"Gather", "GatherV2", "Slice", "StridedSlice"})
# fmt: off
_COUNTING = frozenset({
    "Add", "AddV2", "Cast", "ConcatV2", "ExpandDims", "FloorMod", "Identity", "Mul",
    "Pack", "Reshape", "Sub",
})
# fmt: on
_SOURCES = frozenset({"Assert", "Const", "NoOp"})


@dataclasses.dataclass(frozen=True)
class Feed:
    """A tensor that can be fed.

    Attributes:
        tensor: Its name.
        kind: `"placeholder"`, `"default"` (a placeholder with a default), or
            `"pipeline"` (comes out of a queue, a reader, an iterator, a parser).
        rank: Its rank where the file tells.
        dtype: Its dtype where the file tells.
        default: The default of a placeholder, where that is a constant number.
    """

    tensor: TensorName
    kind: str
    rank: int | None
    dtype: tf.DType | None
    default: Any = None

    @property
    def maybe_scalar(self) -> bool:
        """Whether nothing says that the tensor is no scalar."""
        return self.rank in (None, 0)


def find_feeds(analysis: GraphAnalysis, saver: str = "") -> list[Feed]:
    """Finds what can be fed, in the order of the file.

    Args:
        analysis: The graph.
        saver: Name of the tensor that feeds the saver's filename.

    Returns:
        The feeds; not those that only the saver uses.
    """
    feeds = []
    for node in analysis.graph.nodes.values():
        if node.op in PLACEHOLDERS:
            feeds.extend(_placeholder(analysis, node, saver))
        elif node.op.startswith(_PIPELINE_PREFIXES) or _generates(analysis, node):
            tensors = _cut(analysis, node)
            feeds.extend(_feed(analysis, tensor, "pipeline") for tensor in tensors)
    # TF-Hub keeps the graph of a module beside the copy that the user called.
    return [f for f in feeds if _HUB not in f"/{f.tensor.node}"] or feeds


def _placeholder(analysis: GraphAnalysis, node: Node, saver: str) -> list[Feed]:
    tensor = TensorName(node.name)
    if str(tensor) == saver or node.name == saver:
        return []
    kind = "default" if node.op == "PlaceholderWithDefault" else "placeholder"
    feed = _feed(analysis, tensor, kind)
    if feed.dtype in _HANDLES or _is_filename(analysis, feed):
        return []
    return [feed]


def _is_filename(analysis: GraphAnalysis, feed: Feed) -> bool:
    """Whether a placeholder does nothing but name a checkpoint."""
    if feed.dtype != tf.string or feed.rank not in (None, 0):
        return False
    reached = analysis.reach([feed.tensor.node])
    rest = reached - analysis.saver_nodes
    return reached != rest and all(
        analysis.graph.nodes[name].op in _NAMING for name in rest
    )


def _feed(analysis: GraphAnalysis, tensor: TensorName, kind: str) -> Feed:
    default = None
    inputs = analysis.graph.nodes[tensor.node].inputs
    if kind == "default" and inputs:
        default = analysis.constant(inputs[0])
    return Feed(tensor, kind, analysis.rank(tensor), analysis.dtype(tensor), default)


def _generates(analysis: GraphAnalysis, node: Node) -> bool:
    """Whether a node calls Python to get data, and not on data that is fed."""
    if node.op not in _PYTHON:
        return False
    before = analysis.ancestors([TensorName(node.name)])
    return not any(analysis.graph.nodes[name].op in PLACEHOLDERS for name in before)


def _cut(analysis: GraphAnalysis, node: Node) -> Iterable[TensorName]:
    """The tensors behind which the pipeline ends.

    Those of a parser, if one follows; where it only counts (`range_input_producer`),
    what is sliced out of constant data.
    """
    for tensor in analysis.output_tensors[node.name]:
        users = [
            user
            for user in analysis.tensor_users.get(tensor, [])
            if not analysis.is_summary(user)
        ]
        if analysis.dtype(tensor) in _HANDLES or not users:
            continue
        if all(user.op.startswith(_PARSERS) for user in users):
            for user in dict.fromkeys(user.name for user in users):
                yield from analysis.output_tensors[user]
        else:
            yield from _slices(analysis, tensor) or [tensor]


def _slices(analysis: GraphAnalysis, index: TensorName) -> list[TensorName]:
    """What a number does nothing but slice out of constants; none if it does more."""
    dtype = analysis.dtype(index)
    if dtype is None or not dtype.is_integer:
        return []
    found: dict[TensorName, None] = {}
    queue, seen = deque([index]), {index}
    while queue:
        tensor = queue.popleft()
        for user in analysis.tensor_users.get(tensor, []):
            output = TensorName(user.name)
            if user.op in _SLICES and tensor != user.inputs[0]:
                found.setdefault(output)
            elif user.op not in _COUNTING:
                return []
            elif output not in seen:
                seen.add(output)
                queue.append(output)
    data = [analysis.graph.nodes[tensor.node].inputs[0] for tensor in found]
    return list(found) if all(_is_constant(analysis, t) for t in data) else []


def _is_constant(analysis: GraphAnalysis, tensor: TensorName) -> bool:
    """Whether a tensor is computed from nothing but constants."""
    names = analysis.ancestors([tensor])
    nodes = [analysis.graph.nodes[name] for name in names]
    return all(node.inputs or node.op in _SOURCES for node in nodes)
