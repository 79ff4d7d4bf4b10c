"""Programs that take a graph of TensorFlow 1 for something new."""

import json

import keras
import numpy as np
import pytest
import tensorflow as tf

import keras_metagraph as kmg
from first_programs.classifier import CLASSES, ROWS, X, Y
from first_programs.sessions import (
    dense,
    new_session,
    read_meta,
    restored,
    save,
    tf1,
    variable,
)

CLOSE = {"rtol": 1e-6, "atol": 1e-6}


def test_inference_graph_extended_to_training(tmp_path):
    """The images are a constant, as in the example of TensorFlow's own manual."""
    with new_session() as session:
        images = tf1.constant(1.2, tf.float32, shape=[100, 28], name="images")
        with tf1.variable_scope("hidden1"):
            hidden1 = tf1.nn.relu(tf1.matmul(images, variable("weights", [28, 16])))
        with tf1.variable_scope("softmax_linear"):
            weights = variable("weights", [16, 10])
            logits = tf1.matmul(hidden1, weights, name="logits")
        tf1.add_to_collection("logits", logits)
        session.run(tf1.global_variables_initializer())
        prefix = save(session, tmp_path, 10000)
    pixels = np.random.default_rng(6).normal(size=(100, 28)).astype("float32")
    labels = np.arange(100) % 10
    with restored(prefix) as session:
        logits = tf1.get_collection("logits")[0]
        constant = session.run(logits)
        loss = tf1.reduce_mean(
            tf1.nn.sparse_softmax_cross_entropy_with_logits(
                labels=labels, logits=logits
            )
        )
        train_op = tf1.train.GradientDescentOptimizer(0.5).minimize(loss)
        losses = [session.run([loss, train_op], {"images:0": pixels})[0] for _ in "abc"]

    model = kmg.load_from_meta_graph(
        prefix,
        inputs={"images": "images:0"},
        outputs={"logits": "softmax_linear/logits:0"},
    )
    np.testing.assert_allclose(
        model.meta_graph.run(model.meta_graph.collections["logits"][0]),
        constant,
        **CLOSE,
    )
    model.compile(
        keras.optimizers.SGD(0.5),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
    )

    again = [model.train_on_batch({"images": pixels}, labels) for _ in "abc"]
    np.testing.assert_allclose(again, losses, rtol=1e-5)


def test_hidden_layer_with_a_new_head(classifier):
    base = kmg.load_from_meta_graph(classifier).meta_graph.fetch("net/hidden_relu:0")
    base.trainable = False
    inputs = keras.Input((5,), name="x")
    head = keras.layers.Dense(2, activation="softmax")
    model = keras.Model(inputs, head(base(inputs)))
    model.compile("sgd", "sparse_categorical_crossentropy")
    before = [np.array(weight) for weight in base.weights]
    kernel = np.array(head.kernel)
    model.fit(ROWS, CLASSES % 2, epochs=2, verbose=0)
    with restored(classifier) as session:
        hidden = session.run("net/hidden_relu:0", {"x:0": ROWS})

    np.testing.assert_allclose(base.predict(ROWS, verbose=0), hidden, **CLOSE)
    for weight, value in zip(base.weights, before, strict=True):
        np.testing.assert_array_equal(weight, value)
    assert not np.allclose(head.kernel, kernel)
    assert len(model.trainable_weights) == 2


def test_whole_graph_as_a_layer_is_tuned(classifier):
    base = kmg.load_from_meta_graph(classifier).meta_graph.fetch("net/hidden_relu:0")
    model = keras.Sequential([keras.Input((5,)), base, keras.layers.Dense(2)])
    model.compile("sgd", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    kernel = base.trainable_weights[0]
    before = np.array(kernel)
    model.fit(ROWS, CLASSES % 2, verbose=0)

    assert not np.allclose(kernel, before)


def test_new_loss_and_optimizer(classifier):
    with restored(classifier) as session:
        logits = session.graph.get_tensor_by_name("net/logits/BiasAdd:0")
        loss = tf1.reduce_mean(tf1.square(logits - tf1.one_hot(Y[0], 3)))
        train_op = tf1.train.GradientDescentOptimizer(0.1).minimize(loss)
        losses = [session.run([loss, train_op], {"x:0": X[0]})[0] for _ in range(4)]

    model = kmg.load_from_meta_graph(classifier, outputs=["net/logits/BiasAdd:0"])
    model.compile(keras.optimizers.SGD(0.1), "mse")
    target = np.eye(3, dtype="float32")[Y[0]]

    again = [model.train_on_batch(X[0], [target]) for _ in range(4)]
    np.testing.assert_allclose(again, losses, rtol=1e-5)


def test_any_tensors_are_fetched(classifier):
    names = ["loss:0", "net/hidden_relu:0"]
    feeds = {"x:0": X[0], "y:0": Y[0]}
    with restored(classifier) as session:
        expected = session.run(names, feeds)
        only_hidden = session.run(names[1], {"x:0": X[0]})

    graph = kmg.load_from_meta_graph(classifier).meta_graph

    for value, wanted in zip(graph.run(names, feeds), expected, strict=True):
        np.testing.assert_allclose(value, wanted, **CLOSE)
    np.testing.assert_allclose(
        graph.run({"hidden": names[1]}, {"x:0": X[0]})["hidden"], only_hidden, **CLOSE
    )
    both = graph.fetch(*names).predict({"x": X[0], "y": Y[0]}, verbose=0, batch_size=6)
    np.testing.assert_allclose(both["net/hidden_relu:0"], only_hidden, **CLOSE)


def test_hparams_from_a_collection(classifier):
    model = kmg.load_from_meta_graph(classifier)

    (stored,) = model.meta_graph.collections["hparams"]

    assert json.loads(stored) == {"hidden": 8}


def test_graph_with_gpu_devices(classifier, tmp_path):
    with new_session() as session:
        with tf1.device("/device:GPU:0"):
            x = tf1.placeholder(tf.float32, [None, 5], name="x")
            logits = dense(x, 3, "logits")
        with tf1.device("/job:worker/replica:0/task:1/device:GPU:3"):
            tf1.nn.softmax(logits, name="probabilities")
        tf1.train.Saver()
        tf1.train.export_meta_graph(str(tmp_path / "gpu.meta"))
    with new_session() as session:
        tf1.train.import_meta_graph(str(tmp_path / "gpu.meta"), clear_devices=True)
        session.run(tf1.global_variables_initializer())
        probabilities = session.run("probabilities:0", {"x:0": ROWS})
        tf1.train.Saver().save(session, str(tmp_path / "gpu"), write_meta_graph=False)
    assert any(
        "GPU" in n.device for n in read_meta(f"{tmp_path}/gpu.meta").graph_def.node
    )

    model = kmg.load_from_meta_graph(tmp_path / "gpu.meta")

    np.testing.assert_allclose(model.predict(ROWS, verbose=0), probabilities, **CLOSE)


def test_signatures_of_a_saved_model(tmp_path):
    rows = {"left": ROWS, "right": ROWS[::-1].copy()}
    with new_session() as session:
        tensors = {
            key: tf1.placeholder(tf.float32, [None, 5], f"{key}_rows") for key in rows
        }
        scores = {key: dense(tensor, 1, key) for key, tensor in tensors.items()}
        better = scores["left"] > scores["right"]
        session.run(tf1.global_variables_initializer())
        signature = tf1.saved_model.predict_signature_def(tensors, {"better": better})
        builder = tf1.saved_model.Builder(str(tmp_path / "ranking"))
        builder.add_meta_graph_and_variables(session, ["serve"], {"rank": signature})
        builder.save()
        expected = session.run(better, {tensors[key]: rows[key] for key in rows})

    model = kmg.load_from_meta_graph(tmp_path / "ranking", tags=["serve"])
    rank = model.meta_graph.signatures["rank"]

    for answer in (rank(**rows), rank(rows), rank(rows["left"], rows["right"])):
        np.testing.assert_array_equal(answer["better"], expected)
    with pytest.raises(kmg.errors.SignatureError, match="right"):
        rank(left=ROWS)
    np.testing.assert_array_equal(
        keras.tree.flatten(model.predict(rows, verbose=0))[0], expected
    )
