"""Gives the vocabularies of a legacy graph back to files.

They came from files, and became constants when the graph was loaded.
"""

from typing import Any

import tensorflow as tf

from keras_metagraph.export.nodes import const_node
from keras_metagraph.export.tables import TableFile, TableType, reader_node, table_lines
from keras_metagraph.graph.ir import Graph, Node, TensorName

_IMPORTS = {
    "LookupTableImport": "InitializeTableFromTextFile",
    "LookupTableImportV2": "InitializeTableFromTextFileV2",
}


def tables_to_files(meta_graph_def: Any, graph: Graph) -> list[TableFile]:
    """Lets tables read files again, where a text file can hold their contents.

    Args:
        meta_graph_def: The MetaGraphDef, which is changed: initializers keep their
            names, and their constants go.
        graph: Its graph, which is changed alike.

    Returns:
        The files.
    """
    graph_def = meta_graph_def.graph_def
    protos = {node.name: node for node in graph_def.node}
    found: list[TableFile] = []
    dropped: set[str] = set()
    for node in list(graph.nodes.values()):
        lines = _lines(graph, node)
        if lines is None:
            continue
        table, *constants = (tensor.node for tensor in node.inputs)
        name = f"{table.replace('/', '_')}.txt"
        filename = f"{node.name}/asset_filepath"
        if filename not in graph.nodes:  # else it was written so before
            graph.add(const_node(filename, name))
        reader = reader_node(node.name, _IMPORTS[node.op], table, filename)
        node.op, node.attrs = reader.op, reader.attrs
        node.inputs = [node.inputs[0], TensorName(filename)]
        proto = protos[node.name]
        controls = [text for text in proto.input if text.startswith("^")]
        proto.op = node.op
        proto.input[:] = [proto.input[0], filename, *controls]
        proto.ClearField("attr")
        for key, value in node.attrs.items():
            proto.attr[key].CopyFrom(value)
        found.append(TableFile(filename, name, lines))
        dropped.update(constants)
    for constant in dropped:
        del graph.nodes[constant]
    kept = [node for node in graph_def.node if node.name not in dropped]
    if dropped:
        del graph_def.node[:]
        graph_def.node.extend(kept)
        tensors = [f"{file.node}:0" for file in found]
        collection = meta_graph_def.collection_def["asset_filepaths"]
        collection.node_list.value.extend(tensors)
    return found


def _lines(graph: Graph, node: Node) -> bytes | None:
    """The file for a table; None for any that did not come from one."""
    if node.op not in _IMPORTS or len(node.inputs) != 3:
        return None
    table, *constants = (tensor.node for tensor in node.inputs)
    if constants != [f"{node.name}/keys", f"{node.name}/values"]:
        return None
    if not graph.nodes[table].op.startswith("HashTable"):
        return None
    keys, values = (
        tf.make_ndarray(graph.nodes[name].attrs["value"].tensor) for name in constants
    )
    kind = TableType(
        tf.as_dtype(node.attrs["Tin"].type), tf.as_dtype(node.attrs["Tout"].type), False
    )
    return table_lines(keys, values, kind)
