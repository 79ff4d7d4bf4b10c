"""Trains small graphs in TensorFlow 1.15 with all sorts of optimizers.

Settings:
    folder      where `<case>/model.meta` and its checkpoint are written
    cases       names of `CASES`; by default all
    kinds       of "dense", "sparse" (an embedding), each with "-resource" or without
    before      steps before the checkpoint
    after       steps after it

The graph takes `ids:0` or `x:0`, and `y:0`; its train op is `train_op`, its loss
`loss:0`. Returns for `<case>/<kind>`:
    .../loss    the losses of the steps after the checkpoint, before each update
    .../v/NAME  each variable after them
and the batches, `x`, `ids` and `y`, `(steps, batch, ...)`.
"""

import os

import numpy as np
import tensorflow.compat.v1 as tf
from tensorflow import contrib

WORDS, UNITS, BATCH = 12, 4, 6


class Plain(tf.train.Optimizer):
    """An optimizer of plain ops, as BERT's; `step` gives the update and the slots."""

    def __init__(self, rate, step, slots, excluded=(), name="Plain"):
        super().__init__(False, name)
        self.rate, self.step, self.slots = rate, step, slots
        self.excluded = excluded

    def apply_gradients(self, pairs, global_step=None, name=None):
        """Assigns all that changes."""
        assignments = []
        for grad, var in pairs:
            if isinstance(grad, tf.IndexedSlices):
                grad = tf.convert_to_tensor(grad)
            key = var.op.name
            kept = [
                tf.get_variable(
                    key + "/" + slot,
                    var.shape.as_list(),
                    tf.float32,
                    tf.zeros_initializer(),
                    trainable=False,
                )
                for slot in self.slots
            ]
            decays = not any(part in key for part in self.excluded)
            update, new = self.step(self.rate, grad, var, kept, decays)
            assignments += [old.assign(value) for old, value in zip(kept, new)]
            assignments.append(var.assign(var - update))
        if global_step is not None:
            with tf.control_dependencies(assignments):
                assignments = [tf.assign_add(global_step, 1)]
        return tf.group(*assignments, name=name)


def bert(rate, g, w, slots, decays):
    """BERT's AdamWeightDecayOptimizer."""
    m = tf.multiply(0.9, slots[0]) + tf.multiply(1.0 - 0.9, g)
    v = tf.multiply(0.999, slots[1]) + tf.multiply(1.0 - 0.999, tf.square(g))
    update = m / (tf.sqrt(v) + 1e-6)
    if decays:
        update += 0.01 * w
    return rate * update, [m, v]


def lamb(rate, g, w, slots, decays):
    """ALBERT's LAMBOptimizer."""
    m = tf.multiply(0.9, slots[0]) + tf.multiply(1.0 - 0.9, g)
    v = tf.multiply(0.999, slots[1]) + tf.multiply(1.0 - 0.999, tf.square(g))
    update = m / (tf.sqrt(v) + 1e-6)
    if decays:
        update += 0.01 * w
    ratio = 1.0
    if decays:
        w_norm, u_norm = tf.norm(w, ord=2), tf.norm(update, ord=2)
        ones = tf.where(tf.greater(u_norm, 0), w_norm / u_norm, 1.0)
        ratio = tf.where(tf.greater(w_norm, 0), ones, 1.0)
    return ratio * rate * update, [m, v]


def own_momentum(rate, g, w, slots, decays):
    """Momentum as a student writes it."""
    a = 0.9 * slots[0] + g
    return rate * a, [a]


def own_adagrad(rate, g, w, slots, decays):
    """Adagrad with Keras's epsilon."""
    a = slots[0] + tf.square(g)
    return rate * g / (tf.sqrt(a) + 1e-7), [a]


def own_rmsprop(rate, g, w, slots, decays):
    """RMSprop of Keras 2."""
    a = 0.9 * slots[0] + (1.0 - 0.9) * tf.square(g)
    return rate * g / (tf.sqrt(a) + 1e-7), [a]


def own_unknown(rate, g, w, slots, decays):
    """Something that is no known optimizer."""
    a = 0.9 * slots[0] + tf.abs(g) * g
    return rate * tf.tanh(a), [a]


def plain(function, slots, excluded=()):
    """A case of `Plain`."""

    def build(loss, step):
        rate = tf.train.polynomial_decay(0.05, step, 40, 0.001)
        return Plain(rate, function, slots, excluded).minimize(
            loss, step, name="train_op"
        )

    return build


def minimize(make, scheduled=False):
    """A case that calls `minimize`."""

    def build(loss, step):
        rate = tf.train.exponential_decay(0.1, step, 7, 0.8) if scheduled else 0.1
        return make(rate, step).minimize(loss, step, name="train_op")

    return build


def keras(make):
    """A case with an optimizer of tf.keras."""

    def build(loss, step):
        del step
        updates = make().get_updates(loss, tf.trainable_variables())
        return tf.group(*updates, name="train_op")

    return build


def chain(change, make=None):
    """A case that does something to the gradients."""

    def build(loss, step):
        optimizer = make() if make else tf.train.AdamOptimizer(0.1)
        pairs = optimizer.compute_gradients(loss)
        gradients = change([g for g, _ in pairs], [v for _, v in pairs])
        return optimizer.apply_gradients(
            list(zip(gradients, [v for _, v in pairs])), step, name="train_op"
        )

    return build


def each(function):
    """Changes gradients one by one."""
    return lambda gradients, _: [function(g) for g in gradients]


def scaled_loss(loss, step):
    """Static loss scaling."""
    optimizer = tf.train.MomentumOptimizer(0.1, 0.9)
    pairs = optimizer.compute_gradients(loss * 128.0)
    pairs = [(_times(g, 1.0 / 128.0), v) for g, v in pairs]
    return optimizer.apply_gradients(pairs, step, name="train_op")


def _times(g, factor):
    if isinstance(g, tf.IndexedSlices):
        return tf.IndexedSlices(g.values * factor, g.indices, g.dense_shape)
    return g * factor


def scaled_and_clipped(loss, step):
    """Loss scaling, then clipping."""
    optimizer = tf.train.AdamOptimizer(0.1)
    variables = tf.trainable_variables()
    gradients = tf.gradients(loss * 1024.0, variables)
    gradients = [_times(g, 1.0 / 1024.0) for g in gradients]
    gradients, _ = tf.clip_by_global_norm(gradients, 0.5)
    return optimizer.apply_gradients(zip(gradients, variables), step, name="train_op")


def wide_and_deep(loss, step):
    """Two optimizers in one step."""
    first, *rest = tf.trainable_variables()
    one = tf.train.FtrlOptimizer(0.1).minimize(loss, var_list=[first])
    two = tf.train.AdagradOptimizer(0.05).minimize(loss, var_list=rest)
    with tf.control_dependencies([one, two]):
        counted = tf.assign_add(step, 1)
    return tf.group(counted, name="train_op")


def slow_and_fast(loss, step):
    """Two rates."""
    first, *rest = tf.trainable_variables()
    gradients = tf.gradients(loss, [first, *rest])
    slow = tf.train.AdamOptimizer(tf.train.exponential_decay(0.01, step, 9, 0.5))
    fast = tf.train.AdamOptimizer(0.1)
    return tf.group(
        slow.apply_gradients([(gradients[0], first)], step),
        fast.apply_gradients(zip(gradients[1:], rest)),
        name="train_op",
    )


def contrib_layers(loss, step):
    """tf.contrib.layers.optimize_loss."""
    train = contrib.layers.optimize_loss(
        loss,
        step,
        learning_rate=0.1,
        optimizer="Adam",
        clip_gradients=0.5,
        learning_rate_decay_fn=lambda r, s: tf.train.exponential_decay(r, s, 10, 0.9),
        summaries=[],
    )
    return tf.identity(train, name="train_op")


def norm_of_all(gradients, _):
    """clip_by_global_norm."""
    return tf.clip_by_global_norm(gradients, 0.5)[0]


def clipped_by_hand(gradients, _):
    """A global norm as people write it."""
    dense = [tf.convert_to_tensor(g) for g in gradients]
    norm = tf.sqrt(sum(tf.reduce_sum(g * g) for g in dense))
    return [g * tf.minimum(1.0, 0.5 / norm) for g in dense]


def multiplied(gradients, _):
    """Another rate for biases."""
    last = len(gradients) - 1
    return [_times(g, 2.0 if i == last else 1.0) for i, g in enumerate(gradients)]


def noisy(gradients, _):
    """Gradient noise."""
    dense = [tf.convert_to_tensor(g) for g in gradients]
    return [g + tf.random_normal(tf.shape(g), stddev=1e-3) for g in dense]


def decayed(gradients, variables):
    """Weight decay in the gradient."""
    dense = [tf.convert_to_tensor(g) for g in gradients]
    return [g + 0.01 * v for g, v in zip(dense, variables)]


def _weighted(make):
    return minimize(lambda r, s: make(0.001, r))


train, opt, k = tf.train, contrib.opt, tf.keras.optimizers
CASES = {
    "gd": minimize(lambda r, s: train.GradientDescentOptimizer(r)),
    "momentum": minimize(lambda r, s: train.MomentumOptimizer(r, 0.9)),
    "nesterov": minimize(
        lambda r, s: train.MomentumOptimizer(r, 0.9, use_nesterov=True)
    ),
    "adam": minimize(lambda r, s: train.AdamOptimizer(r, 0.8, 0.95, 1e-4)),
    "rmsprop": minimize(lambda r, s: train.RMSPropOptimizer(r)),
    "rmsprop_momentum": minimize(lambda r, s: train.RMSPropOptimizer(r, 0.8, 0.5)),
    "rmsprop_centered": minimize(
        lambda r, s: train.RMSPropOptimizer(r, 0.8, 0.5, 1e-3, centered=True)
    ),
    "adagrad": minimize(lambda r, s: train.AdagradOptimizer(r)),
    "adadelta": minimize(lambda r, s: train.AdadeltaOptimizer(10.0, 0.9, 1e-4)),
    "ftrl": minimize(
        lambda r, s: train.FtrlOptimizer(
            r, l1_regularization_strength=0.001, l2_regularization_strength=0.01
        )
    ),
    "ftrl_shrinkage": minimize(
        lambda r, s: train.FtrlOptimizer(
            r, -0.6, 0.2, l2_shrinkage_regularization_strength=0.02
        )
    ),
    "proximal_gd": minimize(
        lambda r, s: train.ProximalGradientDescentOptimizer(r, 0.001, 0.01)
    ),
    "proximal_adagrad": minimize(
        lambda r, s: train.ProximalAdagradOptimizer(
            r, l1_regularization_strength=0.001, l2_regularization_strength=0.01
        )
    ),
    "adagrad_da": minimize(
        lambda r, s: train.AdagradDAOptimizer(r, s, 0.1, 0.001, 0.01)
    ),
    "adamax": minimize(lambda r, s: opt.AdaMaxOptimizer(r)),
    "lazy_adam": minimize(lambda r, s: opt.LazyAdamOptimizer(r)),
    "nadam": minimize(lambda r, s: opt.NadamOptimizer(r)),
    "add_sign": minimize(lambda r, s: opt.AddSignOptimizer(r)),
    "power_sign": minimize(lambda r, s: opt.PowerSignOptimizer(r)),
    "adamw": _weighted(lambda d, r: opt.AdamWOptimizer(d, r)),
    "momentumw": _weighted(lambda d, r: opt.MomentumWOptimizer(d, r, 0.9)),
    "scheduled_gd": minimize(lambda r, s: train.GradientDescentOptimizer(r), True),
    "scheduled_momentum": minimize(lambda r, s: train.MomentumOptimizer(r, 0.9), True),
    "scheduled_adam": minimize(lambda r, s: train.AdamOptimizer(r), True),
    "scheduled_rmsprop": minimize(
        lambda r, s: train.RMSPropOptimizer(r, 0.8, 0.5), True
    ),
    "scheduled_adagrad": minimize(lambda r, s: train.AdagradOptimizer(r), True),
    "bert": plain(bert, ["adam_m", "adam_v"], ["bias"]),
    "lamb": plain(lamb, ["adam_m", "adam_v"], ["bias"]),
    "own_momentum": plain(own_momentum, ["a"]),
    "own_adagrad": plain(own_adagrad, ["a"]),
    "own_rmsprop": plain(own_rmsprop, ["a"]),
    "own_unknown": plain(own_unknown, ["a"]),
    "keras_sgd": keras(lambda: k.SGD(0.1)),
    "keras_momentum": keras(lambda: k.SGD(0.1, 0.9, decay=0.01)),
    "keras_nesterov": keras(lambda: k.SGD(0.1, 0.9, nesterov=True)),
    "keras_adam": keras(lambda: k.Adam(0.1, decay=0.1)),
    "keras_amsgrad": keras(lambda: k.Adam(0.1, amsgrad=True)),
    "keras_rmsprop": keras(lambda: k.RMSprop(0.1)),
    "keras_rmsprop_momentum": keras(
        lambda: k.RMSprop(0.1, 0.8, momentum=0.5, centered=True)
    ),
    "keras_adagrad": keras(lambda: k.Adagrad(0.1)),
    "keras_adadelta": keras(lambda: k.Adadelta(10.0)),
    "keras_adamax": keras(lambda: k.Adamax(0.1)),
    "keras_nadam": keras(lambda: k.Nadam(0.1)),
    "keras_ftrl": keras(lambda: k.Ftrl(0.1)),
    "keras_scheduled": keras(lambda: k.Adam(k.schedules.ExponentialDecay(0.1, 8, 0.9))),
    "keras_clipnorm": keras(lambda: k.SGD(0.1, clipnorm=0.3)),
    "keras_clipvalue": keras(lambda: k.Adam(0.1, clipvalue=0.02)),
    "clip_norm": chain(each(lambda g: tf.clip_by_norm(g, 0.3))),
    "clip_value": chain(each(lambda g: tf.clip_by_value(g, -0.02, 0.02))),
    "clip_unevenly": chain(each(lambda g: tf.clip_by_value(g, -0.02, 0.03))),
    "clip_global": chain(norm_of_all),
    "clip_global_momentum": chain(
        norm_of_all, lambda: train.MomentumOptimizer(0.1, 0.9)
    ),
    "clip_average": chain(
        each(lambda g: tf.clip_by_average_norm(tf.convert_to_tensor(g), 0.01))
    ),
    "clip_by_hand": chain(clipped_by_hand),
    "clip_both": chain(
        lambda g, v: norm_of_all([tf.clip_by_value(x, -0.05, 0.05) for x in g], v)
    ),
    "noise": chain(noisy),
    "multiplied": chain(multiplied),
    "decayed": chain(decayed, lambda: train.GradientDescentOptimizer(0.1)),
    "decayed_adam": chain(decayed),
    "scaled_loss": scaled_loss,
    "scaled_and_clipped": scaled_and_clipped,
    "wide_and_deep": wide_and_deep,
    "slow_and_fast": slow_and_fast,
    "contrib_layers": contrib_layers,
}


def main(arrays, args):
    """See above."""
    random = np.random.RandomState(3)
    steps = args["before"] + args["after"]
    data = {
        "ids": random.randint(0, WORDS, [steps, BATCH, 3]).astype(np.int32),
        "x": random.randn(steps, BATCH, UNITS).astype(np.float32),
        "y": random.randn(steps, BATCH, 1).astype(np.float32),
    }
    results = dict(data)
    for case in args.get("cases") or list(CASES):
        for kind in args.get("kinds") or ("dense", "sparse-resource"):
            with tf.Graph().as_default():
                _run(case, kind, data, args, results)
    return results


def _run(case, kind, data, args, results):
    tf.set_random_seed(1)
    tf.get_variable_scope().set_use_resource(kind.endswith("resource"))
    y = tf.placeholder(tf.float32, [None, 1], "y")
    if kind.startswith("sparse"):
        source = "ids"
        fed = tf.placeholder(tf.int32, [None, 3], "ids")
        words = tf.get_variable("words", [WORDS, UNITS])
        hidden = tf.reduce_mean(tf.nn.embedding_lookup(words, fed), 1)
    else:
        source = "x"
        fed = tf.placeholder(tf.float32, [None, UNITS], "x")
        hidden = tf.tanh(tf.layers.dense(fed, UNITS, name="hidden"))
    output = tf.layers.dense(hidden, 1, name="output")
    loss = tf.reduce_mean(tf.square(output - y), name="loss")
    step = tf.train.get_or_create_global_step()
    CASES[case](loss, step)
    saver = tf.train.Saver(save_relative_paths=True)
    key = case + "/" + kind
    folder = os.path.join(args["folder"], key.replace("/", "-"))
    with tf.Session() as sess:
        sess.run(tf.global_variables_initializer())

        def feed(at):
            return {fed: data[source][at], y: data["y"][at]}

        for at in range(args["before"]):
            sess.run("train_op", feed(at))
        saver.save(sess, os.path.join(folder, "model"))
        losses = []
        for at in range(args["before"], args["before"] + args["after"]):
            losses.append(sess.run(loss, feed(at)))
            sess.run("train_op", feed(at))
        results[key + "/loss"] = np.array(losses)
        for variable in tf.global_variables():
            name = variable.op.name
            results[key + "/v/" + name] = sess.run(variable)
