"""What the session and saved_model scripts do once a graph is loaded.

Arrays in (tensor names as keys):
    feed/TENSOR     fed for the fetches
    step/TENSOR     [steps, ...]: row i is fed at step i

Settings, all optional:
    fetches         {key: tensor name}: run once, before the steps
    steps           how many steps of [loss, train_op] to run; taken from the step/
                    arrays where there are some
    loss, train_op  their names; train_op may be a list; by default the last
                    member of the collection train_op
    step_fetches    {key: tensor name}: run with each step, stacked
    constants       {tensor name: value}: fed at every step
    after           False: do not return the variables after the steps

Arrays out: fetch/KEY, losses [steps], step/KEY [steps, ...], before/VARIABLE,
after/VARIABLE.
"""

import numpy as np
import tensorflow.compat.v1 as tf


def session(graph):
    """A session that computes the same numbers at every run."""
    return tf.Session(
        graph=graph,
        config=tf.ConfigProto(
            intra_op_parallelism_threads=1,
            inter_op_parallelism_threads=1,
            allow_soft_placement=True,
            device_count={"GPU": 0},
        ),
    )


def initialize(sess, args):
    """Initializes tables and local variables, and runs the asked init ops."""
    sess.run(sess.graph.get_collection(tf.GraphKeys.TABLE_INITIALIZERS))
    sess.run([variable.initializer for variable in tf.local_variables()])
    for name in args.get("init", []):
        sess.run(sess.graph.get_operation_by_name(name))


def run(sess, arrays, args):
    """Runs the fetches, then the steps; returns the arrays out."""
    results = {}
    fetches = args.get("fetches") or {}
    if fetches:
        values = sess.run(fetches, _named(arrays, "feed/"))
        results.update(("fetch/" + key, values[key]) for key in fetches)
    steps = _step_count(arrays, args)
    if steps:
        results.update(_variables(sess, "before/"))
        results.update(_train(sess, arrays, args, steps))
        if args.get("after", True):
            results.update(_variables(sess, "after/"))
    return results


def _train(sess, arrays, args, steps):
    """Runs [loss, train_op] with the feeds of each step."""
    train_ops = _train_ops(sess.graph, args)
    wanted = {"step/" + k: name for k, name in args.get("step_fetches", {}).items()}
    if args.get("loss"):
        wanted["losses"] = args["loss"]
    rows = {key: [] for key in wanted}
    batches = _named(arrays, "step/")
    for step in range(steps):
        feed = dict(args.get("constants") or {})
        feed.update((name, values[step]) for name, values in batches.items())
        values, _ = sess.run([wanted, train_ops], feed)
        for key, value in values.items():
            rows[key].append(value)
    return {key: np.array(values) for key, values in rows.items()}


def _train_ops(graph, args):
    """The operations that make a step."""
    names = args.get("train_op")
    if not names:
        return graph.get_collection("train_op")[-1]
    names = names if isinstance(names, list) else [names]
    return [graph.as_graph_element(name) for name in names]


def _step_count(arrays, args):
    """How many steps there are feeds for, or were asked for."""
    counts = {len(values) for values in _named(arrays, "step/").values()}
    if len(counts) > 1:
        raise ValueError(f"step/ arrays of different lengths: {sorted(counts)}")
    return counts.pop() if counts else args.get("steps", 0)


def _variables(sess, prefix):
    """Every global variable by its operation's name."""
    variables = {variable.op.name: variable for variable in tf.global_variables()}
    return {prefix + name: value for name, value in sess.run(variables).items()}


def _named(arrays, prefix):
    """The arrays whose key starts with the prefix, without it."""
    return {k[len(prefix) :]: v for k, v in arrays.items() if k.startswith(prefix)}
