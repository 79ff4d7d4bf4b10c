"""Examples are parsed by the op of 1.15, ragged features too."""

import numpy as np
import pytest
import tensorflow as tf

from keras_metagraph.export.downgrade import downgrade
from keras_metagraph.export.inline import inline_calls
from keras_metagraph.export.op_table import known_ops
from keras_metagraph.graph.from_proto import graph_from_proto
from keras_metagraph.graph.to_proto import graph_to_proto
from oracle.tf_examples import example

PLAIN = {
    "f": tf.io.FixedLenFeature([2], tf.float32, [7.0, 8.0]),
    "n": tf.io.FixedLenSequenceFeature([], tf.int64, allow_missing=True),
    "s": tf.io.VarLenFeature(tf.string),
    "at": tf.io.SparseFeature("i", "v", tf.float32, 9),
}
RAGGED = {
    "r": tf.io.RaggedFeature(tf.int64, row_splits_dtype=tf.int64),
    "w": tf.io.RaggedFeature(tf.string),
}
ROWS = [
    example(f=[1.0, 2.0], n=[1, 2, 3], s="a", i=[4], v=[0.5], r=[1, 2]),
    example(w=["x", "y"], s=["b", "c"]),
    example(r=[3], n=[4], w="z"),
]


def parsing(features, spec):
    """The flat graph of a parser, its placeholder and what it returns."""

    def parse(serialized):
        parsed = tf.io.parse_example(serialized, features)
        return tf.nest.flatten(parsed, expand_composites=True)

    concrete = tf.function(parse).get_concrete_function(spec)
    graph = graph_from_proto(concrete.graph.as_graph_def(add_shapes=True))
    inline_calls(graph)
    return graph, concrete.inputs[0].name, [tensor.name for tensor in concrete.outputs]


def run(graph, feeds, fetches):
    with tf.Graph().as_default(), tf.compat.v1.Session() as session:
        tf.graph_util.import_graph_def(graph_to_proto(graph), name="")
        return session.run(fetches, feeds)


@pytest.mark.parametrize("rows", [ROWS, ROWS[1:2], []], ids=len)
@pytest.mark.parametrize("features", [PLAIN, RAGGED, {**PLAIN, **RAGGED}], ids=len)
def test_the_same_values(features, rows):
    graph, fed, fetches = parsing(features, tf.TensorSpec([None], tf.string))
    feeds = {fed: np.asarray(rows, dtype=object)}
    before = run(graph, feeds, fetches)

    assert downgrade(graph) == []

    ops = {node.op for node in graph.nodes.values()}
    assert "ParseExample" in ops
    assert ops <= set(known_ops())
    for old, new in zip(before, run(graph, feeds, fetches), strict=True):
        assert old.dtype == new.dtype
        np.testing.assert_array_equal(old, new)


def test_one_example_alone_is_refused():
    graph, *_ = parsing(PLAIN, tf.TensorSpec([], tf.string))

    (found,) = downgrade(graph)

    assert found.op == "ParseExampleV2"
    assert "takes a vector" in found.reason


def test_names_of_features_that_are_computed_are_refused():
    @tf.function(input_signature=[tf.TensorSpec([None], tf.string)])
    def parse(serialized):
        return tf.raw_ops.ParseExampleV2(
            serialized=serialized,
            names=[],
            sparse_keys=[],
            dense_keys=tf.strings.lower(["X"]),
            ragged_keys=[],
            dense_defaults=[tf.constant([0.0])],
            num_sparse=0,
            sparse_types=[],
            ragged_value_types=[],
            ragged_split_types=[],
            dense_shapes=[[1]],
        ).dense_values

    concrete = parse.get_concrete_function()
    graph = graph_from_proto(concrete.graph.as_graph_def(add_shapes=True))

    (found,) = downgrade(graph)

    assert found.reason == "the names of its features are not constants"
