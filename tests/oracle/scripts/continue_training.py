"""Goes on with an exported model as a TensorFlow 1 program does, by its signatures.

Settings: checkpoint, the prefix beside which the .meta lies; meta, if it is elsewhere;
initialize, True to run the collection init_op and not to restore.
Arrays in: SIGNATURE/KEY, what is fed for the inputs of a signature; for `train` with
one row a step. Arrays out: SIGNATURE/KEY, its outputs, for `train` stacked; and
after/VARIABLE, all variables after the steps.
"""

import numpy as np
import tensorflow.compat.v1 as tf
from tensorflow.core.protobuf import meta_graph_pb2


def main(arrays, args):
    """See above."""
    prefix = args["checkpoint"]
    meta = args.get("meta") or prefix + ".meta"
    meta_graph_def = meta_graph_pb2.MetaGraphDef()
    with open(meta, "rb") as file:
        meta_graph_def.ParseFromString(file.read())
    config = tf.ConfigProto(
        intra_op_parallelism_threads=1, inter_op_parallelism_threads=1
    )
    results = {}
    with tf.Graph().as_default(), tf.Session(config=config) as sess:
        saver = tf.train.import_meta_graph(meta)
        sess.run(tf.tables_initializer())
        if args.get("initialize"):
            sess.run(tf.get_collection("init_op"))
        else:
            saver.restore(sess, prefix)
        for key in ("serving_default", "eval", "train"):
            fed = {k: v for k, v in arrays.items() if k.startswith(key + "/")}
            if fed:
                signature = meta_graph_def.signature_def[key]
                results.update(run(sess, key, signature, fed))
        variables = tf.global_variables() if "train/loss" in results else []
        values = sess.run({variable.op.name: variable for variable in variables})
        results.update(("after/" + name, value) for name, value in values.items())
    return results


def run(sess, key, signature, fed):
    """Runs a signature; that of training once for each row, with its op."""
    feeds = {
        signature.inputs[name[len(key) + 1 :]].name: value
        for name, value in fed.items()
    }
    outputs = {name: info.name for name, info in signature.outputs.items()}
    if key != "train":
        return {key + "/" + k: v for k, v in sess.run(outputs, feeds).items()}
    train_op = sess.graph.get_collection("train_op")[-1]
    rows = []
    for step in range(len(next(iter(feeds.values())))):
        feed = {name: value[step] for name, value in feeds.items()}
        values, _ = sess.run([outputs, train_op], feed)
        rows.append(values)
    return {
        "train/" + name: np.stack([values[name] for values in rows]) for name in outputs
    }
