"""Cuts a graph at the tensors that are given from outside."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import tensorflow as tf

from keras_metagraph.graph.ir import Graph, Node, TensorName
from keras_metagraph.graph.passes import build


def cut_feeds(
    graph: Graph,
    specs: Mapping[TensorName, tf.TensorSpec],
    constants: Mapping[TensorName, Any],
) -> tuple[Graph, dict[TensorName, TensorName]]:
    """Puts placeholders and constants in the place of fed tensors.

    As in a session, whoever waits for a fed node by a control input waits no more.

    Args:
        graph: The graph; it is not changed.
        specs: Dtype and shape of the tensors that are fed.
        constants: Dtype and value (`numpy.ndarray`) of tensors that are known.

    Returns:
        The graph, and for each fed or known tensor the one that replaces it.
    """
    fed = {*specs, *constants}
    cut = {tensor.node for tensor in fed}
    rewriter = build.Rewriter(graph)
    replaced: dict[TensorName, TensorName] = {}
    for tensor in (*specs, *constants):
        if tensor in specs:
            node = _placeholder(str(tensor), specs[tensor])
        else:
            value = constants[tensor]
            dtype = tf.dtypes.as_dtype(value.dtype).as_datatype_enum
            node = build.const_node(str(tensor), value, dtype)
        whole = graph.nodes[tensor.node].op.startswith("Placeholder")
        node.name = tensor.node
        if whole:
            rewriter.replace(node)
            replaced[tensor] = TensorName(node.name)
        else:
            node.name = f"{tensor.node}/fed_{tensor.index}"
            replaced[tensor] = rewriter.add(node)
    for node in graph.nodes.values():
        if any(tensor in fed for tensor in node.inputs) or not cut.isdisjoint(
            node.control_inputs
        ):
            current = rewriter.nodes[node.name]
            if current is node:
                inputs = [replaced.get(tensor, tensor) for tensor in node.inputs]
                controls = [name for name in node.control_inputs if name not in cut]
                rewriter.replace(
                    dataclasses.replace(node, inputs=inputs, control_inputs=controls)
                )
    return rewriter.graph(), replaced


def _placeholder(name: str, spec: tf.TensorSpec) -> Node:
    dims = None if spec.shape.rank is None else spec.shape.as_list()
    attrs = {
        "dtype": build.type_attr(spec.dtype.as_datatype_enum),
        "shape": build.shape_attr(dims),
    }
    return Node(name, "Placeholder", attrs=attrs)
