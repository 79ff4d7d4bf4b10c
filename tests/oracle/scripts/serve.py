"""Runs signatures of an exported model on serialized examples.

Settings: checkpoint, the prefix beside which the .meta lies; signatures, their keys.
Arrays in: bytes and lengths of the examples, as oracle.tf_examples.split makes them.
Arrays out: SIGNATURE/KEY, the outputs; refused/SIGNATURE, the error instead.
"""

import numpy as np
import tensorflow.compat.v1 as tf
from tensorflow.core.protobuf import meta_graph_pb2


def main(arrays, args):
    """See above."""
    meta_graph_def = meta_graph_pb2.MetaGraphDef()
    with open(args["checkpoint"] + ".meta", "rb") as file:
        meta_graph_def.ParseFromString(file.read())
    ends = np.cumsum(arrays["lengths"])
    content = arrays["bytes"].tobytes()
    examples = [content[a:b] for a, b in zip(ends - arrays["lengths"], ends)]
    results = {}
    with tf.Graph().as_default(), tf.Session() as session:
        saver = tf.train.import_meta_graph(meta_graph_def)
        saver.restore(session, args["checkpoint"])
        session.run(tf.tables_initializer())
        for key in args["signatures"]:
            signature = meta_graph_def.signature_def[key]
            (given,) = signature.inputs.values()
            fetches = {name: info.name for name, info in signature.outputs.items()}
            try:
                values = session.run(fetches, {given.name: examples})
            except tf.errors.InvalidArgumentError as error:
                results["refused/" + key] = np.asarray(error.message.encode())
                continue
            results.update((key + "/" + k, stored(v)) for k, v in values.items())
    return results


def stored(value):
    """An array without objects."""
    return value.astype("S") if value.dtype == object else value
