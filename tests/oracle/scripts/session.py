"""Imports a .meta, restores a checkpoint, fetches tensors and runs steps.

Settings beside those of graph_runs:
    meta            the .meta file, binary or text
    checkpoint      prefix; without it the variables are initialized
    import_scope    name scope to import into
    edits           {Const node: value}: the graph is changed before the import
    keep_devices    True: devices are not cleared
    init            names of operations to run once, after the tables' initializers
"""

import graph_runs
import tensorflow.compat.v1 as tf
from google.protobuf import text_format


def main(arrays, args):
    """See above."""
    with tf.Graph().as_default() as graph, graph_runs.session(graph) as sess:
        saver = tf.train.import_meta_graph(
            read_meta(args["meta"], args.get("edits") or {}),
            clear_devices=not args.get("keep_devices"),
            import_scope=args.get("import_scope"),
        )
        if args.get("checkpoint"):
            saver.restore(sess, args["checkpoint"])
        else:
            sess.run(tf.global_variables_initializer())
        graph_runs.initialize(sess, args)
        return graph_runs.run(sess, arrays, args)


def read_meta(path, edits):
    """The MetaGraphDef of a file, with some Const nodes changed."""
    meta = tf.MetaGraphDef()
    with open(path, "rb") as file:
        data = file.read()
    try:
        meta.ParseFromString(data)
    except Exception:  # DecodeError of whichever implementation of protobuf this is
        text_format.Merge(data.decode(), meta)
    for node in meta.graph_def.node:
        if node.name in edits:
            old = node.attr["value"].tensor
            node.attr["value"].tensor.CopyFrom(
                tf.make_tensor_proto(edits[node.name], tf.as_dtype(old.dtype))
            )
    return meta
