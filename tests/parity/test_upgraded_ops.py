"""Ops that TensorFlow 2 has no more, against 1.15, which still has them."""

import numpy as np
import tensorflow as tf

from keras_metagraph.graph.from_proto import graph_from_proto
from keras_metagraph.graph.passes import repair
from keras_metagraph.session.executor import SessionExecutor

SCRIPT = """
import tensorflow.compat.v1 as tf
from tensorflow.python.ops import gen_boosted_trees_ops

def main(arrays, args):
    with tf.Graph().as_default() as graph, tf.Session() as session:
        values = tf.placeholder(tf.float32, [None], "values")
        boundaries = [tf.constant([1.0, 2.0, 3.0]), tf.constant([], tf.float32)]
        buckets = gen_boosted_trees_ops.boosted_trees_bucketize(
            [values, values], boundaries, name="buckets"
        )
        results = session.run(buckets, {values: arrays["values"]})
        text = graph.as_graph_def().SerializeToString().hex().encode()
    return {"graph": text, "first": results[0], "second": results[1]}
"""


def test_buckets_of_boosted_trees(tf115):
    values = np.array([0.0, 1.0, 1.5, 2.0, 3.0, 3.5, 99.0, np.nan], np.float32)
    expected = tf115(SCRIPT, {"values": values})
    data = bytes.fromhex(expected["graph"].item().decode())
    graph = repair(graph_from_proto(tf.compat.v1.GraphDef.FromString(data)))
    found = SessionExecutor(graph, {}).run(
        ["buckets:0", "buckets:1"], {"values:0": values}
    )
    np.testing.assert_array_equal(found[0], expected["first"])
    np.testing.assert_array_equal(found[1], expected["second"])
