"""Gives the functions of a graph names that no other graph in the process has.

TensorFlow keeps one table of functions per process, and refuses a second function of a
name that is there; every second graph has a `cond_true_12`.
"""

import dataclasses
import itertools
from collections.abc import Mapping

from keras_metagraph.graph.ir import AttrValue, Function, Graph, Node
from keras_metagraph.graph.passes.result import PassResult
from keras_metagraph.graph.to_proto import attr_functions

_numbers = itertools.count()


def private_functions(graph: Graph) -> PassResult:
    """Renames all functions of a library, and all that name them."""
    if not graph.functions:
        return PassResult(graph, False)
    number = next(_numbers)
    names = {name: f"{name}_keras_metagraph_{number}" for name in graph.functions}
    library: dict[str, Function] = {}
    for name, function in graph.functions.items():
        body = Graph(
            _rename(function.graph.nodes, names), library, function.graph.producer
        )
        library[names[name]] = dataclasses.replace(
            function,
            name=names[name],
            graph=body,
            gradient=names.get(function.gradient, function.gradient),
        )
    nodes = _rename(graph.nodes, names)
    return PassResult(Graph(nodes, library, graph.producer), True)


def _rename(nodes: Mapping[str, Node], names: Mapping[str, str]) -> dict[str, Node]:
    renamed = {}
    for key, node in nodes.items():
        attrs = {
            name: _renamed_attr(value, names)
            if any(called in names for called in attr_functions(value))
            else value
            for name, value in node.attrs.items()
        }
        op = names.get(node.op, node.op)
        renamed[key] = dataclasses.replace(node, op=op, attrs=attrs)
    return renamed


def _renamed_attr(value: AttrValue, names: Mapping[str, str]) -> AttrValue:
    """A copy of an attribute, with other function names in it at any depth."""
    copy = type(value)()
    copy.CopyFrom(value)
    stack = [copy]
    while stack:
        attr = stack.pop()
        bound = [attr.func] if attr.HasField("func") else list(attr.list.func)
        for function in bound:
            function.name = names.get(function.name, function.name)
            stack.extend(function.attr.values())
    return copy
