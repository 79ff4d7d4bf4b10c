"""Lookup tables of a model, made again in the graph with their contents.

A `.meta` holds the contents as constants. A SavedModel has files beside it, and as in
TensorFlow 1 its tables read text files with a line for each key.
"""

import dataclasses
from collections.abc import Iterator
from typing import Any

import numpy as np
import tensorflow as tf

from keras_metagraph.errors import ExportError
from keras_metagraph.export.nodes import const_node, make_node
from keras_metagraph.graph.ir import Graph, Node

_CHANGES = ("LookupTableImport", "LookupTableInsert", "LookupTableRemove")
_IN_TEXT = (tf.string, tf.int64, tf.int32)
# What separates lines and columns, and what TensorFlow's reader of lines drops.
_NOT_IN_TEXT = (b"\t", b"\n", b"\r")


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


@dataclasses.dataclass(frozen=True, slots=True)
class TableFile:
    """The file that a table reads.

    Attributes:
        node: The constant that a loader feeds its path to.
        name: How to call it.
        content: What is in it.
    """

    node: str
    name: str
    content: bytes


@dataclasses.dataclass(frozen=True, slots=True)
class AddedTable:
    """A table in the graph.

    Attributes:
        initializer: Name of the node that fills it.
        file: What that reads; None where the graph holds the contents.
    """

    initializer: str
    file: TableFile | None = None


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


def add_table(
    graph: Graph, name: str, handle: Any, kind: TableType, *, in_files: bool
) -> AddedTable:
    """Adds a table with the contents that it has now.

    Args:
        graph: The graph to add it to.
        name: Name of its node.
        handle: The resource of the table in this process.
        kind: The types of its keys and values.
        in_files: Whether to leave the contents to a file where a text file can hold
            them: texts without tabs and line ends, whole numbers.

    Returns:
        The node that fills it, and its file.

    Raises:
        ExportError: If the table was never filled.
    """
    keys, values = _contents(name, handle, kind)
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
    lines = table_lines(keys, values, kind) if in_files and not kind.mutable else None
    if lines is None:
        return AddedTable(_add_import(graph, name, keys, values, kind))
    return _add_reader(graph, name, lines)


def _contents(name: str, handle: Any, kind: TableType) -> tuple[Any, Any]:
    """Keys and values, always in the same order: that of numbers, if there are any."""
    try:
        keys, values = tf.raw_ops.LookupTableExportV2(
            table_handle=handle, Tkeys=kind.key, Tvalues=kind.value
        )
    except tf.errors.OpError as error:  # one that nothing was put into
        raise ExportError(
            f"The lookup table {name!r} has no vocabulary: {error.message}",
            fix="adapt its layer, or give the layer its vocabulary. An H5 file of "
            "Keras does not hold what a layer has adapted to.",
        ) from error
    keys, values = keys.numpy(), values.numpy()
    by_value = kind.value != tf.string and values.ndim == 1
    order = np.lexsort((keys, values)) if by_value else np.argsort(keys, kind="stable")
    return keys[order], values[order]


def _add_import(
    graph: Graph, name: str, keys: Any, values: Any, kind: TableType
) -> str:
    """Adds the contents as constants; returns the node that puts them in."""
    graph.add(const_node(f"{name}/keys", keys, kind.key))
    graph.add(const_node(f"{name}/values", values, kind.value))
    node = make_node(
        f"{name}/LookupTableImportV2",
        "LookupTableImportV2",
        [name, f"{name}/keys", f"{name}/values"],
        Tin=kind.key,
        Tout=kind.value,
    )
    return graph.add(node).name


def _add_reader(graph: Graph, name: str, lines: bytes) -> AddedTable:
    """Adds what reads the contents, as `tf.lookup.TextFileInitializer` does.

    A loader feeds the path to the constant, whose value is the file's name.
    """
    file_name = name.removesuffix("/table").replace("/", "_") + ".txt"
    filename = graph.add(const_node(f"{name}/asset_filepath", file_name)).name
    op = "InitializeTableFromTextFileV2"
    node = graph.add(reader_node(f"{name}/{op}", op, name, filename))
    return AddedTable(node.name, TableFile(filename, file_name, lines))


def reader_node(name: str, op: str, table: str, filename: str) -> Node:
    """A node that fills a table from such a file.

    Args:
        name: Its name.
        op: Its op, for the kind of the table's handle.
        table: The table.
        filename: The node with the name of the file.

    Returns:
        The node.
    """
    return make_node(
        name,
        op,
        [table, filename],
        key_index=0,
        value_index=1,
        vocab_size=-1,
        delimiter="\t",
    )


def table_lines(keys: Any, values: Any, kind: TableType) -> bytes | None:
    """A line for each key; None where a text file cannot hold the contents."""
    plain = kind.key in _IN_TEXT and kind.value in _IN_TEXT
    if not plain or values.ndim != 1 or not len(keys):
        return None
    columns = [[_text(each) for each in column] for column in (keys, values)]
    texts = b"".join(each for column in columns for each in column)
    if any(mark in texts for mark in _NOT_IN_TEXT):
        return None
    return b"".join(b"%s\t%s\n" % row for row in zip(*columns, strict=True))


def _text(value: Any) -> bytes:
    return value if isinstance(value, bytes) else b"%d" % value


def _takes(node: Node, placeholder: str) -> bool:
    return any(tensor.node == placeholder for tensor in node.inputs)


def _typed(node: Node) -> bool:
    return node.op.startswith("LookupTable") and "Tout" in node.attrs


def _inner_nodes(graph: Graph, users: list[Node]) -> Iterator[Node]:
    if all(_typed(node) for node in users):
        return
    for function in graph.functions.values():
        yield from function.graph.nodes.values()
