"""Imports nodes as they are, many at once."""

import dataclasses
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import tensorflow as tf

from keras_metagraph.errors import HandlerError
from keras_metagraph.graph.ir import Graph, Node
from keras_metagraph.graph.passes.repair_attributes import RECORDED_SHAPES
from keras_metagraph.graph.to_proto import graph_to_proto

if TYPE_CHECKING:
    from keras_metagraph.layers.graph_ops.builder import Scope

_DROPPED = {RECORDED_SHAPES, "_gradient_op_type"}


def import_nodes(scope: "Scope", nodes: Sequence[Node]) -> dict[str, Any]:
    """Imports nodes whose inputs are built, or among them.

    Args:
        scope: Where the inputs are.
        nodes: The nodes.

    Returns:
        The operations by node name.

    Raises:
        HandlerError: If TensorFlow refuses one of the nodes.
    """
    names = {node.name for node in nodes}
    input_map: dict[str, Any] = {}
    copies: dict[str, Node] = {}
    for node in nodes:
        for tensor in node.inputs:
            if tensor.node not in names and str(tensor) not in input_map:
                input_map[str(tensor)] = scope.tensor(tensor)
        controls = [
            name
            for name in node.control_inputs
            if name in names
            or f"^{name}" in input_map
            or _map_control(scope, name, input_map)
        ]
        attrs = {k: v for k, v in node.attrs.items() if k not in _DROPPED}
        copies[node.name] = dataclasses.replace(
            node, control_inputs=controls, attrs=attrs
        )
    part = Graph(copies, dict(scope.builder.library), scope.graph.producer)
    try:
        operations = tf.graph_util.import_graph_def(
            graph_to_proto(part),
            input_map=input_map,
            return_elements=[node.name for node in nodes],
            name="",
        )
    except (ValueError, TypeError) as error:
        raise HandlerError(
            f"TensorFlow refuses a node of the graph: {error}",
            fix="run the graph with the session executor, or name inputs and outputs "
            "that do not need the node.",
        ) from error
    return dict(zip((node.name for node in nodes), operations, strict=True))


def _map_control(scope: "Scope", name: str, input_map: dict[str, Any]) -> bool:
    """Maps a control input to a tensor that is there when the node has run."""
    operations = scope.operations(name)
    if not operations:
        return False
    graph = tf.compat.v1.get_default_graph()
    outputs = operations[0].outputs if len(operations) == 1 else []
    if len(outputs) > 0 and outputs[0].graph is graph:
        input_map[f"^{name}"] = outputs[0]
    else:
        with tf.control_dependencies(operations):
            input_map[f"^{name}"] = tf.constant(0, name=f"{name}/done")
    return True
