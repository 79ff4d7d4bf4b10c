"""Lookup tables of a model, made again in the graph with their contents."""

import dataclasses
from collections.abc import Iterator
from typing import Any

import tensorflow as tf

from keras_metagraph.export.nodes import const_node, make_node
from keras_metagraph.graph.ir import Graph, Node

_CHANGES = ("LookupTableImport", "LookupTableInsert", "LookupTableRemove")


@dataclasses.dataclass(frozen=True, slots=True)
class TableType:
    """What a graph does with a lookup table.

    Attributes:
        key: Type of its keys.
        value: Type of its values.
        mutable: Whether the graph changes its contents.
    """

    key: tf.DType
    value: tf.DType
    mutable: bool


def table_type(graph: Graph, placeholder: str) -> TableType | None:
    """The type of the table that a placeholder stands for; None if it is no table.

    Looks at the nodes that use it, and, where it goes into control flow, at those
    inside.
    """
    users = [node for node in graph.nodes.values() if _takes(node, placeholder)]
    lookups = [node for node in [*users, *_inner_nodes(graph, users)] if _typed(node)]
    if not lookups:
        return None
    return TableType(
        key=tf.as_dtype(lookups[0].attrs["Tin"].type),
        value=tf.as_dtype(lookups[0].attrs["Tout"].type),
        mutable=any(node.op.startswith(_CHANGES) for node in lookups),
    )


def add_table(graph: Graph, name: str, handle: Any, kind: TableType) -> str:
    """Adds a table with the contents that it has now.

    Args:
        graph: The graph to add it to.
        name: Name of its node.
        handle: The resource of the table in this process.
        kind: The types of its keys and values.

    Returns:
        Name of the node that fills it.
    """
    keys, values = tf.raw_ops.LookupTableExportV2(
        table_handle=handle, Tkeys=kind.key, Tvalues=kind.value
    )
    graph.add(
        make_node(
            name,
            "MutableHashTableV2" if kind.mutable else "HashTableV2",
            container="",
            shared_name=name,
            use_node_name_sharing=True,
            key_dtype=kind.key,
            value_dtype=kind.value,
        )
    )
    graph.add(const_node(f"{name}/keys", keys.numpy(), kind.key))
    graph.add(const_node(f"{name}/values", values.numpy(), kind.value))
    graph.add(
        make_node(
            f"{name}/LookupTableImportV2",
            "LookupTableImportV2",
            [name, f"{name}/keys", f"{name}/values"],
            Tin=kind.key,
            Tout=kind.value,
        )
    )
    return f"{name}/LookupTableImportV2"


def _takes(node: Node, placeholder: str) -> bool:
    return any(tensor.node == placeholder for tensor in node.inputs)


def _typed(node: Node) -> bool:
    return node.op.startswith("LookupTable") and "Tout" in node.attrs


def _inner_nodes(graph: Graph, users: list[Node]) -> Iterator[Node]:
    if all(_typed(node) for node in users):
        return
    for function in graph.functions.values():
        yield from function.graph.nodes.values()
