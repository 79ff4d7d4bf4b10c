"""Puts the contents of vocabulary files into the graph.

A SavedModel's tables read text files when they are initialized (`assets/`). Nothing of
a file's graph reads files here: the asset is read in Python, from the SavedModel's own
directory only, and the table gets its contents from constants.
"""

from typing import Any

import numpy as np
import tensorflow as tf
from tensorflow.core.protobuf import meta_graph_pb2

from keras_metagraph.errors import FormatError, UntrustedContentError
from keras_metagraph.formats.assets import read_asset
from keras_metagraph.graph.ir import TensorName
from keras_metagraph.graph.variables import VARIABLE_OPS

_WHOLE_LINE, _LINE_NUMBER = -2, -1  # TF lookup_ops.TextFileIndex


def inline_vocabularies(meta_graph_def: Any, assets_directory: str | None) -> Any:
    """Replaces table initializers that read asset files by ones that hold them.

    Args:
        meta_graph_def: A MetaGraphDef; not changed.
        assets_directory: The `assets` directory of a SavedModel, or `None`.

    Returns:
        The MetaGraphDef, or a changed copy where tables read assets. Tables of files
        that are not assets keep their initializer (which is then refused when run).

    Raises:
        FormatError: If assets are missing or malformed; lists all of them.
        UntrustedContentError: If an asset lies outside of the directory.
    """
    assets = _asset_files(meta_graph_def)
    nodes = {node.name: node for node in meta_graph_def.graph_def.node}
    readers = [
        node
        for node in meta_graph_def.graph_def.node
        if node.op.startswith("InitializeTableFromTextFile")
        and _filename_source(nodes, node) in assets
    ]
    if not readers:
        return meta_graph_def
    result = type(meta_graph_def)()
    result.CopyFrom(meta_graph_def)
    copies = {node.name: node for node in result.graph_def.node}
    problems = []
    for reader in readers:
        name = assets[_filename_source(nodes, reader)]
        if assets_directory is None:
            problems.append(f"{name}: there is no assets directory")
            continue
        try:
            _inline(result.graph_def, copies, reader.name, assets_directory, name)
        except UntrustedContentError:
            raise
        except (FormatError, ValueError, IndexError) as error:
            problem = getattr(error, "problem", error)
            problems.append(f"{name}, for table {reader.input[0]}: {problem}")
    if problems:
        raise FormatError(
            "Vocabulary files of the SavedModel cannot be read:",
            findings=problems,
            fix="copy the whole SavedModel directory, assets included.",
        )
    return result


def _asset_files(meta_graph_def: Any) -> dict[str, str]:
    """File names of the assets by the node that holds the path."""
    assets = list(meta_graph_def.asset_file_def)
    # TF 1.x kept them in a collection, and before 1.14 only there.
    if not assets and "saved_model_assets" in meta_graph_def.collection_def:
        members = meta_graph_def.collection_def["saved_model_assets"].any_list.value
        for packed in members:
            asset = meta_graph_pb2.AssetFileDef()
            if packed.Unpack(asset):
                assets.append(asset)
    return {
        TensorName.parse(asset.tensor_info.name).node: asset.filename
        for asset in assets
    }


def _filename_source(nodes: dict[str, Any], reader: Any) -> str:
    """The node that the file name comes from, through all that passes it on.

    TensorFlow 2 keeps it in a variable, which `<variable>/Assign` sets.
    """
    name = TensorName.parse(reader.input[1]).node
    for _ in range(len(nodes)):
        node = nodes.get(name)
        assignment = nodes.get(f"{name}/Assign")
        if node is not None and node.op in ("Identity", "ReadVariableOp"):
            name = TensorName.parse(node.input[0]).node
        elif node is not None and node.op in VARIABLE_OPS and assignment is not None:
            name = TensorName.parse(assignment.input[1]).node
        else:
            break
    return name


def _table(nodes: dict[str, Any], reader: Any) -> Any:
    """The node of the table that is filled, through all that passes it on."""
    tensor = TensorName.parse(reader.input[0])
    node = nodes[tensor.node]
    while node.op in ("Identity", "IdentityN") and tensor.index < len(node.input):
        tensor = TensorName.parse(node.input[tensor.index])
        node = nodes[tensor.node]
    return node


def _inline(
    graph_def: Any, nodes: dict[str, Any], reader: str, directory: str, name: str
) -> None:
    """Turns one reader into a LookupTableImport of constants."""
    node = nodes[reader]
    table = _table(nodes, node)
    lines = read_asset(directory, name).splitlines()
    # Attributes with their default value (-1, a tab) may have been stripped.
    if "vocab_size" in node.attr and node.attr["vocab_size"].i >= 0:
        lines = lines[: node.attr["vocab_size"].i]
    delimiter = node.attr["delimiter"].s or b"\t"
    columns = [
        _column(lines, node, "key", delimiter, table),
        _column(lines, node, "value", delimiter, table),
    ]
    inputs = [node.input[0]]
    for column, label in zip(columns, ("keys", "values"), strict=True):
        constant = graph_def.node.add(op="Const", name=f"{reader}/{label}")
        constant.attr["dtype"].type = tf.as_dtype(column.dtype).as_datatype_enum
        constant.attr["value"].tensor.CopyFrom(tf.make_tensor_proto(column))
        inputs.append(constant.name)
    types = [table.attr["key_dtype"].type, table.attr["value_dtype"].type]
    node.op = "LookupTableImportV2" if node.op.endswith("V2") else "LookupTableImport"
    node.ClearField("attr")
    node.attr["Tin"].type, node.attr["Tout"].type = types
    del node.input[:]
    node.input.extend(inputs)


def _column(
    lines: list[bytes], reader: Any, side: str, delimiter: bytes, table: Any
) -> Any:
    """The keys or values of a table, from the lines of its file."""
    dtype = tf.as_dtype(table.attr[f"{side}_dtype"].type)
    index = reader.attr[f"{side}_index"].i
    if index == _LINE_NUMBER:
        first = reader.attr["offset"].i
        return np.arange(first, first + len(lines), dtype=dtype.as_numpy_dtype)
    texts = lines
    if index != _WHOLE_LINE:
        texts = [line.split(delimiter)[index] for line in lines]
    if dtype == tf.string:
        return np.array(texts, dtype=object)
    return np.array([float(text) for text in texts]).astype(dtype.as_numpy_dtype)
