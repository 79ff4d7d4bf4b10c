"""Arrays that are one batch, but have no row for each example."""

import numpy as np
import pytest
import tensorflow as tf

from keras_metagraph import load_from_meta_graph
from keras_metagraph.errors import SignatureError

v1 = tf.compat.v1


class Graphs:
    """A convolution on the nodes of a graph, written and trained by a session."""

    def __init__(self, folder):
        with tf.Graph().as_default() as graph, v1.Session(graph=graph) as session:
            edges = v1.sparse_placeholder(tf.float32, name="edges")
            words = v1.placeholder(tf.string, [None], "words")
            label = v1.placeholder(tf.float32, [None, 2], "label")
            w = v1.get_variable("w", [3, 2], use_resource=False)
            top = v1.get_variable("top", [2, 2], use_resource=False)
            rows = tf.gather(w, tf.strings.to_hash_bucket_fast(words, 3))
            y = tf.matmul(tf.sparse.sparse_dense_matmul(edges, rows), top)
            loss = tf.reduce_mean((y - label) ** 2, name="loss")
            v1.train.GradientDescentOptimizer(0.1).minimize(loss, name="train_op")
            session.run(v1.global_variables_initializer())
            self.path = v1.train.Saver().save(session, str(folder / "model"))
            self.x = {
                "indices": np.array([[0, 0], [1, 2], [1, 3]], np.int64),
                "values": np.array([1.0, 0.5, 2.0], np.float32),
                "shape": np.array([2, 4], np.int64),
                "words": np.array([b"a", b"b\x90", b"c", b"d"]),
            }
            self.label = np.ones((2, 2), np.float32)
            tensors = {
                "indices": edges.indices,
                "values": edges.values,
                "shape": edges.dense_shape,
                "words": words,
            }
            self.inputs = {key: tensor.name for key, tensor in tensors.items()}
            feeds = {self.inputs[key]: value for key, value in self.x.items()}
            feeds["label:0"] = self.label
            self.y = session.run(y, feeds)
            runs = [session.run([loss, "train_op"], feeds) for _ in range(2)]
            self.losses = [loss for loss, _ in runs]


@pytest.fixture
def graphs(tmp_path):
    return Graphs(tmp_path)


def test_they_are_refused_where_batches_are_cut(graphs):
    model = load_from_meta_graph(graphs.path, inputs=graphs.inputs)

    with pytest.raises(SignatureError, match=r"words: shape \(4,\)") as error:
        model.predict(graphs.x)
    assert "indices: shape (3, 2)" in str(error.value)
    assert "predict_on_batch" in str(error.value)
    with pytest.raises(SignatureError, match="train_on_batch"):
        model.fit(graphs.x, graphs.label)
    with pytest.raises(SignatureError, match="test_on_batch"):
        model.evaluate(graphs.x, graphs.label)


def test_they_are_taken_as_one_batch(graphs):
    model = load_from_meta_graph(graphs.path, inputs=graphs.inputs)

    np.testing.assert_allclose(model.predict_on_batch(graphs.x), graphs.y, rtol=1e-6)
    losses = [
        model.test_on_batch(graphs.x, graphs.label),
        model.train_on_batch(graphs.x, graphs.label),
        model.train_on_batch(graphs.x, graphs.label),
    ]
    np.testing.assert_allclose(losses, [graphs.losses[0], *graphs.losses], rtol=1e-6)
