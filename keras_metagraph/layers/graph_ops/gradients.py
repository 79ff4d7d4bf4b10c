"""Nodes with a gradient of their own."""

from collections.abc import Sequence
from typing import Any

import tensorflow as tf

from keras_metagraph.graph.ir import Node
from keras_metagraph.graph.passes.repair_attributes import CUSTOM_GRADIENT
from keras_metagraph.layers.graph_ops.builder import Scope
from keras_metagraph.layers.graph_ops.registry import REGISTRY


@REGISTRY.register("IdentityN")
def build_identities(scope: Scope, node: Node) -> Sequence[Any]:
    """The inputs as they are; with the gradient of the program, where it had one."""
    if CUSTOM_GRADIENT in node.attrs:
        return _with_gradient(scope, node)
    values = scope.inputs(node)
    if not scope.waited(node):
        return values
    return [tf.identity(v) if isinstance(v, tf.Tensor) else v for v in values]


def _with_gradient(scope: Scope, node: Node) -> Sequence[Any]:
    gradient = node.attrs[CUSTOM_GRADIENT].func
    places = list(gradient.attr["places"].list.i)
    count = gradient.attr["inputs"].i
    tensors = scope.tensors(node)
    passed, captured = tensors[:count], tensors[count:]

    def forward(*values: Any) -> Any:
        def backward(*upstream: Any) -> list[Any]:
            results, _ = scope.builder.call(gradient.name, [*upstream, *captured])
            found = dict(zip(places, results, strict=True))
            return [found.get(place) for place in range(count)]

        return [tf.identity(value) for value in values], backward

    return [*tf.custom_gradient(forward)(*passed), *captured]
