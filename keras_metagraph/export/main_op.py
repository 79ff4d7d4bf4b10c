"""What a loader of SavedModels runs or finds: the main op, the train op, assets.

Both forms are written: the collections of `tf.compat.v1.saved_model.Builder`, and the
reserved signatures of the loaders that came after it (TF saved_model/constants.py).
"""

from collections.abc import Sequence
from typing import Any

import tensorflow as tf
from tensorflow.core.protobuf.meta_graph_pb2 import SignatureDef

from keras_metagraph.errors import ExportError, nearest
from keras_metagraph.export.saver import add_group
from keras_metagraph.export.trace import trace_function
from keras_metagraph.export.tracing import TracedGraph
from keras_metagraph.graph.ir import Graph

MAIN_OP = "main_op"
INIT_OP_KEY = "__saved_model_init_op"
TRAIN_OP_KEY = "__saved_model_train_op"


def trace_main_op(main_op: Any) -> list[TracedGraph]:
    """Traces what the user wants to be run after a load, if that is a function."""
    if not callable(main_op):
        return []
    function = tf.function(lambda: main_op(), input_signature=[], autograph=False)
    _, trace = trace_function(function, MAIN_OP)
    return [TracedGraph(MAIN_OP, MAIN_OP, trace, (), {})]


def write_main_op(
    meta_graph_def: Any, graph: Graph, own: Sequence[str], main_op: Any
) -> None:
    """Adds the operation that a loader runs when it has restored the variables.

    Args:
        meta_graph_def: The message to write to.
        graph: The graph.
        own: Operations that it has to run: initializers of tables and metrics, and
            the function of the user.
        main_op: The operation of the graph that the user named, if he did.

    Raises:
        ExportError: If that is not in the graph.
    """
    members = list(own)
    if isinstance(main_op, str):
        name = main_op.removeprefix("^")
        if name not in graph.nodes:
            raise ExportError(
                f"main_op={main_op!r} is no operation of the graph"
                f"{nearest(name, graph.nodes)}.",
                fix="pass the name of one, or a function without arguments.",
            )
        members.append(name)
    if not members:
        return
    is_group = len(members) == 1 and graph.nodes[members[0]].op == "NoOp"
    written = members[0] if is_group else add_group(graph, MAIN_OP, members)
    collection = meta_graph_def.collection_def["saved_model_main_op"]
    collection.node_list.value.append(written)
    meta_graph_def.signature_def[INIT_OP_KEY].CopyFrom(
        _op_signature(INIT_OP_KEY, written)
    )


def write_train_op(meta_graph_def: Any, train_op: str, signature: Any) -> None:
    """Tells a loader the operation that takes a training step.

    Args:
        meta_graph_def: The message to write to.
        train_op: The operation.
        signature: The signature of training, whose inputs it needs: TensorFlow 2 takes
            no signature of a graph for a function otherwise.
    """
    collection = meta_graph_def.collection_def["saved_model_train_op"]
    collection.node_list.value[:] = [train_op]
    written = meta_graph_def.signature_def[TRAIN_OP_KEY]
    written.CopyFrom(_op_signature(TRAIN_OP_KEY, train_op))
    for key, info in signature.inputs.items():
        written.inputs[key].CopyFrom(info)


def _op_signature(key: str, name: str) -> SignatureDef:
    """A signature for an operation (TF saved_model.signature_def_utils)."""
    signature = SignatureDef()
    signature.outputs[key].name = name
    signature.outputs[key].tensor_shape.unknown_rank = True
    return signature
