"""Variables and tables."""

from collections.abc import Sequence
from typing import Any

import tensorflow as tf

from keras_metagraph.graph.ir import Node
from keras_metagraph.layers.graph_ops.builder import NodeRef, Scope, VariableRef
from keras_metagraph.layers.graph_ops.importing import import_nodes
from keras_metagraph.layers.graph_ops.registry import REGISTRY


@REGISTRY.register("VarHandleOp")
def build_handle(scope: Scope, node: Node) -> Sequence[Any]:
    """A variable of the model; other handles are made where they are used."""
    return [scope.builder.variable(node.name) or NodeRef(node)]


@REGISTRY.register("HashTableV2", "MutableHashTableV2", "MutableHashTableOfTensorsV2")
def build_table(scope: Scope, node: Node) -> Sequence[Any]:
    """A table, found again by its name wherever it is used."""
    return [NodeRef(node)]


@REGISTRY.register("ReadVariableOp")
def build_read(scope: Scope, node: Node) -> Sequence[Any]:
    """A read through the `tf.Variable`, which tells gradient tapes of it."""
    reference = scope.value(node.inputs[0])
    if not isinstance(reference, VariableRef):
        return _imported(scope, node)
    return [scope.builder.read(reference, ordered=bool(scope.waited(node)))]


@REGISTRY.register("ResourceGather")
def build_gather(scope: Scope, node: Node) -> Sequence[Any]:
    """Rows of a variable; in loops of its value, as handles there have no gradient."""
    reference, indices = scope.inputs(node)
    if scope.builder.in_root or not isinstance(reference, VariableRef):
        return _imported(scope, node)
    value = scope.builder.read(reference, ordered=bool(scope.waited(node)))
    batch = node.attrs["batch_dims"].i if "batch_dims" in node.attrs else 0
    return [tf.gather(value, indices, axis=batch, batch_dims=batch)]


def _imported(scope: Scope, node: Node) -> Sequence[Any]:
    operation = import_nodes(scope, [node])[node.name]
    scope.done(node, [operation])
    return list(operation.outputs)
