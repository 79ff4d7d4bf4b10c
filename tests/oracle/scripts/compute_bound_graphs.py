"""Exports whose training step is bound by compute; and how fast 1.15.5 trains them.

`main` with `folder` writes them. With `prefix` it trains one of them.
"""

import os
import time

import numpy as np
import tensorflow as tf

tf.logging.set_verbosity(tf.logging.ERROR)


def conv_net(small):
    """13 blocks of convolution, batch normalization and relu on images of 48 x 48."""
    x = tf.placeholder(tf.float32, [None, 48, 48, 3], name="x")
    y = tf.placeholder(tf.int64, [None], name="y")
    widths = [8, 8] if small else [32] * 3 + [64] * 4 + [128] * 6
    net = x
    for place, width in enumerate(widths):
        grows = place > 0 and width != widths[place - 1]
        net = tf.layers.conv2d(net, width, 3, 2 if grows else 1, "same", use_bias=False)
        net = tf.nn.relu(tf.layers.batch_normalization(net, training=True))
    logits = tf.layers.dense(tf.reduce_mean(net, [1, 2]), 10)
    loss = tf.losses.sparse_softmax_cross_entropy(y, logits)
    updates = tf.get_collection(tf.GraphKeys.UPDATE_OPS)
    with tf.control_dependencies(updates):
        optimizer = tf.train.MomentumOptimizer(0.01, 0.9)
        return (
            x,
            y,
            loss,
            optimizer.minimize(
                loss, tf.train.get_or_create_global_step(), name="train_op"
            ),
        )


def recurrent_net(small):
    """Two LSTM layers of 256 units over 40 steps."""
    units = 8 if small else 256
    x = tf.placeholder(tf.float32, [None, 40, 64], name="x")
    y = tf.placeholder(tf.int64, [None], name="y")
    cells = [tf.nn.rnn_cell.BasicLSTMCell(units) for _ in range(2)]
    outputs, _ = tf.nn.dynamic_rnn(
        tf.nn.rnn_cell.MultiRNNCell(cells), x, dtype=tf.float32
    )
    logits = tf.layers.dense(outputs[:, -1], 10)
    loss = tf.losses.sparse_softmax_cross_entropy(y, logits)
    return (
        x,
        y,
        loss,
        tf.train.AdamOptimizer(1e-3).minimize(
            loss, tf.train.get_or_create_global_step(), name="train_op"
        ),
    )


def write(folder, name, build, small):
    """Writes one export."""
    with tf.Graph().as_default(), tf.Session() as session:
        tf.set_random_seed(3)
        _, _, loss, _ = build(small)
        tf.identity(loss, "loss")
        session.run(tf.global_variables_initializer())
        tf.train.Saver().save(session, os.path.join(folder, name))


def train(prefix, arrays, steps):
    """Seconds of each step after the first two, and the losses."""
    with tf.Graph().as_default(), tf.Session() as session:
        tf.train.import_meta_graph(prefix + ".meta").restore(session, prefix)
        losses, seconds = [], []
        feeds = {"x:0": arrays["x"], "y:0": arrays["y"]}
        for _ in range(steps + 2):
            start = time.perf_counter()
            losses.append(session.run(["loss:0", "train_op"], feeds)[0])
            seconds.append(time.perf_counter() - start)
    return {"seconds": np.array(seconds[2:]), "losses": np.array(losses)}


def main(arrays, args):
    """See above."""
    if "prefix" in args:
        return train(args["prefix"], arrays, args["steps"])
    small = args["small"]
    write(args["folder"], "conv", conv_net, small)
    write(args["folder"], "lstm", recurrent_net, small)
    return {}
