"""The program that everybody starts with, and its data."""

import json
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from first_programs.sessions import dense, new_session, save, tf1

RNG = np.random.default_rng(5)
X = RNG.normal(size=(4, 6, 5)).astype("float32")  # batches, samples, features
Y = RNG.integers(0, 3, (4, 6))
ROWS, CLASSES = np.concatenate(X), np.concatenate(Y)


def write_classifier(directory: Any) -> str:
    """Trains two dense layers for a step and saves them; returns the prefix."""
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
        return save(session, directory, step)


def fit(model: Any, x: Any = ROWS, y: Any = CLASSES) -> Any:
    """One epoch in the order of the data; the loss of each step, before its update."""
    losses = []
    each = keras.callbacks.LambdaCallback(
        on_train_batch_end=lambda batch, logs: losses.append(logs["loss"] * (batch + 1))
    )
    model.fit(x, y, batch_size=6, shuffle=False, verbose=0, callbacks=[each])
    return np.diff([0.0, *losses])  # Keras logs the mean since the epoch began
