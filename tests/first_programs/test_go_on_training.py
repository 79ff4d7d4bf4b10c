"""Programs of TensorFlow 1 that stopped in the middle of a training."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import keras_metagraph as kmg
from first_programs.classifier import CLASSES, ROWS, X, Y, fit
from first_programs.sessions import (
    dense,
    new_session,
    read_meta,
    restored,
    run_signature,
    save,
    tf1,
)

CLOSE = {"rtol": 1e-6, "atol": 1e-6}


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


def test_what_a_keras_optimizer_trained_goes_back_to_a_session(classifier, tmp_path):
    model = kmg.load_from_meta_graph(
        classifier, outputs={"logits": "net/logits/BiasAdd:0"}
    )
    model.compile("adam", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    model.fit(ROWS, CLASSES, verbose=0)
    prefix = kmg.save_meta_graph(model, tmp_path / "on" / "model")
    signature = read_meta(f"{prefix}.meta").signature_def["train"]
    (label,) = signature.inputs.keys() - {"x"}
    feeds = {"x:0": ROWS, signature.inputs[label].name: CLASSES}
    with restored(prefix) as session:
        answer = run_signature(
            session, f"{prefix}.meta", "serving_default", {"x": ROWS}
        )
        train_op = tf1.get_collection("train_op")[-1]
        fetches = [signature.outputs["loss"].name, train_op]
        losses = [session.run(fetches, feeds)[0] for _ in range(3)]

    predicted = model.predict(ROWS, verbose=0)
    np.testing.assert_allclose(answer["logits"], predicted["logits"], **CLOSE)
    again = [model.train_on_batch(ROWS, CLASSES) for _ in range(3)]
    np.testing.assert_allclose(losses, again, **CLOSE)


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
    unfed = kmg.load_from_meta_graph(prefix)
    with pytest.raises(kmg.errors.SignatureError, match="learning_rate:0"):
        unfed.fit(ROWS, target, verbose=0)
    assert unfed.predict(ROWS, verbose=0).shape == (24, 1)


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
    latent = np.random.default_rng(6).normal(size=(4, 6, 2)).astype("float32")
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
