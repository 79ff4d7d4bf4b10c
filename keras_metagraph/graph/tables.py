"""Lookup tables of a graph: where they are, what fills them, and what they are called.

Nodes with the same `shared_name` are the same table. Those of TensorFlow 1 modules that
TensorFlow 2 saved again lie in functions: one makes and fills a table, another one
makes it again to use it.
"""

import dataclasses
import itertools
from collections.abc import Iterable

import tensorflow as tf

from keras_metagraph.graph.ir import Graph, Node, TensorName
from keras_metagraph.graph.to_proto import reachable_functions

_TABLES = frozenset(
    {
        "HashTable",
        "HashTableV2",
        "MutableDenseHashTable",
        "MutableDenseHashTableV2",
        "MutableHashTable",
        "MutableHashTableOfTensors",
        "MutableHashTableOfTensorsV2",
        "MutableHashTableV2",
    }
)
_FILLS = ("InitializeTable", "LookupTableImport")
_FILLS_FROM_FILES = "InitializeTableFromTextFile"
_PASSED = frozenset({"Identity", "IdentityN"})
_scopes = itertools.count()


def table_name(node: Node) -> str:
    """What TensorFlow's resource manager calls a table."""
    shared = node.attrs["shared_name"].s.decode() if "shared_name" in node.attrs else ""
    return shared or node.name


def table_behind(graph: Graph, tensor: TensorName) -> Node | None:
    """The node that makes a table.

    Args:
        graph: The graph.
        tensor: The table's handle, maybe passed on.

    Returns:
        The node; None if the handle comes from something else.
    """
    node = graph.nodes.get(tensor.node)
    for _ in range(len(graph.nodes)):
        if node is None or node.op not in _PASSED:
            break
        place = tensor.index if node.op == "IdentityN" else 0
        if place >= len(node.inputs):
            return None
        tensor = node.inputs[place]
        node = graph.nodes.get(tensor.node)
    return node if node is not None and node.op in _TABLES else None


def table_fills(graph: Graph, files: bool = True) -> dict[str, list[str]]:
    """Finds what fills the tables of a graph.

    Args:
        graph: The graph.
        files: Whether to list those that read files too.

    Returns:
        Names of operations by `table_name`.
    """
    found: dict[str, list[str]] = {}
    for node in graph.nodes.values():
        reads = node.op.startswith(_FILLS_FROM_FILES)
        if node.op.startswith(_FILLS) and node.inputs and (files or not reads):
            table = table_behind(graph, node.inputs[0])
            if table is not None:
                found.setdefault(table_name(table), []).append(node.name)
    return found


def unread_files(graph: Graph, names: Iterable[str]) -> list[Node]:
    """Finds what would fill tables from files that nothing else fills.

    Args:
        graph: The graph.
        names: Names of nodes; only tables that these use count.

    Returns:
        The operations that read the files.
    """
    every, harmless = table_fills(graph), table_fills(graph, files=False)
    used = used_tables(graph, names) & every.keys() - harmless.keys()
    return [graph.nodes[name] for table in sorted(used) for name in every[table]]


def used_tables(graph: Graph, names: Iterable[str]) -> set[str]:
    """Finds the tables that some nodes make, also inside of functions that they call.

    Args:
        graph: The graph.
        names: Names of nodes.

    Returns:
        Their `table_name`s.
    """
    part = graph.subgraph(names)
    bodies = [graph.functions[name].graph for name in reachable_functions(part)]
    return {
        table_name(node)
        for each in (part, *bodies)
        for node in each.nodes.values()
        if node.op in _TABLES
    }


def new_resource_scope() -> str:
    """A scope that no other graph of the process has, for `private_resources`."""
    return f"keras_metagraph_{next(_scopes)}"


def private_resources(graph: Graph, scope: str) -> Graph:
    """Keeps tables and the like apart from those of other graphs of the process.

    Args:
        graph: The graph; it is not changed.
        scope: What to put before the names that they share.

    Returns:
        The graph.
    """
    functions = dict(graph.functions)
    for name in reachable_functions(graph):
        function = graph.functions[name]
        nodes = {n.name: _private(n, scope) for n in function.graph.nodes.values()}
        body = dataclasses.replace(function.graph, nodes=nodes, functions=functions)
        functions[name] = dataclasses.replace(function, graph=body)
    nodes = {name: _private(node, scope) for name, node in graph.nodes.items()}
    return Graph(nodes, functions, graph.producer)


def _private(node: Node, scope: str) -> Node:
    if "shared_name" not in node.attrs and node.op not in _TABLES:
        return node
    text = f"{scope}/{table_name(node)}".encode()
    attrs = {**node.attrs, "shared_name": tf.compat.v1.AttrValue(s=text)}
    if "container" in attrs:
        attrs["container"] = tf.compat.v1.AttrValue(s=b"")
    return dataclasses.replace(node, attrs=attrs)
