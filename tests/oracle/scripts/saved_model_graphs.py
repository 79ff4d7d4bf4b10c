"""Loads graphs of SavedModels by their tags, runs their signatures, and trains on.

Setting `cases`, a list of dicts:
    name            of the case
    saved_model     the directory
    tags            list of tags
    functions       True: as functions, with the `tf.saved_model.load` of TensorFlow 2
    save            a checkpoint prefix to save to afterwards, with a Saver
    build           a directory to write afterwards, with a SavedModelBuilder
Arrays in: NAME/SIGNATURE/KEY, what is fed; with one row a step for training, whose op
is the one that the loader finds. Arrays out: NAME/SIGNATURE/KEY, and NAME/steps, the
global step afterwards.
"""

import os

import numpy as np
import tensorflow.compat.v1 as tf
import tensorflow.compat.v2 as tf2

TRAIN_OP = "__saved_model_train_op"

tf.enable_eager_execution()


def main(arrays, args):
    """See above."""
    results = {}
    for case in args["cases"]:
        prefix = case["name"] + "/"
        fed = {k[len(prefix) :]: v for k, v in arrays.items() if k.startswith(prefix)}
        run = run_functions if case.get("functions") else run_session
        for key, value in run(case, by_signature(fed)).items():
            results[prefix + key] = value
    return results


def by_signature(fed):
    """What is fed, by signature and input."""
    found = {}
    for name, value in fed.items():
        signature, key = name.split("/", 1)
        found.setdefault(signature, {})[key] = value
    return found


def run_functions(case, fed):
    """Calls the signatures as functions."""
    loaded = tf2.saved_model.load(case["saved_model"], tags=case["tags"])
    results = {}
    for name, inputs in fed.items():
        given = {key: tf.constant(value) for key, value in inputs.items()}
        outputs = loaded.signatures[name](**given)
        results.update((name + "/" + key, out.numpy()) for key, out in outputs.items())
    return results


def run_session(case, fed):
    """Runs the signatures in a session, in which the loader has run the main op."""
    config = tf.ConfigProto(
        intra_op_parallelism_threads=1, inter_op_parallelism_threads=1
    )
    results = {}
    with tf.Graph().as_default() as graph, tf.Session(config=config) as sess:
        meta = tf.saved_model.load(sess, case["tags"], case["saved_model"])
        for name, inputs in fed.items():
            signature = meta.signature_def[name]
            feeds = {signature.inputs[key].name: v for key, v in inputs.items()}
            outputs = {key: info.name for key, info in signature.outputs.items()}
            if name == "train":
                (train_op,) = graph.get_collection("saved_model_train_op")
                reserved = meta.signature_def[TRAIN_OP].outputs[TRAIN_OP]
                assert reserved.name == train_op.name
                values = train(sess, feeds, outputs, train_op)
            else:
                values = sess.run(outputs, feeds)
            results.update((name + "/" + key, value) for key, value in values.items())
        step = tf.train.get_global_step(graph)
        if step is not None:
            results["steps"] = sess.run(step)
        if case.get("save"):
            os.makedirs(os.path.dirname(case["save"]))
            tf.train.Saver().save(sess, case["save"])
        if case.get("build"):
            builder = tf.saved_model.Builder(case["build"])
            signatures = {
                key: value
                for key, value in meta.signature_def.items()
                if not key.startswith("__saved_model_")
            }
            builder.add_meta_graph_and_variables(
                sess, case["tags"], signature_def_map=signatures
            )
            builder.save()
    return results


def train(sess, feeds, outputs, train_op):
    """Takes a step for each row of what is fed."""
    rows = []
    for step in range(len(next(iter(feeds.values())))):
        feed = {name: value[step] for name, value in feeds.items()}
        rows.append(sess.run([outputs, train_op], feed)[0])
    return {key: np.stack([row[key] for row in rows]) for key in outputs}
