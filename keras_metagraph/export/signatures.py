"""Signatures of the exported graphs, and the user's own."""

from collections.abc import Mapping
from typing import Any

import tensorflow as tf

from keras_metagraph.errors import SignatureError, nearest
from keras_metagraph.export.outputs import Outputs
from keras_metagraph.export.placeholders import fill_tensor_info, placeholder_tensors
from keras_metagraph.export.specs import NamedSpec
from keras_metagraph.graph.ir import Graph, TensorName
from keras_metagraph.graph.op_defs import op_def, output_type

PREDICT = "tensorflow/serving/predict"
CLASSIFY = "tensorflow/serving/classify"
REGRESS = "tensorflow/serving/regress"
TRAIN = "tensorflow/supervised/training"
EVAL = "tensorflow/supervised/eval"

DEFAULT_KEY = "serving_default"


def write_signature(
    meta_graph_def: Any,
    key: str,
    method_name: str,
    inputs: Mapping[str, NamedSpec],
    outputs: Outputs,
) -> None:
    """Writes a signature of placeholders and outputs."""
    signature = meta_graph_def.signature_def[key]
    signature.Clear()  # the user's own takes the place of the default signature
    signature.method_name = method_name
    for name, leaf in inputs.items():
        tensors = [str(tensor) for tensor in placeholder_tensors(leaf)]
        fill_tensor_info(signature.inputs[name], tensors, leaf.spec)
    for name, output in outputs.items():
        fill_tensor_info(signature.outputs[name], list(output.tensors), output.spec)


def write_user_signatures(
    meta_graph_def: Any, signatures: Mapping[str, Any], graph: Graph
) -> None:
    """Writes signatures that name tensors of the graph.

    Args:
        meta_graph_def: The message to write to.
        signatures: By key, `SignatureDef` messages or mappings with `inputs` and
            `outputs`, tensor names by key, and perhaps `method_name`.
        graph: The graph in which the names are looked up.

    Raises:
        SignatureError: If a signature has no such form, or names what is not there.
    """
    findings: list[str] = []
    for key, value in signatures.items():
        signature = meta_graph_def.signature_def[key]
        signature.Clear()
        if hasattr(value, "SerializeToString"):
            signature.ParseFromString(value.SerializeToString())
            for side in (signature.inputs, signature.outputs):
                names = {k: info.name for k, info in side.items() if info.name}
                findings += _not_in_graph(key, names, graph)
            continue
        if not isinstance(value, Mapping) or not {"inputs", "outputs"} <= set(value):
            findings.append(f"{key}: {value!r} has no inputs and outputs")
            continue
        signature.method_name = value.get("method_name", PREDICT)
        for side in ("inputs", "outputs"):
            missing = _not_in_graph(key, value[side], graph)
            findings += missing
            for name, tensor in value[side].items() if not missing else ():
                spec = _known_spec(graph, TensorName.parse(tensor))
                full_name = str(TensorName.parse(tensor))
                fill_tensor_info(getattr(signature, side)[name], [full_name], spec)
    if findings:
        raise SignatureError(
            "A signature is a tf.function, a SignatureDef, or a mapping "
            '{"inputs": {key: tensor name}, "outputs": {key: tensor name}}. '
            "These are not:",
            findings=findings,
            fix="take tensor names that the graph has, such as 'dense/Relu:0'.",
        )


def _not_in_graph(key: str, names: Mapping[str, str], graph: Graph) -> list[str]:
    return [
        f"{key}: {name!r} is {text!r}, which is not in the graph"
        f"{nearest(text, graph.nodes)}"
        for name, text in names.items()
        if TensorName.parse(text).node not in graph.nodes
    ]


def _known_spec(graph: Graph, tensor: TensorName) -> tf.TensorSpec:
    """Dtype and shape of a tensor, as far as its node tells."""
    node = graph.nodes[tensor.node]
    definition = op_def(node.op)
    dtype = definition and output_type(definition, node.attrs, tensor.index)
    shape = node.attrs["shape"].shape if node.op == "Placeholder" else None
    return tf.TensorSpec(tf.TensorShape(shape), dtype or tf.float32)
