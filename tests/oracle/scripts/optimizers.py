"""Trains a small model with each of many optimizers, from a state that is given.

Settings: cases, each with its name; optimizer, an expression with `rate`, `global_step`
and the names of `NAMESPACE`; rate, and decay, how much of it is left after ten steps;
variables, those to train; start and stop, the steps; record, the steps after which all
variables are wanted.
Arrays in: data/ids, data/wanted, data/x, data/y with one row a step; start/VARIABLE;
and CASE|VARIABLE, what a variable of the graph has at the start.
Arrays out: CASE|STEP|VARIABLE.
"""

import re

import tensorflow.compat.v1 as tf
from tensorflow.contrib import opt


class BertAdamW(tf.train.Optimizer):
    """Adam without bias correction, with decay: the formula that BERT publishes."""

    def __init__(self, rate, decay, excluded=()):
        super().__init__(False, "BertAdamW")
        self.rate, self.decay, self.excluded = rate, decay, excluded

    def apply_gradients(self, grads_and_vars, global_step=None, name=None):
        done = []
        for gradient, variable in grads_and_vars:
            gradient = tf.convert_to_tensor(gradient)
            m, v = (
                tf.get_variable(
                    variable.op.name + suffix,
                    variable.shape,
                    initializer=tf.zeros_initializer(),
                    trainable=False,
                )
                for suffix in ("/adam_m", "/adam_v")
            )
            new_m = 0.9 * m + 0.1 * gradient
            new_v = 0.999 * v + (1.0 - 0.999) * tf.square(gradient)
            update = new_m / (tf.sqrt(new_v) + 1e-6)
            named = any(re.search(each, variable.op.name) for each in self.excluded)
            if not named:
                update += self.decay * variable
            rate = self.rate * (1.0 if named else self.trust(variable, update))
            done += [variable.assign(variable - rate * update)]
            done += [m.assign(new_m), v.assign(new_v)]
        with tf.control_dependencies(done):
            return global_step.assign_add(1)

    def trust(self, variable, update):
        return 1.0


class BertLAMB(BertAdamW):
    """The same with a rate for each weight: the formula that ALBERT publishes."""

    def trust(self, variable, update):
        norms = tf.norm(variable), tf.norm(update)
        both = tf.logical_and(norms[0] > 0, norms[1] > 0)
        return tf.cond(both, lambda: norms[0] / norms[1], lambda: 1.0)


class WideAndDeep:
    """FTRL for the table and Adagrad for the rest, as the canned estimators train."""

    def __init__(self, rate):
        self.wide = tf.train.FtrlOptimizer(rate)
        self.deep = tf.train.AdagradOptimizer(rate)

    def apply_gradients(self, grads_and_vars, global_step):
        wide = self.wide.apply_gradients(grads_and_vars[:1])
        deep = self.deep.apply_gradients(grads_and_vars[1:])
        with tf.control_dependencies([wide, deep]):
            return global_step.assign_add(1)


NAMESPACE = {
    "tf": tf,
    "keras": tf.keras.optimizers,
    "opt": opt,
    "BertAdamW": BertAdamW,
    "BertLAMB": BertLAMB,
    "WideAndDeep": WideAndDeep,
}


def main(arrays, args):
    """See above."""
    results = {}
    for case in args["cases"]:
        for key, value in run(case, arrays).items():
            results[case["name"] + "|" + key] = value
    return results


def run(case, arrays):
    """Trains with one optimizer."""
    config = tf.ConfigProto(
        intra_op_parallelism_threads=1, inter_op_parallelism_threads=1
    )
    results = {}
    with tf.Graph().as_default(), tf.Session(config=config) as sess:
        data = {
            key: tf.placeholder(value.dtype, value.shape[1:])
            for key, value in arrays.items()
            if key.startswith("data/")
        }
        train_op = build(case, arrays, data)
        variables = {v.op.name: v for v in tf.global_variables()}
        sess.run(tf.variables_initializer(list(variables.values())))
        for name, variable in variables.items():
            if case["name"] + "|" + name in arrays:
                variable.load(arrays[case["name"] + "|" + name], sess)
        for step in range(case["start"], case["stop"] + 1):
            if step in case["record"]:
                values = sess.run(variables)
                results.update((f"{step}|{k}", v) for k, v in values.items())
            if step < case["stop"]:
                sess.run(train_op, {data[key]: arrays[key][step] for key in data})
    return results


def build(case, arrays, data):
    """The model, a sum over rows of a table beside a linear one, and its train op."""
    of_keras = case["optimizer"].startswith("keras.")
    global_step = tf.train.get_or_create_global_step()
    trained = {
        name: tf.get_variable(
            name, initializer=arrays["start/" + name], use_resource=of_keras
        )
        for name in case["variables"]
    }
    loss = 0.0
    if "embedding" in trained:
        found = tf.reduce_sum(tf.gather(trained["embedding"], data["data/ids"]), 1)
        loss += tf.reduce_mean(tf.square(found - data["data/wanted"]))
    if "kernel" in trained:
        found = tf.matmul(data["data/x"], trained["kernel"]) + trained["bias"]
        loss += tf.reduce_mean(tf.square(found - data["data/y"]))
    rate, decay = case["rate"], case["decay"]
    if decay and of_keras:
        rate = tf.keras.optimizers.schedules.ExponentialDecay(rate, 10, decay)
    elif decay:
        rate = tf.train.exponential_decay(rate, global_step, 10, decay)
    names = dict(NAMESPACE, rate=rate, global_step=global_step)
    optimizer = eval(case["optimizer"], names)
    gradients = tf.gradients(loss, list(trained.values()))
    pairs = list(zip(gradients, trained.values()))
    if of_keras:
        return optimizer.apply_gradients(pairs)
    # The optimizers with weight decay say nothing of the order.
    with tf.control_dependencies([getattr(g, "values", g) for g in gradients]):
        return optimizer.apply_gradients(pairs, global_step=global_step)
