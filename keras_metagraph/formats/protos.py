"""Reads MetaGraph and SavedModel protos from files that may hold anything."""

import re
from typing import Any, NoReturn

import tensorflow as tf
from google.protobuf import text_format
from google.protobuf.message import DecodeError
from tensorflow.core.protobuf.saved_model_pb2 import SavedModel

from keras_metagraph.checkpoint.durable import read_regular_file
from keras_metagraph.errors import FormatError
from keras_metagraph.formats import wire
from keras_metagraph.formats.identify import is_text, seems_to_be

MetaGraphDef = Any

MAX_FILE_BYTES = 2**31 - 1
"""The most that a protocol buffer can hold, in bytes."""

MAX_PARTS = 2_000_000
"""The most nodes, functions and collections; the largest real graphs have 40,000."""

_VERSION = re.compile(r"\d+(?:\.\d+)*")
_PEP440 = re.compile(
    r"\d+(?:\.\d+)*[-_.]?(?:(?:a|alpha|b|beta|rc|pre)[-_.]?\d*)?(?:[-_.]?post\d*)?"
    r"(?:[-_.]?dev\d*)?(?:\+[a-z0-9]+(?:[-_.][a-z0-9]+)*)?",
    re.IGNORECASE,
)


def read_meta_graph(path: str, max_bytes: int = MAX_FILE_BYTES) -> MetaGraphDef:
    """Reads a MetaGraphDef, binary or text.

    Args:
        path: The file.
        max_bytes: Larger files are refused.

    Returns:
        The MetaGraphDef, with a version string that can be parsed.

    Raises:
        FormatError: If the file is no MetaGraphDef; says what it seems to be.
    """
    data = _read(path, max_bytes)
    meta_graph_def = _parse(path, data, tf.compat.v1.MetaGraphDef(), "MetaGraphDef")
    if not meta_graph_def.HasField("graph_def") or not _named(meta_graph_def):
        _refuse(path, data, "MetaGraphDef", "it holds no graph")
    _repair_version(meta_graph_def)
    return meta_graph_def


def read_saved_model(path: str, max_bytes: int = MAX_FILE_BYTES) -> list[MetaGraphDef]:
    """Reads the MetaGraphDefs of a SavedModel, binary or text.

    Args:
        path: The file.
        max_bytes: Larger files are refused.

    Returns:
        The MetaGraphDefs, in the file's order; at least one.

    Raises:
        FormatError: If the file is no SavedModel; says what it seems to be.
    """
    data = _read(path, max_bytes)
    saved_model = _parse(path, data, SavedModel(), "SavedModel")
    meta_graphs = list(saved_model.meta_graphs)
    if not meta_graphs or not all(_named(meta) for meta in meta_graphs):
        _refuse(path, data, "SavedModel", "it holds no graph")
    for meta_graph_def in meta_graphs:
        _repair_version(meta_graph_def)
    return meta_graphs


def _read(path: str, max_bytes: int) -> bytes:
    try:
        return read_regular_file(path, max_bytes)
    except OSError as error:
        raise FormatError(
            f"{path!r} cannot be read: {error.strerror or error}.",
            fix="pass the path of a readable graph file of at most "
            f"{max_bytes:,} bytes.",
        ) from error


def _parse(path: str, data: bytes, message: Any, name: str) -> Any:
    text = is_text(data)
    parts = data.count(b"{") if text else wire.count_parts(data, name, MAX_PARTS)
    if parts > MAX_PARTS:
        raise FormatError(
            f"{path!r} has more than {MAX_PARTS:,} nodes, functions and collections.",
            fix="take parts of the graph that are not needed away before loading it.",
        )
    try:
        if text:
            # Fields of another TensorFlow's protos are no reason to give up.
            text_format.Parse(data.decode(), message, allow_unknown_field=True)
        else:
            message.ParseFromString(data)
    except (DecodeError, text_format.ParseError, ValueError, RecursionError) as error:
        _refuse(path, data, name, str(error))
    return message


def _refuse(path: str, data: bytes, name: str, why: str) -> NoReturn:
    raise FormatError(
        f"{path!r} is no {name}: {why}. It seems to be {seems_to_be(data)}.",
        fix="pass a .meta file of tf.train.Saver, the prefix of its checkpoint, or a "
        "SavedModel directory.",
    )


def _named(meta_graph_def: MetaGraphDef) -> bool:
    """Whether all nodes have name and op, which others, parsed by luck, have not."""
    return all(node.name and node.op for node in meta_graph_def.graph_def.node)


def _repair_version(meta_graph_def: MetaGraphDef) -> None:
    """Makes `tensorflow_version` one that can be parsed: "0.12.head" becomes "0.12"."""
    info = meta_graph_def.meta_info_def
    text = info.tensorflow_version
    if text and not _PEP440.fullmatch(text):
        found = _VERSION.match(text)
        info.tensorflow_version = found.group() if found else ""
