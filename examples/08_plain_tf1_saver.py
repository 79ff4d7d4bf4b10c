"""Trains with Keras, and goes on in a TensorFlow 1 program that reads no `.meta`.

That program builds its own graph and restores the checkpoint with its own `Saver`: the
weights, Adam's slots and powers, and the global step have the names that it gives them.
`tf.compat.v1` stands for TensorFlow 1.15 here, which runs the same lines.
"""

import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import tempfile

import keras
import numpy as np
import tensorflow.compat.v1 as tf1
from rich import print

import keras_metagraph as kmg

keras.utils.set_random_seed(7)
random = np.random.default_rng(7)
x = random.normal(size=(128, 4)).astype("float32")
y = (x**2).sum(axis=1, keepdims=True)


def dense(inputs, units: int, name: str):
    """What `tf.layers.dense(inputs, units, name=name)` creates."""
    with tf1.variable_scope(name):
        kernel = tf1.get_variable("kernel", [inputs.shape[-1], units])
        bias = tf1.get_variable("bias", [units])
    return tf1.nn.bias_add(tf1.matmul(inputs, kernel), bias)


def continue_in_tf1(prefix: str, steps: int) -> list[float]:
    """Builds the model, restores it and trains, as a program of its own."""
    with tf1.Graph().as_default(), tf1.Session() as session:
        features = tf1.placeholder(tf1.float32, [None, 4])
        labels = tf1.placeholder(tf1.float32, [None, 1])
        score = dense(tf1.nn.tanh(dense(features, 16, "hidden")), 1, "score")
        loss = tf1.reduce_mean(tf1.squared_difference(score, labels))
        global_step = tf1.train.get_or_create_global_step()
        rate = tf1.train.exponential_decay(0.02, global_step, 50, 0.5)
        optimizer = tf1.train.AdamOptimizer(rate, epsilon=1e-7)
        train_op = optimizer.minimize(loss, global_step)

        saver = tf1.train.Saver()
        saver.restore(session, prefix)
        print("restored:", sorted(v.op.name for v in tf1.global_variables()))
        feeds = {features: x, labels: y}
        return [session.run([loss, train_op], feeds)[0] for _ in range(steps)]


model = keras.Sequential(
    [
        keras.Input((4,), name="x"),
        keras.layers.Dense(16, activation="tanh", name="hidden"),
        keras.layers.Dense(1, name="score"),
    ]
)
schedule = keras.optimizers.schedules.ExponentialDecay(0.02, 50, 0.5)
model.compile(keras.optimizers.Adam(schedule, epsilon=1e-7), "mse")
model.fit(x, y, epochs=10, verbose=2)

with tempfile.TemporaryDirectory() as folder:
    prefix = kmg.save_meta_graph(model, f"{folder}/model", model.optimizer.iterations)
    there = continue_in_tf1(prefix, 5)

here = [float(model.train_on_batch(x, y)) for _ in range(5)]
print("losses of the next steps, TensorFlow 1:", there)
print("losses of the next steps, Keras:       ", here)
assert np.allclose(there, here, rtol=1e-5)
