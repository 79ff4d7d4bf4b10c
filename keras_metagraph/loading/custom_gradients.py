"""Gradients that a TensorFlow 2 program defined itself (`tf.custom_gradient`).

A SavedModel keeps each as a function, and says for which `IdentityN` it is
(`FunctionDefLibrary.registered_gradients`). The tensors of the forward function that it
needs are in the object graph (`SavedConcreteFunction.bound_inputs`).
"""

import dataclasses
from collections.abc import Iterator, Mapping
from typing import Any

import tensorflow as tf

from keras_metagraph.graph.from_proto import graph_from_proto
from keras_metagraph.graph.ir import Function, Graph, Node, TensorName
from keras_metagraph.graph.passes import build
from keras_metagraph.graph.passes.repair_attributes import (
    CUSTOM_GRADIENT,
    GRADIENT_OVERRIDE,
)
from keras_metagraph.graph.to_proto import function_to_proto


def attach_gradients(meta_graph_def: Any) -> Any:
    """Gives nodes inside of functions the gradients that their program had for them.

    Such a node then has more inputs, the tensors that its gradient needs, and an
    attribute that names the function. Gradients that need variables, or tensors of
    another function, are left out.

    Args:
        meta_graph_def: A MetaGraphDef; not changed.

    Returns:
        The MetaGraphDef, or a changed copy where it has such gradients.
    """
    library = meta_graph_def.graph_def.library
    registered = {
        each.registered_op_type: each.gradient_func
        for each in library.registered_gradients
    }
    if not registered:
        return meta_graph_def
    graph = graph_from_proto(meta_graph_def.graph_def)
    finder = _Finder(meta_graph_def.object_graph_def, graph, registered)
    changed = {
        name: function_to_proto(each, graph.functions)
        for name, function in graph.functions.items()
        if (each := finder.attached(function)) is not function
    }
    result = type(meta_graph_def)()
    result.CopyFrom(meta_graph_def)
    for function_def in result.graph_def.library.function:
        if function_def.signature.name in changed:
            function_def.CopyFrom(changed[function_def.signature.name])
    return result


class _Finder:
    """Finds the gradient of each node, and what it needs."""

    def __init__(
        self, object_graph: Any, graph: Graph, registered: Mapping[str, str]
    ) -> None:
        self._objects = object_graph.nodes
        self._concrete = object_graph.concrete_functions
        self._functions = graph.functions
        self._registered = registered

    def attached(self, function: Function) -> Function:
        """A function whose nodes have their gradients; the same one without any."""
        nodes = {n.name: self._node(n, function) for n in function.graph.nodes.values()}
        if all(node is function.graph.nodes[name] for name, node in nodes.items()):
            return function
        body = dataclasses.replace(function.graph, nodes=nodes)
        return dataclasses.replace(function, graph=body)

    def _node(self, node: Node, function: Function) -> Node:
        override = node.attrs.get(GRADIENT_OVERRIDE)
        name = self._registered.get(override.s.decode(), "") if override else ""
        known = name in self._functions and name in self._concrete
        if node.op != "IdentityN" or not known:
            return node
        captures = [*self._captures(name, function)]
        count = len(node.inputs)
        arguments = self._functions[name].arguments
        places = self._places(name)
        if len(arguments) != count + len(captures) or (
            len(places) != len(self._functions[name].results)
        ):
            return node
        types = [*node.attrs["T"].list.type]
        bodies = self._functions[name].graph.nodes
        types += [bodies[argument].attrs["T"].type for argument in arguments[count:]]
        attrs = {k: v for k, v in node.attrs.items() if k != GRADIENT_OVERRIDE}
        attrs |= {
            "T": build.types_attr(types),
            CUSTOM_GRADIENT: _gradient(name, count, places),
        }
        return dataclasses.replace(node, inputs=[*node.inputs, *captures], attrs=attrs)

    def _captures(self, name: str, function: Function) -> Iterator[TensorName]:
        """The tensors of a function that a gradient needs, as far as it has them."""
        for number in self._concrete[name].bound_inputs:
            if not 0 <= number < len(self._objects):
                continue
            tensor = self._objects[number].captured_tensor
            found = TensorName.parse(tensor.name)
            inside = tensor.concrete_function == function.name
            if inside and found.node in function.graph.nodes:
                yield found

    def _places(self, name: str) -> list[int]:
        """Which inputs of the node the results of a gradient belong to."""
        structure = self._concrete[name].output_signature
        kind = structure.WhichOneof("kind")
        values = getattr(structure, kind).values if kind else []
        return [i for i, v in enumerate(values) if v.WhichOneof("kind") != "none_value"]


def _gradient(name: str, count: int, places: list[int]) -> Any:
    """The attribute that names a gradient, and where its results belong."""
    value = tf.compat.v1.AttrValue()
    value.func.name = name
    value.func.attr["inputs"].i = count
    value.func.attr["places"].list.i.extend(places)
    return value
