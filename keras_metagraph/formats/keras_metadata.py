"""Reads what Keras 2 wrote of its objects into a SavedModel.

Releases from TensorFlow 2.5 on wrote a file of its own, `keras_metadata.pb`
(`keras/protobuf/saved_metadata.proto`: `SavedMetadata.nodes = 1`; of a `SavedObject`
`node_id = 2`, `node_path = 3`, `identifier = 4`, `metadata = 5`). TensorFlow 2.0 to 2.4
wrote the same JSON into the object graph (`SavedUserObject.metadata`). Keras 3 has no
class for that proto, so its fields are walked here.
"""

import dataclasses
import json
import os
from collections.abc import Iterator
from typing import Any, NoReturn

from keras_metagraph.errors import FormatError
from keras_metagraph.formats.assets import read_asset
from keras_metagraph.formats.wire import read_fields

FILE_NAME = "keras_metadata.pb"
"""The name of the file in the directory of the SavedModel."""

_IDENTIFIERS = frozenset(
    {
        "_tf_keras_input_layer",
        "_tf_keras_layer",
        "_tf_keras_metric",
        "_tf_keras_model",
        "_tf_keras_network",
        "_tf_keras_rnn_layer",
        "_tf_keras_sequential",
    }
)
_TUPLES = frozenset({"TensorShape", "__tuple__"})
_MOST_BYTES = 1 << 28
_MOST_JSON = 1 << 26
_MOST_OBJECTS = 1 << 17
_NODES, _NODE_ID, _IDENTIFIER, _METADATA = 1, 2, 4, 5


@dataclasses.dataclass(frozen=True, slots=True)
class KerasObject:
    """A layer, model or metric in a SavedModel.

    Attributes:
        node: Its number in the object graph.
        identifier: What it is: `"_tf_keras_layer"`, `"_tf_keras_network"`...
        metadata: Its class, its config, and what else Keras noted.
    """

    node: int
    identifier: str
    metadata: dict[str, Any]

    @property
    def name(self) -> str:
        """Its name in the model."""
        return str(self.metadata.get("name", ""))

    @property
    def class_name(self) -> str:
        """The name of its class."""
        return str(self.metadata.get("class_name", ""))

    @property
    def config(self) -> dict[str, Any] | None:
        """What `get_config` returned; None where the class has none."""
        config = self.metadata.get("config")
        return config if isinstance(config, dict) else None


def read_keras_metadata(
    directory: str, object_graph_def: Any
) -> dict[int, KerasObject]:
    """Reads what a SavedModel says of the Keras objects in it.

    Args:
        directory: The directory of the SavedModel.
        object_graph_def: The `SavedObjectGraph` of its MetaGraph.

    Returns:
        The objects by their number in the object graph; none of a SavedModel that
        Keras 2 did not write.

    Raises:
        FormatError: If the file or the JSON in it is damaged.
        UntrustedContentError: If the file is a link that leads out of the directory.

    Example:
        >>> read_keras_metadata("model", object_graph_def)[0].class_name
        'Functional'
    """
    path = os.path.join(directory, FILE_NAME)
    if os.path.lexists(path):
        data = read_asset(directory or ".", FILE_NAME, _MOST_BYTES)
        records = parse_keras_metadata(data, path)
    else:
        records = list(_embedded(object_graph_def))
    objects = {}
    for node, identifier, text in records:
        if identifier not in _IDENTIFIERS or not text:
            continue
        if not 0 <= node < len(object_graph_def.nodes):
            _refuse(path, f"object {node} is not in the object graph")
        objects[node] = KerasObject(node, identifier, _parse(text, node, path))
    return objects


def parse_keras_metadata(data: bytes, path: str) -> list[tuple[int, str, str]]:
    """Takes a serialized `SavedMetadata` apart.

    Args:
        data: The bytes.
        path: Where they are from, for messages.

    Returns:
        Number, identifier and JSON of each object.

    Raises:
        FormatError: If it is truncated, or has more objects than any model.

    Example:
        >>> parse_keras_metadata(b"", "keras_metadata.pb")
        []
    """
    records: list[tuple[int, str, str]] = []
    for number, kind, start, end in read_fields(data, 0, len(data)):
        if end > len(data):
            _refuse(path, "it is truncated")
        if number != _NODES or kind != 2:
            continue
        if len(records) == _MOST_OBJECTS:
            _refuse(path, f"it has more than {_MOST_OBJECTS:,} objects")
        records.append(_record(data, start, end, path))
    if data and not records:
        _refuse(path, "it is of another kind")
    return records


def _record(data: bytes, start: int, end: int, path: str) -> tuple[int, str, str]:
    """Reads a `SavedObject`; proto3 leaves a number out that is 0."""
    node, texts = 0, {_IDENTIFIER: b"", _METADATA: b""}
    for number, kind, begin, stop in read_fields(data, start, end):
        if stop > end:
            _refuse(path, "it is truncated")
        if number == _NODE_ID and kind == 0:
            node = _number(data[begin:stop])
        elif number in texts and kind == 2:
            texts[number] = data[begin:stop]
    try:
        return node, texts[_IDENTIFIER].decode(), texts[_METADATA].decode()
    except UnicodeDecodeError as error:
        _refuse(path, str(error))


def _number(digits: bytes) -> int:
    """A variable-length number: seven bits a byte, the low ones first."""
    return sum((digit & 0x7F) << (7 * place) for place, digit in enumerate(digits))


def _embedded(object_graph_def: Any) -> Iterator[tuple[int, str, str]]:
    """What TensorFlow 2.0 to 2.4 wrote into the object graph."""
    for node, saved in enumerate(object_graph_def.nodes):
        if saved.WhichOneof("kind") == "user_object":
            yield node, saved.user_object.identifier, saved.user_object.metadata


def _parse(text: str, node: int, path: str) -> dict[str, Any]:
    if len(text) > _MOST_JSON:
        _refuse(path, f"object {node} has {len(text):,} characters")
    try:
        value = json.loads(text, object_hook=_decode)
    except (ValueError, RecursionError) as error:
        _refuse(path, f"object {node} is no JSON: {error}")
    if not isinstance(value, dict):
        _refuse(path, f"object {node} is a {type(value).__name__}")
    return value


def _decode(value: dict[str, Any]) -> Any:
    """Tuples and shapes, which Keras 2 wrote as objects."""
    kind, items = value.get("class_name"), value.get("items")
    if isinstance(kind, str) and kind in _TUPLES and isinstance(items, list):
        return tuple(items)
    return value


def _refuse(path: str, why: str) -> NoReturn:
    raise FormatError(
        f"What Keras wrote of its objects ({path!r}) is damaged: {why}.",
        fix='get the directory once more; or load its graph with rebuild="graph".',
    )
