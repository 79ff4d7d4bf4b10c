"""Says what a file seems to be that is not what was expected."""

import re

import tensorflow as tf
from google.protobuf.message import DecodeError
from tensorflow.core.framework.node_def_pb2 import NodeDef
from tensorflow.core.protobuf.saved_model_pb2 import SavedModel

from keras_metagraph.formats import wire

_TEXT_START = re.compile(rb"(?:\s|#[^\n]*\n)*[A-Za-z_]\w*\s*[:{<]")
_CONTROL = re.compile(rb"[\x00-\x08\x0e-\x1f]")
_SSTABLE_MAGIC = bytes.fromhex("57fb808b247547db")

_MAGIC = (
    (b"\x89HDF\r\n", "a Keras HDF5 file, which keras.saving.load_model reads"),
    (b"PK\x03\x04", "a ZIP archive, such as .keras or .npz"),
    (b"\x1f\x8b", "a gzip archive, to be unpacked first"),
    (b"\x80\x02", "a Python pickle"),
    (b"\x80\x03", "a Python pickle"),
    (b"\x80\x04", "a Python pickle"),
    (b"\x80\x05", "a Python pickle"),
)
_TEXT_STARTS = (
    (b"version https://git-lfs", "a Git LFS pointer: the file itself was not fetched"),
    (b"<", "a web page"),
    (b"{", "JSON"),
    (b"[", "JSON"),
    (b"model_checkpoint_path", "the state file of a directory of checkpoints"),
    (b"all_model_checkpoint_paths", "the state file of a directory of checkpoints"),
    (b"saved_model_schema_version", "a SavedModel in text form"),
    (b"node", "a GraphDef in text form, which has no variables' values"),
    (b"meta_info_def", "a MetaGraphDef in text form, damaged or truncated"),
    (b"graph_def", "a MetaGraphDef in text form, damaged or truncated"),
)


def is_text(data: bytes) -> bool:
    """Whether the bytes are a proto in text form."""
    head = data[:4096]
    return _TEXT_START.match(head) is not None and not _CONTROL.search(head)


def seems_to_be(data: bytes) -> str:
    """What a file seems to be, to end a message with.

    Args:
        data: All of its bytes.

    Returns:
        A phrase such as `"a frozen GraphDef of 120 nodes"`.
    """
    if not data:
        return "an empty file"
    for magic, phrase in _MAGIC:
        if data.startswith(magic):
            return phrase
    if data.endswith(_SSTABLE_MAGIC):
        return "a part of a checkpoint, not the graph"
    if _CONTROL.search(data[:4096]):
        return _binary(data)
    for start, phrase in _TEXT_STARTS:
        if data.lstrip().startswith(start):
            return phrase
    return "text of another kind"


def _binary(data: bytes) -> str:
    """Tries the protos that people mistake for one another."""
    graph_def = tf.compat.v1.GraphDef()
    try:
        graph_def.ParseFromString(data)
    except DecodeError:
        graph_def.Clear()
    if graph_def.node and all(node.name and node.op for node in graph_def.node):
        return (
            f"a frozen GraphDef of {len(graph_def.node)} nodes, which has neither "
            "variables nor collections"
        )
    try:
        meta_graphs = SavedModel.FromString(data).meta_graphs
    except DecodeError:
        meta_graphs = []
    if any(meta.graph_def.node for meta in meta_graphs):
        return "the saved_model.pb of a SavedModel directory"
    return _truncated(data) or "binary data of another kind"


def _truncated(data: bytes) -> str:
    """Recognizes a proto that ends inside a field."""
    fields = list(wire.read_fields(data, 0, len(data)))
    if not fields or fields[-1][3] <= len(data):
        return ""
    number, _, begin, end = fields[-1]
    kind = {1: "GraphDef" if _is_node(data, fields[0]) else "MetaGraphDef"}.get(
        fields[0][0], "protocol buffer"
    )
    return (
        f"a truncated {kind}: its field {number} says {end - begin:,} bytes, and "
        f"{len(data) - begin:,} are there"
    )


def _is_node(data: bytes, field: tuple[int, int, int, int]) -> bool:
    try:
        node = NodeDef.FromString(data[field[2] : field[3]])
    except DecodeError:
        return False
    return bool(node.name and node.op)
