"""Dtypes and static shapes of the tensors of a graph, without running anything."""

import tensorflow as tf

from keras_metagraph.errors import SignatureError
from keras_metagraph.graph.ir import Graph, Node, TensorName
from keras_metagraph.graph.op_defs import op_def, output_type
from keras_metagraph.graph.passes.repair_attributes import recorded_shape


def tensor_spec(graph: Graph, name: str | TensorName) -> tf.TensorSpec:
    """What is known of a tensor before the graph runs.

    Args:
        graph: A repaired graph (`passes.repair`).
        name: A tensor of it.

    Returns:
        Its dtype and its shape; the shape has an unknown rank where the file does not
        tell.

    Raises:
        SignatureError: If the graph has no such tensor.

    Example:
        ```python
        tensor_spec(graph, "x:0")  # TensorSpec(shape=(None, 12), dtype=tf.float32)
        ```
    """
    tensor = TensorName.parse(name) if isinstance(name, str) else name
    node = graph.node(tensor.node)
    dtype = _dtype(graph, node, tensor.index)
    if dtype is None:
        raise SignatureError(
            f"The dtype of {tensor} is not known: node {node.name!r} has op "
            f"{node.op!r} and no such output.",
            fix="name another tensor.",
        )
    return tf.TensorSpec(_shape(node, tensor.index), dtype)


def _shape(node: Node, index: int) -> tf.TensorShape:
    if "shape" in node.attrs and (
        node.op.startswith("Placeholder") or node.op in ("VariableV2", "Variable")
    ):
        return tf.TensorShape(node.attrs["shape"].shape)
    recorded = recorded_shape(node, index)
    return tf.TensorShape(None) if recorded is None else recorded


def _dtype(graph: Graph, node: Node, index: int) -> tf.DType | None:
    """The dtype of an output; that of a function's result where one is called."""
    while node.op in graph.functions:
        function = graph.functions[node.op]
        if index >= len(function.results):
            return None
        node, index = (
            function.graph.node(function.results[index].node),
            function.results[index].index,
        )
    if node.op == "_Arg":
        return tf.as_dtype(node.attrs["T"].type)
    definition = op_def(node.op)
    dtype = None if definition is None else output_type(definition, node.attrs, index)
    return None if dtype is None else dtype.base_dtype
