"""The graph behind a signature, without the rest of its model."""

from typing import Any

import keras
import tensorflow as tf

from keras_metagraph.export.captures import further_variables
from keras_metagraph.export.flat_model import flatten_model
from keras_metagraph.export.names import named_variables
from keras_metagraph.export.options import ExportOptions
from keras_metagraph.export.signatures import write_signature
from keras_metagraph.export.tracing import trace_signatures
from keras_metagraph.graph.to_proto import graph_to_proto


def graph_of(
    function: Any, key: str, model: Any, target: str | None
) -> tuple[Any, Any]:
    """Exports one signature.

    Args:
        function: A `SignatureFunction`.
        key: Its key, which is the scope of its nodes.
        model: The Keras model that it belongs to, if there is one: its variables get
            the names that they have in every export of the model.
        target: `"1.15"`, or None for the ops of this TensorFlow.

    Returns:
        The `SignatureDef`, and the `GraphDef` with the tensors that it names.
    """
    owner = keras.Model(name="unowned") if model is None else model
    traced = trace_signatures({key: function})
    known = named_variables(owner)
    others = further_variables([each.trace for each in traced], known)
    variables = named_variables(owner, others)
    flat = flatten_model(owner, traced, variables, ExportOptions(target=target))
    meta_graph_def = tf.compat.v1.MetaGraphDef()
    (placed,) = flat.graphs
    write_signature(
        meta_graph_def, key, function.method_name, traced[0].feeds, placed.outputs
    )
    return meta_graph_def.signature_def[key], graph_to_proto(flat.graph)
