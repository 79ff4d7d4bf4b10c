"""Programs of TensorFlow 1 that another one went on with, now Keras."""

import json

import keras
import numpy as np
import pytest
import tensorflow as tf

import keras_metagraph as kmg
from first_programs.sessions import (
    dense,
    new_session,
    read_meta,
    restored,
    save,
    tf1,
)

RNG = np.random.default_rng(5)
X = RNG.normal(size=(4, 6, 5)).astype("float32")  # batches, samples, features
Y = RNG.integers(0, 3, (4, 6))
ROWS, CLASSES = np.concatenate(X), np.concatenate(Y)
CLOSE = {"rtol": 1e-6, "atol": 1e-6}


def fit(model, x=ROWS, y=CLASSES, **arguments):
    """One epoch in the order of the data; the loss of each step, before its update."""
    losses = []
    each = keras.callbacks.LambdaCallback(
        on_train_batch_end=lambda batch, logs: losses.append(logs["loss"] * (batch + 1))
    )
    model.fit(
        x, y, batch_size=6, shuffle=False, verbose=0, callbacks=[each], **arguments
    )
    return np.diff([0.0, *losses])  # Keras logs the mean since the epoch began


@pytest.fixture
def classifier(tmp_path):
    """Writes the program everybody starts with; gives its prefix."""
    with new_session() as session:
        x = tf1.placeholder(tf.float32, [None, 5], name="x")
        y = tf1.placeholder(tf.int64, [None], name="y")
        with tf1.variable_scope("net"):
            hidden = tf1.nn.relu(dense(x, 8, "hidden"), name="hidden_relu")
            logits = dense(hidden, 3, "logits")
        loss = tf1.reduce_mean(
            tf1.nn.sparse_softmax_cross_entropy_with_logits(labels=y, logits=logits),
            name="loss",
        )
        step = tf1.train.get_or_create_global_step()
        train_op = tf1.train.AdamOptimizer(0.05).minimize(loss, step)
        tf1.add_to_collection("train_op", train_op)
        tf1.add_to_collection("hparams", json.dumps({"hidden": 8}).encode())
        session.run(tf1.global_variables_initializer())
        session.run(train_op, {x: X[0], y: Y[0]})
        return save(session, tmp_path, step)


def test_train_op_in_a_collection(classifier):
    with restored(classifier) as session:
        train_op = tf1.get_collection("train_op")[0]
        losses = [
            session.run(["loss:0", train_op], {"x:0": x, "y:0": y})[0]
            for x, y in zip(X, Y, strict=True)
        ]
        after = session.run({v.op.name: v for v in tf1.global_variables()})

    model = kmg.load_from_meta_graph(classifier)

    np.testing.assert_allclose(fit(model), losses, **CLOSE)
    assert int(model.optimizer.iterations) == 5
    for name, value in after.items():
        np.testing.assert_allclose(model.meta_graph.variables[name], value, **CLOSE)


def test_what_keras_trained_goes_back_to_a_session(classifier, tmp_path):
    model = kmg.load_from_meta_graph(classifier)
    fit(model)
    prefix = kmg.save_meta_graph(model, tmp_path / "on" / "model", 5)
    with restored(prefix) as session:
        logits = session.run("net/logits/BiasAdd:0", {"x:0": ROWS})
        train_op = tf1.get_collection("train_op")[0]
        losses = [
            session.run(["loss:0", train_op], {"x:0": x, "y:0": y})[0]
            for x, y in zip(X, Y, strict=True)
        ]

    np.testing.assert_allclose(
        keras.tree.flatten(model.predict(ROWS, verbose=0))[0], logits, **CLOSE
    )
    np.testing.assert_allclose(fit(model), losses, **CLOSE)


def test_hparams_from_a_collection(classifier):
    model = kmg.load_from_meta_graph(classifier)

    (stored,) = model.meta_graph.collections["hparams"]

    assert json.loads(stored) == {"hidden": 8}


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


def test_inference_graph_extended_to_training(tmp_path):
    """The images are a constant, as in the example of TensorFlow's own manual."""
    with new_session() as session:
        images = tf1.constant(1.2, tf.float32, shape=[100, 28], name="images")
        with tf1.name_scope("hidden1"):
            weights = tf1.Variable(
                tf1.truncated_normal([28, 16], stddev=0.2),
                name="weights",
                use_resource=False,
            )
            hidden1 = tf1.nn.relu(tf1.matmul(images, weights), name="relu")
        with tf1.name_scope("softmax_linear"):
            weights = tf1.Variable(
                tf1.truncated_normal([16, 10], stddev=0.2),
                name="weights",
                use_resource=False,
            )
            logits = tf1.matmul(hidden1, weights, name="logits")
        tf1.add_to_collection("logits", logits)
        session.run(tf1.global_variables_initializer())
        prefix = save(session, tmp_path, 10000)
    pixels = RNG.normal(size=(100, 28)).astype("float32")
    labels = np.arange(100) % 10
    with restored(prefix) as session:
        logits = tf1.get_collection("logits")[0]
        loss = tf1.reduce_mean(
            tf1.nn.sparse_softmax_cross_entropy_with_logits(
                labels=labels, logits=logits
            )
        )
        train_op = tf1.train.GradientDescentOptimizer(0.5).minimize(loss)
        losses = [session.run([loss, train_op], {"images:0": pixels})[0] for _ in "abc"]

    model = kmg.load_from_meta_graph(
        prefix, inputs=["images:0"], outputs=["softmax_linear/logits:0"]
    )
    model.compile(
        keras.optimizers.SGD(0.5),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
    )

    again = [model.train_on_batch([pixels], [labels]) for _ in "abc"]
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


def test_learning_rate_is_fed(tmp_path):
    with new_session() as session:
        x = tf1.placeholder(tf.float32, [None, 5], name="x")
        y = tf1.placeholder(tf.float32, [None, 1], name="y")
        rate = tf1.placeholder(tf.float32, [], name="learning_rate")
        loss = tf1.reduce_mean(tf1.square(dense(x, 1, "score") - y), name="loss")
        tf1.train.MomentumOptimizer(rate, 0.9).minimize(loss, name="train")
        session.run(tf1.global_variables_initializer())
        prefix = save(session, tmp_path)
    target = ROWS[:, :1] * 2.0
    with restored(prefix) as session:
        losses = [
            session.run(
                ["loss:0", "train"],
                {"x:0": x, "y:0": x[:, :1] * 2.0, "learning_rate:0": 0.25},
            )[0]
            for x in X
        ]

    model = kmg.load_from_meta_graph(
        prefix, train_op="train", feeds={"learning_rate:0": 0.25}
    )

    np.testing.assert_allclose(fit(model, y=target), losses, **CLOSE)


def test_gan_with_two_train_ops(tmp_path):
    with new_session() as session:
        noise = tf1.placeholder(tf.float32, [None, 2], name="noise")
        real = tf1.placeholder(tf.float32, [None, 5], name="real")
        with tf1.variable_scope("generator"):
            fake = dense(tf1.nn.relu(dense(noise, 8, "a")), 5, "image")

        def discriminator(images):
            with tf1.variable_scope("discriminator", reuse=tf1.AUTO_REUSE):
                return dense(tf1.nn.relu(dense(images, 8, "a")), 1, "score")

        def entropy(scores, label):
            return tf1.reduce_mean(
                tf1.nn.sigmoid_cross_entropy_with_logits(
                    logits=scores, labels=tf1.fill(tf1.shape(scores), label)
                )
            )

        scores = discriminator(fake)
        d_loss = tf1.add(
            entropy(discriminator(real), 1.0), entropy(scores, 0.0), name="d_loss"
        )
        g_loss = tf1.identity(entropy(scores, 1.0), name="g_loss")
        d_train, g_train = (tf1.train.AdamOptimizer(0.02) for _ in range(2))
        d_pairs = d_train.compute_gradients(
            d_loss, tf1.trainable_variables("discriminator")
        )
        g_pairs = g_train.compute_gradients(
            g_loss, tf1.trainable_variables("generator")
        )
        # Who reads first is open in TensorFlow 1, unless the program says it.
        with tf1.control_dependencies([gradient for gradient, _ in d_pairs + g_pairs]):
            d_train.apply_gradients(d_pairs, name="d_train")
            g_train.apply_gradients(g_pairs, name="g_train")
        session.run(tf1.global_variables_initializer())
        prefix = save(session, tmp_path)
    latent = RNG.normal(size=(4, 6, 2)).astype("float32")
    with restored(prefix) as session:
        losses = [
            session.run(
                ["d_loss:0", "d_train", "g_train"], {"noise:0": z, "real:0": x}
            )[0]
            for z, x in zip(latent, X, strict=True)
        ]
        images = session.run("generator/image/BiasAdd:0", {"noise:0": latent[0]})

    model = kmg.load_from_meta_graph(
        prefix,
        inputs={"noise": "noise:0"},
        outputs={"image": "generator/image/BiasAdd:0"},
        labels={"real": "real:0"},
        loss="d_loss:0",
        train_op=["d_train", "g_train"],
    )
    data = {"noise": np.concatenate(latent)}, {"real": ROWS}

    np.testing.assert_allclose(fit(model, *data), losses, rtol=1e-4)
    made = model.predict({"noise": latent[0]}, verbose=0)["image"]
    np.testing.assert_allclose(made, images, rtol=1e-3, atol=1e-4)


def test_moving_averages_follow_the_train_op(tmp_path):
    with new_session() as session:
        x = tf1.placeholder(tf.float32, [None, 5], name="x")
        y = tf1.placeholder(tf.float32, [None, 1], name="y")
        score = dense(x, 1, "score")
        loss = tf1.reduce_mean(tf1.square(score - y), name="loss")
        step = tf1.train.get_or_create_global_step()
        minimize = tf1.train.GradientDescentOptimizer(0.1).minimize(loss, step)
        average = tf1.train.ExponentialMovingAverage(0.9, step)
        with tf1.control_dependencies([minimize]):
            train_op = average.apply(tf1.trainable_variables())
        tf1.add_to_collection("train_op", train_op)
        session.run(tf1.variables_initializer(tf1.trainable_variables()))
        session.run(tf1.global_variables_initializer())  # the averages start there
        prefix = save(session, tmp_path, step)
    target = ROWS[:, :1] * 2.0
    with restored(prefix) as session:
        train_op = tf1.get_collection("train_op")[-1]  # [0] is minimize by itself
        for x in X:
            session.run(train_op, {"x:0": x, "y:0": x[:, :1] * 2.0})
        after = session.run({v.op.name: v for v in tf1.global_variables()})

    model = kmg.load_from_meta_graph(prefix)
    fit(model, y=target)

    assert "score/kernel/ExponentialMovingAverage" in after
    for name, value in after.items():
        np.testing.assert_allclose(model.meta_graph.variables[name], value, **CLOSE)


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


def test_steps_by_hand(classifier):
    """The loop of a session, word for word."""
    with restored(classifier) as session:
        train_op = tf1.get_collection("train_op")[0]
        losses = [
            session.run(["loss:0", train_op], {"x:0": x, "y:0": y})[0]
            for x, y in zip(X, Y, strict=True)
        ]

    graph = kmg.load_from_meta_graph(classifier).meta_graph
    train_op = graph.collections["train_op"][0]
    again = [
        graph.run(["loss:0", train_op], {"x:0": x, "y:0": y})[0]
        for x, y in zip(X, Y, strict=True)
    ]

    np.testing.assert_allclose(again, losses, **CLOSE)
    assert graph.run("global_step:0") == 5


def test_keras_file_and_back(classifier, tmp_path):
    model = kmg.load_from_meta_graph(classifier)
    fit(model)
    model.save(tmp_path / "m.keras")
    again = keras.saving.load_model(tmp_path / "m.keras")

    for value, wanted in zip(
        keras.tree.flatten(again.predict(ROWS, verbose=0)),
        keras.tree.flatten(model.predict(ROWS, verbose=0)),
        strict=True,
    ):
        np.testing.assert_array_equal(value, wanted)
    assert int(again.optimizer.iterations) == int(model.optimizer.iterations) == 5
    np.testing.assert_array_equal(fit(again), fit(model))
    for name, value in model.meta_graph.variables.items():
        np.testing.assert_array_equal(again.meta_graph.variables[name], value)
