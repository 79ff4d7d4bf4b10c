"""Puts the contents of vocabulary files into the graph.

Tables read text files when they are initialized: those of a SavedModel its assets,
those of a `.meta` whatever path the program had. Nothing of a file's graph reads files
here: the file is read in Python, from the directory of the export only unless the
caller trusts the graph, and the table gets its contents from constants.
"""

import ntpath
import os
import warnings
from collections.abc import Collection
from typing import Any

import numpy as np
import tensorflow as tf
from tensorflow.core.protobuf import meta_graph_pb2

from keras_metagraph.errors import FormatError, UntrustedContentError
from keras_metagraph.formats.assets import read_asset
from keras_metagraph.formats.layout import Export
from keras_metagraph.graph.ir import Graph, TensorName
from keras_metagraph.graph.tables import unread_files
from keras_metagraph.graph.to_proto import graph_to_proto
from keras_metagraph.graph.variables import VARIABLE_OPS

_Files = dict[str, tuple[str | None, str]]  # directory and name by what reads it
_WHOLE_LINE, _LINE_NUMBER = -2, -1  # TF lookup_ops.TextFileIndex


def inline_vocabularies(meta_graph_def: Any, assets_directory: str | None) -> Any:
    """Replaces table initializers that read asset files by ones that hold them.

    Args:
        meta_graph_def: A MetaGraphDef; not changed.
        assets_directory: The `assets` directory of a SavedModel, or `None`.

    Returns:
        The MetaGraphDef, or a changed copy where tables read assets.

    Raises:
        FormatError: If assets are missing or malformed; lists all of them.
        UntrustedContentError: If an asset lies outside of the directory.
    """
    files = _assets_of_tables(meta_graph_def, assets_directory)
    return _with_files(
        meta_graph_def,
        files,
        "Vocabulary files of the SavedModel cannot be read:",
        "copy the whole SavedModel directory, assets included.",
    )


def inline_named_files(
    meta_graph_def: Any, directory: str, safe_mode: bool = True
) -> Any:
    """Does the same for tables of files that are no assets, but named by their path.

    Args:
        meta_graph_def: A MetaGraphDef; not changed.
        directory: Where the graph lies. A file of the same name there is the file.
        safe_mode: Whether files of other directories are not read.

    Returns:
        The MetaGraphDef, or a changed copy where such files were read. Other tables
        keep their initializer, which is then refused when run.

    Raises:
        FormatError: If files are malformed; lists all of them.
    """
    files = _named_files(meta_graph_def, directory, safe_mode)
    nodes = {node.name: node for node in meta_graph_def.graph_def.node}
    for reader, (found, name) in files.items():
        path = _constant_path(nodes.get(_filename_source(nodes, nodes[reader])))
        beside = os.path.join(found or "", name)
        if os.path.realpath(path or "") != os.path.realpath(beside):
            warnings.warn(
                f"The table {nodes[reader].input[0]!r} is filled from {beside!r}; the "
                f"graph names {path!r}.",
                stacklevel=2,
            )
    return _with_files(
        meta_graph_def,
        files,
        "Vocabulary files of the graph cannot be read:",
        "copy the files that the program had to where the graph is.",
    )


def require_filled(graph: Graph, names: Collection[str], safe_mode: bool) -> None:
    """Refuses to go on where tables would be empty, since their files were not read.

    Args:
        graph: The graph, after the vocabularies are in it.
        names: Names of the nodes that are needed.
        safe_mode: Whether files of other directories were not even looked for.

    Raises:
        UntrustedContentError: If nodes use such tables; lists all of them.
        FormatError: The same, where the files were looked for.
    """
    readers = unread_files(graph, names)
    if not readers:
        return
    nodes = {node.name: node for node in graph_to_proto(graph).node}
    findings = []
    for reader in readers:
        path = _constant_path(nodes.get(_filename_source(nodes, nodes[reader.name])))
        findings.append(f"{reader.inputs[0].node}: {path or 'a path that is computed'}")
    if not safe_mode:
        raise FormatError(
            "The outputs look words up in tables of files that are not there:",
            findings=findings,
            fix="copy the files to where the graph is, or name outputs that need no "
            "tables.",
        )
    raise UntrustedContentError(
        "The outputs look words up in tables of files, which are not read unasked:",
        findings=findings,
        fix="copy the files to where the graph is; or, for a file that you trust as "
        "you would trust a program, pass safe_mode=False; or name outputs that need "
        "no tables.",
    )


def readable_tables(meta_graph_def: Any, export: Export) -> set[str]:
    """What fills tables from files that are read unasked.

    Args:
        meta_graph_def: A MetaGraphDef.
        export: Where it lies.

    Returns:
        Names of operations.
    """
    assets = _assets_of_tables(meta_graph_def, export.assets_directory)
    return {*assets, *_named_files(meta_graph_def, directory_of(export), True)}


def directory_of(export: Export) -> str:
    """Where the graph of an export lies."""
    return os.path.dirname(export.path) or "."


def _assets_of_tables(meta_graph_def: Any, directory: str | None) -> _Files:
    """Assets by what reads them."""
    assets = _asset_files(meta_graph_def)
    nodes = {node.name: node for node in meta_graph_def.graph_def.node}
    sources = {node.name: _filename_source(nodes, node) for node in _readers(nodes)}
    return {
        reader: (directory, assets[source])
        for reader, source in sources.items()
        if source in assets
    }


def _named_files(meta_graph_def: Any, directory: str, safe_mode: bool) -> _Files:
    """Files that are no assets, by what reads them; only those that are there."""
    nodes = {node.name: node for node in meta_graph_def.graph_def.node}
    files: _Files = {}
    for reader in _readers(nodes):
        path = _constant_path(nodes.get(_filename_source(nodes, reader)))
        name = ntpath.basename(path or "")  # which splits at both separators
        if path and not safe_mode and os.path.isfile(path):
            files[reader.name] = os.path.split(path)
        elif _is_vocabulary(name) and os.path.isfile(os.path.join(directory, name)):
            files[reader.name] = (directory, name)
    return files


def _is_vocabulary(name: str) -> bool:
    """Whether a file may be one; what programs hide in a directory is not."""
    return bool(name) and not name.startswith(".")


def _readers(nodes: dict[str, Any]) -> list[Any]:
    """What fills tables from text files."""
    return [
        node
        for node in nodes.values()
        if node.op.startswith("InitializeTableFromTextFile")
    ]


def _constant_path(node: Any) -> str | None:
    """A path that stands in the graph; `None` if it is computed or fed."""
    if node is None or node.op != "Const":
        return None
    proto = node.attr["value"].tensor
    if len(proto.string_val) != 1 or b"\0" in proto.string_val[0]:
        return None
    return os.fsdecode(proto.string_val[0]) or None


def _with_files(
    meta_graph_def: Any,
    files: _Files,
    problem: str,
    fix: str,
) -> Any:
    """A copy in which tables hold what is in files: directory and name by reader."""
    if not files:
        return meta_graph_def
    result = type(meta_graph_def)()
    result.CopyFrom(meta_graph_def)
    nodes = {node.name: node for node in result.graph_def.node}
    problems = []
    for reader, (directory, name) in files.items():
        if directory is None:
            problems.append(f"{name}: there is no assets directory")
            continue
        table = nodes[reader].input[0]
        try:
            _inline(result.graph_def, nodes, reader, directory, name)
        except UntrustedContentError:
            raise
        except (FormatError, ValueError, IndexError) as error:
            reason = getattr(error, "problem", error)
            problems.append(f"{name}, for table {table}: {reason}")
    if problems:
        raise FormatError(problem, findings=problems, fix=fix)
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
