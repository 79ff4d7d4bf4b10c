"""Boosted trees of tf.estimator, whose ops have no kernels in TensorFlow 2 any more.

The checkpoint has an ensemble as one serialized `TreeEnsemble` (TF 1.15
`core/kernels/boosted_trees/boosted_trees.proto`), and the buckets of numeric columns as
vectors. Both become constants, and predictions plain ops: all trees are walked down at
once, one level after the other.
"""

import dataclasses
import functools
from collections.abc import Sequence
from typing import Any

import numpy as np
import tensorflow as tf
from google.protobuf import (
    descriptor_pb2,
    descriptor_pool,
    message_factory,
)
from google.protobuf.message import DecodeError

from keras_metagraph.checkpoint.restore import TensorReader
from keras_metagraph.errors import FormatError
from keras_metagraph.graph.from_proto import graph_from_proto
from keras_metagraph.graph.ir import Graph, Node, TensorName
from keras_metagraph.graph.passes import build
from keras_metagraph.graph.passes.splice import splice
from keras_metagraph.graph.restore_wiring import restored_key

PREDICT = "BoostedTreesPredict"
BOUNDARIES = "BoostedTreesQuantileStreamResourceGetBucketBoundaries"
_DESERIALIZE_TREES = "BoostedTreesDeserializeEnsemble"
_DESERIALIZE_BOUNDARIES = "BoostedTreesQuantileStreamResourceDeserialize"
_MAX_DEPTH = 64  # each level is built by itself; TensorFlow's own default is 6
# What predictions need of boosted_trees.proto, as a FileDescriptorProto; field types
# are those of descriptor.proto: 2 float, 5 int32, 11 message.
_FIELDS: dict[str, list[tuple[str, int, Any]]] = {
    "TreeEnsemble": [("trees", 1, "Tree"), ("tree_weights", 2, 2)],
    "Tree": [("nodes", 1, "Node")],
    "Node": [
        ("leaf", 1, "Leaf"),
        ("bucketized_split", 2, "Split"),
        ("categorical_split", 3, "Split"),
    ],
    "Leaf": [("vector", 1, "Vector"), ("scalar", 3, 2)],
    "Vector": [("value", 1, 2)],
    "Split": [
        ("feature_id", 1, 5),
        ("threshold", 2, 5),
        ("left_id", 3, 5),
        ("right_id", 4, 5),
    ],
}
_EXPORT_AGAIN = "export the model again; the file is damaged."
_REPEATED = {"trees", "tree_weights", "nodes", "value"}


@dataclasses.dataclass(frozen=True)
class Ensemble:
    """The nodes of all trees, one after the other.

    Attributes:
        roots: Places of the roots, one a tree.
        feature: Which feature a node looks at.
        threshold: The largest value of it that goes left.
        equal: Whether only the threshold itself goes left.
        left: Where to go then; a leaf stays where it is.
        right: Where to go else.
        value: What a node adds to the logits, shape `(node, logit)`.
        depth: Levels of the deepest tree.
    """

    roots: Any
    feature: Any
    threshold: Any
    equal: Any
    left: Any
    right: Any
    value: Any
    depth: int


def inline_trees(graph: Graph, reader: TensorReader) -> Graph:
    """Puts what a checkpoint has of boosted trees into the graph.

    Args:
        graph: A graph; it is not changed.
        reader: Its checkpoint.

    Returns:
        The graph without `BoostedTreesPredict` and boundaries of buckets, as far as the
        checkpoint has what they read; the same one if it has no trees.

    Raises:
        FormatError: If an ensemble is damaged.
    """
    rewriter = build.Rewriter(graph)
    stored = {
        node.inputs[0].node: [restored_key(graph, t) for t in node.inputs[1:]]
        for node in graph.nodes.values()
        if node.op in (_DESERIALIZE_TREES, _DESERIALIZE_BOUNDARIES)
    }
    for node in graph.nodes.values():
        if node.op not in (PREDICT, BOUNDARIES):
            continue
        keys = stored.get(node.inputs[0].node, [""])
        if any(key not in reader for key in keys):
            continue
        if node.op == PREDICT:
            _predict(rewriter, node, reader.read(keys[1]).item())
        else:
            _boundaries(rewriter, node, [reader.read(key) for key in keys])
    return rewriter.graph()


def read_ensemble(data: bytes, logits: int) -> Ensemble:
    """Reads a serialized `TreeEnsemble`.

    Args:
        data: The bytes.
        logits: How many logits each leaf has.

    Returns:
        The trees, with their weights in the values.

    Raises:
        FormatError: If it is none, or a tree is no tree.
    """
    try:
        proto = _ensemble_class().FromString(data)
    except DecodeError as error:
        raise FormatError(
            f"The boosted trees in the checkpoint cannot be read: {error}.",
            fix=_EXPORT_AGAIN,
        ) from error
    roots: list[int] = []
    rows: list[tuple[int, ...]] = []
    values: list[Any] = []
    depth = 1
    for place, tree in enumerate(proto.trees):
        if not tree.nodes:
            continue
        levels = _levels(tree.nodes)
        depth = max(depth, *levels)
        weight = proto.tree_weights[place] if place < len(proto.tree_weights) else 1
        roots.append(len(rows))
        rows += [_row(node, roots[-1], i) for i, node in enumerate(tree.nodes)]
        values += [_value(node, logits) * np.float32(weight) for node in tree.nodes]
    if depth > _MAX_DEPTH:
        raise FormatError(
            f"The boosted trees in the checkpoint have {depth} levels, more than "
            f"{_MAX_DEPTH}.",
            fix=_EXPORT_AGAIN,
        )
    columns = np.array(rows, np.int32).reshape(-1, 5).T
    table = np.array(values, np.float32).reshape(-1, logits)
    return Ensemble(
        np.array(roots, np.int32),
        columns[0],
        columns[1],
        columns[2].astype(bool),
        columns[3],
        columns[4],
        table,
        depth,
    )


def _levels(nodes: Sequence[Any]) -> list[int]:
    """The level of each node of a tree; children stand behind their parents."""
    levels = [1] * len(nodes)
    for number, node in enumerate(nodes):
        split = _split(node)
        for child in (split.left_id, split.right_id) if split else ():
            if not number < child < len(nodes):
                raise FormatError(
                    f"A boosted tree in the checkpoint has {len(nodes)} nodes, and its "
                    f"node {number} goes to {child}.",
                    fix=_EXPORT_AGAIN,
                )
            levels[child] = max(levels[child], levels[number] + 1)
    return levels


def _row(node: Any, first: int, number: int) -> tuple[int, ...]:
    """A node as the tables have it: feature, threshold, kind, and where it goes."""
    split = _split(node)
    if split is None:
        return 0, 0, 0, first + number, first + number
    kind = node.HasField("categorical_split")
    ends = first + split.left_id, first + split.right_id
    return split.feature_id, split.threshold, kind, *ends


def _value(node: Any, logits: int) -> Any:
    """What a node adds to the logits; nothing if it is no leaf."""
    value = np.zeros(logits, np.float32)
    if _split(node) is None:
        leaf = [*node.leaf.vector.value][:logits] or [node.leaf.scalar]
        value[: len(leaf)] = leaf
    return value


def _split(node: Any) -> Any:
    """The split of a node; None for a leaf."""
    if node.HasField("bucketized_split"):
        return node.bucketized_split
    return node.categorical_split if node.HasField("categorical_split") else None


@functools.cache
def _ensemble_class() -> Any:
    """The class of `TreeEnsemble`, of which TensorFlow 2 has no proto any more."""
    package = "keras_metagraph.boosted_trees"
    file = descriptor_pb2.FileDescriptorProto(
        name=f"{package}.proto", package=package, syntax="proto3"
    )
    for name, fields in _FIELDS.items():
        message = file.message_type.add(name=name)
        for label, number, kind in fields:
            field = message.field.add(name=label, number=number)
            field.label = 3 if label in _REPEATED else 1
            field.type = 11 if isinstance(kind, str) else kind
            if isinstance(kind, str):
                field.type_name = f".{package}.{kind}"
    pool = descriptor_pool.DescriptorPool()
    pool.AddSerializedFile(file.SerializeToString())
    found = pool.FindMessageTypeByName(f"{package}.TreeEnsemble")
    return message_factory.GetMessageClass(found)


def _boundaries(
    rewriter: build.Rewriter, node: Node, boundaries: Sequence[Any]
) -> None:
    """Puts constants in the place of the boundaries of buckets."""
    constants = [
        rewriter.add(build.const_node(f"{node.name}/boundaries", each, build.FLOAT))
        for each in boundaries
    ]
    attrs = {"T": build.types_attr([build.FLOAT] * len(constants))}
    rewriter.replace(Node(node.name, "IdentityN", constants, attrs=attrs))


def _predict(rewriter: build.Rewriter, node: Node, data: bytes) -> None:
    """Puts plain ops in the place of one `BoostedTreesPredict`."""
    logits = node.attrs["logits_dimension"].i
    ensemble = read_ensemble(data, logits)
    features = node.inputs[1:]
    used = set(ensemble.feature.tolist())
    if not used <= set(range(len(features))):
        raise FormatError(
            f"The boosted trees in the checkpoint look at the features {sorted(used)}, "
            f"and the graph has {len(features)}.",
            fix=_EXPORT_AGAIN,
        )
    specs = [
        tf.TensorSpec(None, tf.int32, f"feature_{i}") for i in range(len(features))
    ]
    traced = tf.function(
        lambda *values: _logits(ensemble, values), autograph=False
    ).get_concrete_function(*specs)
    source = graph_from_proto(traced.graph.as_graph_def())
    names = [n.name for n in source.nodes.values() if n.op == "Placeholder"]
    output = TensorName.parse(traced.outputs[0].name)
    given = dict(zip(names, features, strict=True))
    node = dataclasses.replace(node, inputs=features)  # nothing waits for the handle
    splice(rewriter, node, source, given, output, build.FLOAT)


def _logits(ensemble: Ensemble, features: Sequence[tf.Tensor]) -> tf.Tensor:
    """The logits of bucketized features (TF 1.15 `boosted_trees/prediction_ops.cc`).

    Args:
        ensemble: The trees.
        features: Shape `(batch,)` or `(batch, 1)` each.

    Returns:
        Shape `(batch, logits)`.
    """
    table = tf.stack([tf.reshape(each, [-1]) for each in features], axis=1)
    batch, trees = tf.shape(table)[0], len(ensemble.roots)
    places = tf.tile(tf.constant(ensemble.roots)[None], [batch, 1])
    for _ in range(ensemble.depth - 1):
        value = tf.gather(table, tf.gather(ensemble.feature, places), batch_dims=1)
        threshold = tf.gather(ensemble.threshold, places)
        equal = tf.gather(ensemble.equal, places)
        left = tf.where(equal, tf.equal(value, threshold), value <= threshold)
        goes_left, goes_right = (
            tf.gather(side, places) for side in (ensemble.left, ensemble.right)
        )
        places = tf.where(left, goes_left, goes_right)
    if not trees:
        return tf.zeros([batch, ensemble.value.shape[1]])
    return tf.reduce_sum(tf.gather(ensemble.value, places), axis=1)
