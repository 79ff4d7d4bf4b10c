"""Loads one MetaGraph of a SavedModel, fetches tensors and runs steps.

Settings beside those of graph_runs:
    saved_model     the directory
    tags            list of tags; ["serve"] by default
    signature       its inputs are fed from the arrays signature/KEY, its outputs come
                    back as signature/KEY
"""

import graph_runs
import tensorflow.compat.v1 as tf


def main(arrays, args):
    """See above."""
    with tf.Graph().as_default() as graph, graph_runs.session(graph) as sess:
        meta = tf.saved_model.loader.load(
            sess, args.get("tags", ["serve"]), args["saved_model"]
        )
        results = graph_runs.run(sess, arrays, args)
        if args.get("signature"):
            results.update(run_signature(sess, meta, arrays, args["signature"]))
        return results


def run_signature(sess, meta, arrays, name):
    """Feeds the inputs of a signature and fetches its outputs."""
    signature = meta.signature_def[name]
    feed = {
        info.name: arrays["signature/" + key] for key, info in signature.inputs.items()
    }
    fetches = {"signature/" + key: info.name for key, info in signature.outputs.items()}
    return sess.run(fetches, feed)
