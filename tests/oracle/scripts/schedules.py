"""Learning rates of TensorFlow 1.15, each as a graph and as its values.

Settings:
    folder      where `<name>.meta` is written for each
    steps       at which the rates are evaluated

Returns `<name>`: the rates, `(steps,)`.
"""

import os

import tensorflow.compat.v1 as tf


def bert(step):
    """Warm-up and decay as in `optimization.py` of BERT."""
    rate = tf.constant(5e-3, tf.float32, [])
    rate = tf.train.polynomial_decay(rate, step, 200, 0.0, power=1.0, cycle=False)
    done, warm = tf.cast(step, tf.int32), tf.constant(20, tf.int32)
    percent = tf.cast(done, tf.float32) / tf.cast(warm, tf.float32)
    is_warmup = tf.cast(done < warm, tf.float32)
    return (1.0 - is_warmup) * rate + is_warmup * (5e-3 * percent)


def noam(step):
    """The rate of "Attention is all you need"."""
    count = tf.cast(step, tf.float32) + 1.0
    return 64**-0.5 * tf.minimum(tf.rsqrt(count), count * 40.0**-1.5)


def by_cond(step):
    """A rate of the user's own conditions."""
    return tf.cond(
        step < 30, lambda: tf.constant(0.1), lambda: 3.0 / tf.cast(step, tf.float32)
    )


def by_case(step):
    """Steps by tf.case, as the tutorials of 2017 have them."""
    return tf.case(
        [
            (tf.less(step, 10), lambda: tf.constant(0.1)),
            (tf.less(step, 50), lambda: tf.constant(0.01)),
        ],
        default=lambda: tf.constant(0.001),
        exclusive=False,
    )


def epochs(step):
    """A decay whose steps the graph computes."""
    epoch = tf.constant(25) * 2
    return tf.train.exponential_decay(0.1, step, epoch, 0.94, staircase=True)


def counting(step):
    """A rate that is read after the counter went on, as Keras 2.3 does."""
    with tf.control_dependencies([tf.assign_add(step, 1)]):
        count = tf.cast(step.read_value(), tf.float32)
    return 0.1 / tf.sqrt(count)


def variable_rate(step):
    """A rate that is a variable of the user's."""
    rate = tf.get_variable("rate", initializer=0.03, trainable=False)
    tf.assign(rate, rate * 0.5, name="halve")
    return rate


def decay_of_variables(step):
    """As tf.keras and Keras 2 have it: lr / (1 + decay * iterations)."""
    rate = tf.get_variable("lr", initializer=0.01, trainable=False)
    decay = tf.get_variable("decay", initializer=0.004, trainable=False)
    return rate * (1.0 / (1.0 + decay * tf.cast(step, tf.float32)))


train = tf.train
RATES = {
    "constant": lambda s: tf.constant(0.01),
    "exponential": lambda s: train.exponential_decay(0.1, s, 40, 0.9),
    "staircase": lambda s: train.exponential_decay(0.1, s, 40, 0.9, True),
    "epochs": epochs,
    "halved": lambda s: 0.5 * train.exponential_decay(0.1, s, 40, 0.9),
    "natural": lambda s: train.natural_exp_decay(0.1, s, 30, 0.4),
    "natural_stairs": lambda s: train.natural_exp_decay(0.1, s, 30, 0.4, True),
    "inverse": lambda s: train.inverse_time_decay(0.1, s, 30, 0.7),
    "inverse_stairs": lambda s: train.inverse_time_decay(0.1, s, 30, 0.7, True),
    "polynomial": lambda s: train.polynomial_decay(0.1, s, 60, 0.001),
    "power": lambda s: train.polynomial_decay(0.1, s, 60, 0.001, power=1.5),
    "root": lambda s: train.polynomial_decay(0.1, s, 60, 0.0, power=0.5),
    "cycle": lambda s: train.polynomial_decay(0.1, s, 60, 0.001, 2.0, True),
    "piecewise": lambda s: train.piecewise_constant(
        s, [10, 50, 51], [0.1, 0.05, 0.01, 0.001]
    ),
    "cosine": lambda s: train.cosine_decay(0.1, s, 60, alpha=0.05),
    "cosine_to_0": lambda s: train.cosine_decay(0.1, s, 60),
    "restarts": lambda s: train.cosine_decay_restarts(0.1, s, 20),
    "restarts_lower": lambda s: train.cosine_decay_restarts(
        0.1, s, 20, t_mul=1.5, m_mul=0.8, alpha=0.1
    ),
    "linear_cosine": lambda s: train.linear_cosine_decay(0.1, s, 60),
    "linear_cosine_4": lambda s: train.linear_cosine_decay(
        0.1, s, 60, num_periods=2.0, alpha=0.1, beta=0.01
    ),
    "noisy": lambda s: train.noisy_linear_cosine_decay(0.1, s, 60),
    "bert": bert,
    "noam": noam,
    "by_cond": by_cond,
    "by_case": by_case,
    "counting": counting,
    "variable_rate": variable_rate,
    "decay_of_variables": decay_of_variables,
    "clipped": lambda s: tf.maximum(train.exponential_decay(0.1, s, 10, 0.5), 1e-4),
    "sum": lambda s: train.exponential_decay(0.1, s, 10, 0.5) + 0.01,
    "fed": lambda s: tf.placeholder(tf.float32, [], "lr"),
    "fed_and_decayed": lambda s: train.exponential_decay(
        tf.placeholder_with_default(0.1, [], "base"), s, 10, 0.5
    ),
}


def main(arrays, args):
    """See above."""
    results = {}
    for name, build in RATES.items():
        for kind in ("ref", "resource"):
            with tf.Graph().as_default() as graph:
                tf.get_variable_scope().set_use_resource(kind == "resource")
                dtype = tf.int64 if kind == "resource" else tf.int32
                step = tf.get_variable(
                    "global_step", [], dtype, tf.zeros_initializer(), trainable=False
                )
                tf.add_to_collection(tf.GraphKeys.GLOBAL_STEP, step)
                rate = build(step)
                tf.convert_to_tensor(rate)
                w = tf.get_variable("w", [3])
                optimizer = tf.train.GradientDescentOptimizer(rate)
                optimizer.minimize(tf.reduce_sum(w**2), step, name="train_op")
                apply = next(o for o in graph.get_operations() if "Apply" in o.type)
                used = apply.inputs[1]
                key = f"{name}/{kind}"
                path = os.path.join(args["folder"], key.replace("/", "-") + ".meta")
                tf.train.export_meta_graph(path)
                if name in ("noisy", "fed"):
                    continue
                results[key] = _values(used, step, args["steps"])
                results[key + "/tensor"] = used.name
    return results


def _values(rate, step, steps):
    value = tf.placeholder(step.dtype.base_dtype, [])
    assign = tf.assign(step, value)
    rates = []
    with tf.Session() as sess:
        sess.run(tf.global_variables_initializer())
        for at in steps:
            sess.run(assign, {value: at})
            rates.append(sess.run(rate))
    return rates
