"""Repairs attributes that would stop TensorFlow, or mislead it.

Devices and colocation are dropped, attributes that the op does not have, control
inputs to nodes that are not there. The shapes that an exporter recorded are moved out
of TensorFlow's sight: old releases recorded wrong ones, on which an import fails. First
they are used where an old release wrote them in no other place: before GraphDef
producer 24 a placeholder's own attribute says `[]` whatever its shape is.
"""

import dataclasses
from collections.abc import Container, Mapping
from typing import Any

import tensorflow as tf

from keras_metagraph.graph import op_defs
from keras_metagraph.graph.from_proto import UNKNOWN_OUTPUTS
from keras_metagraph.graph.ir import AttrValue, Graph, Node
from keras_metagraph.graph.passes import build
from keras_metagraph.graph.passes.result import PassResult

RECORDED_SHAPES = "_recorded_shapes"
"""Attribute that keeps the shapes which the exporter recorded."""

GRADIENT_OVERRIDE = "_gradient_op_type"
"""Attribute that names a gradient of the program that made the graph."""

CUSTOM_GRADIENT = "_keras_metagraph_gradient"
"""Attribute of an `IdentityN`: the function that is its gradient.

It is called with the gradients of as many outputs as its attribute `inputs` says, and
with the inputs behind those; `places` says which inputs its results belong to.
"""

_WRITTEN_SHAPES = "_output_shapes"
_LEGACY_SHAPES = {"Placeholder", "Variable"}
_FIRST_EXACT_PRODUCER = 24
_KEPT_PRIVATE = {
    CUSTOM_GRADIENT,
    GRADIENT_OVERRIDE,
    RECORDED_SHAPES,
    UNKNOWN_OUTPUTS,
}


def recorded_shape(node: Node, index: int) -> tf.TensorShape | None:
    """The shape that the exporter recorded for an output, if it did.

    Args:
        node: A node, before or after `repair_attributes`.
        index: Which output.

    Returns:
        The shape, possibly of unknown rank; `None` where nothing was recorded.
    """
    attr = node.attrs.get(RECORDED_SHAPES) or node.attrs.get(_WRITTEN_SHAPES)
    shapes = attr.list.shape if attr is not None else ()
    return tf.TensorShape(shapes[index]) if index < len(shapes) else None


def repair_attributes(graph: Graph) -> PassResult:
    """Repairs the attributes of all nodes, those of function bodies too."""
    overrides: list[str] = []
    nodes = _repair_nodes(graph, overrides)
    functions = {}
    for name, function in graph.functions.items():
        body = Graph(_repair_nodes(function.graph, overrides), producer=graph.producer)
        functions[name] = dataclasses.replace(function, graph=body)
    modified = any(node is not graph.nodes[name] for name, node in nodes.items())
    for name, function in functions.items():
        old = graph.functions[name].graph.nodes
        changed = any(
            node is not old[key] for key, node in function.graph.nodes.items()
        )
        modified = modified or changed
        function.graph.functions = functions
    notes = [f"gradient override is not known: {text}" for text in overrides]
    if not modified:
        return PassResult(graph, False, tuple(notes))
    return PassResult(Graph(nodes, functions, graph.producer), True, tuple(notes))


def _repair_nodes(graph: Graph, overrides: list[str]) -> dict[str, Node]:
    nodes = {}
    attributes = {
        op: definition and {attr.name for attr in definition.attr}
        for op in {node.op for node in graph.nodes.values()}
        for definition in [op_defs.op_def(op)]
    }
    for name, node in graph.nodes.items():
        attrs = _repair_attrs(node, graph.producer, attributes[node.op])
        known = (control for control in node.control_inputs if control in graph.nodes)
        controls = list(dict.fromkeys(known))
        if GRADIENT_OVERRIDE in attrs:
            overrides.append(f"{name} ({attrs[GRADIENT_OVERRIDE].s.decode()})")
        same = (
            not node.device
            and controls == node.control_inputs
            and attrs.keys() == node.attrs.keys()
            and all(attrs[key] is node.attrs[key] for key in attrs)
        )
        nodes[name] = (
            node if same else Node(name, node.op, list(node.inputs), controls, attrs)
        )
    return nodes


def _repair_attrs(
    node: Node, producer: int, known: Container[str] | None
) -> dict[str, AttrValue]:
    """The attributes that a node keeps; `known` are those of its op, if it is known."""
    attrs: dict[str, Any] = {}
    for key, value in node.attrs.items():
        if key == _WRITTEN_SHAPES:
            attrs[RECORDED_SHAPES] = value
        elif key.startswith("_"):
            if key in _KEPT_PRIVATE:
                attrs[key] = value
        elif known is None or key in known:
            attrs[key] = value
    if node.op in _LEGACY_SHAPES:
        attrs["shape"] = _true_shape(node, attrs, producer)
    return attrs


def _true_shape(node: Node, attrs: Mapping[str, AttrValue], producer: int) -> AttrValue:
    """The shape of a placeholder, or of a variable that may have a legacy `[]`."""
    written = attrs.get("shape")
    if written is not None:
        legacy = producer < _FIRST_EXACT_PRODUCER or node.op == "Variable"
        if written.shape.dim or written.shape.unknown_rank or not legacy:
            return written
    recorded = recorded_shape(node, 0)
    if recorded is not None and recorded.rank is not None:
        if written is not None and recorded.rank == 0:
            return written
        return tf.compat.v1.AttrValue(shape=recorded.as_proto())
    return build.shape_attr(None)
