"""A TensorFlow 1.15 script of its own restores our checkpoint with its own `Saver`.

It builds a model of the same names with `tf.layers` and `tf.train`, reads no `.meta`
and knows nothing of this package; it then takes the steps that Keras takes next.
"""

import textwrap

import keras
import numpy as np
import pytest
from keras import layers, optimizers

from keras_metagraph.saving import save_meta_graph
from keras_metagraph.training import optimizers as tf1

STEPS = 20
BATCH = 8

SCRIPT = """
    import numpy as np
    import tensorflow as tf


    def main(arrays, args):
        x = tf.placeholder(tf.float32, [None, 8, 8, 3])
        labels = tf.placeholder(tf.int64, [None])
        net = tf.layers.conv2d(x, 4, 3, activation=tf.nn.relu)
        net = tf.layers.batch_normalization(net, training=True)
        net = tf.layers.dense(tf.layers.flatten(net), 10, activation=tf.nn.tanh)
        logits = tf.layers.dense(net, 3)
        loss = tf.losses.sparse_softmax_cross_entropy(labels, logits)
        step = tf.train.get_or_create_global_step()
        rate = args["rate"]
        if args["decay_steps"]:
            rate = tf.train.exponential_decay(rate, step, args["decay_steps"], 0.5)
        optimizer = getattr(tf.train, args["optimizer"])(rate, **args["settings"])
        gradients = optimizer.compute_gradients(loss)
        if args["clipvalue"]:
            bound = args["clipvalue"]
            gradients = [(tf.clip_by_value(g, -bound, bound), v) for g, v in gradients]
        with tf.control_dependencies(tf.get_collection(tf.GraphKeys.UPDATE_OPS)):
            train_op = optimizer.apply_gradients(gradients, global_step=step)
        saver = tf.train.Saver()
        config = tf.ConfigProto(
            intra_op_parallelism_threads=1, inter_op_parallelism_threads=1
        )
        with tf.Session(config=config) as session:
            saver.restore(session, args["prefix"])
            losses = [
                session.run([loss, train_op], {x: images, labels: classes})[0]
                for images, classes in zip(arrays["x"], arrays["y"])
            ]
            results = {v.op.name: v for v in tf.trainable_variables()}
            results = session.run(dict(results, global_step=step))
        return dict(results, losses=np.array(losses))
"""


def decayed():
    return optimizers.schedules.ExponentialDecay(0.02, 15, 0.5)


# The Keras optimizer, the class in `tf.train`, its settings.
CASES = {
    "adam": (
        lambda: optimizers.Adam(0.01),
        "AdamOptimizer",
        {"epsilon": 1e-7},
    ),
    "adam_clipped": (
        lambda: optimizers.Adam(0.01, clipvalue=0.01),
        "AdamOptimizer",
        {"epsilon": 1e-7},
    ),
    "adam_scheduled": (
        lambda: optimizers.Adam(decayed()),
        "AdamOptimizer",
        {"epsilon": 1e-7},
    ),
    "adam_scaled_loss": (
        lambda: optimizers.LossScaleOptimizer(optimizers.Adam(0.01)),
        "AdamOptimizer",
        {"epsilon": 1e-7},
    ),
    "tf1_adam": (lambda: tf1.TF1Adam(0.01), "AdamOptimizer", {}),
    "tf1_momentum": (
        lambda: tf1.TF1Momentum(0.02, momentum=0.9),
        "MomentumOptimizer",
        {"momentum": 0.9},
    ),
    "tf1_nesterov_scheduled": (
        lambda: tf1.TF1Momentum(decayed(), momentum=0.9, use_nesterov=True),
        "MomentumOptimizer",
        {"momentum": 0.9, "use_nesterov": True},
    ),
    "gradient_descent": (
        lambda: optimizers.SGD(0.05),
        "GradientDescentOptimizer",
        {},
    ),
    "rmsprop": (
        lambda: optimizers.RMSprop(0.005),
        "RMSPropOptimizer",
        {"epsilon": 1e-7},
    ),
    "rmsprop_momentum": (
        lambda: optimizers.RMSprop(0.002, rho=0.8, momentum=0.5),
        "RMSPropOptimizer",
        {"decay": 0.8, "momentum": 0.5, "epsilon": 1e-7},
    ),
    "rmsprop_centered": (
        lambda: optimizers.RMSprop(0.002, momentum=0.5, centered=True),
        "RMSPropOptimizer",
        {"momentum": 0.5, "centered": True, "epsilon": 1e-7},
    ),
    "adagrad": (lambda: optimizers.Adagrad(0.05), "AdagradOptimizer", {}),
    "tf1_adagrad": (lambda: tf1.TF1Adagrad(0.05), "AdagradOptimizer", {}),
    "adadelta": (
        lambda: optimizers.Adadelta(0.5),
        "AdadeltaOptimizer",
        {"epsilon": 1e-7},
    ),
    "ftrl": (
        lambda: optimizers.Ftrl(0.5, l2_regularization_strength=0.001),
        "FtrlOptimizer",
        {"l2_regularization_strength": 0.001},
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_a_script_of_its_own_goes_on(name, tf115, tmp_path):
    make, kind, settings = CASES[name]
    model = keras.Sequential(
        [
            keras.Input((8, 8, 3)),
            layers.Conv2D(4, 3, activation="relu"),
            layers.BatchNormalization(),
            layers.Flatten(),
            layers.Dense(10, activation="tanh"),
            layers.Dense(3),
        ]
    )
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    optimizer = make()
    model.compile(optimizer, loss)
    rng = np.random.default_rng(11)
    x = rng.normal(size=(2 * STEPS, BATCH, 8, 8, 3)).astype("float32")
    y = rng.integers(0, 3, (2 * STEPS, BATCH))
    for step in range(STEPS):
        model.train_on_batch(x[step], y[step])
    prefix = save_meta_graph(model, tmp_path / "model", STEPS)
    inner = getattr(optimizer, "inner_optimizer", optimizer)
    scheduled = name.endswith("scheduled")
    args = {
        "prefix": prefix,
        "optimizer": kind,
        "settings": settings,
        "rate": 0.02 if scheduled else float(inner.learning_rate.numpy()),
        "decay_steps": 15 if scheduled else 0,
        "clipvalue": inner.clipvalue or 0,
    }
    found = tf115(textwrap.dedent(SCRIPT), {"x": x[STEPS:], "y": y[STEPS:]}, args)

    losses = []
    for step in range(STEPS, 2 * STEPS):
        model.reset_metrics()
        losses.append(float(model.train_on_batch(x[step], y[step])))
    assert np.ptp(losses) > 0.01
    np.testing.assert_allclose(found["losses"], losses, rtol=1e-5)
    assert found["global_step"] == 2 * STEPS
    for weight in model.trainable_weights:
        name = "/".join(weight.path.split("/")[-2:])
        np.testing.assert_allclose(found[name], weight, rtol=1e-4, atol=1e-5)
