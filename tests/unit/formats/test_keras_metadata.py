"""What Keras 2 noted in a SavedModel: well-formed, damaged, and made to do harm."""

import json

import pytest
from tensorflow.core.protobuf.saved_object_graph_pb2 import SavedObjectGraph

from keras_metagraph.errors import FormatError, UntrustedContentError
from keras_metagraph.formats import keras_metadata
from keras_metagraph.formats.keras_metadata import (
    FILE_NAME,
    parse_keras_metadata,
    read_keras_metadata,
)


def varint(number: int) -> bytes:
    digits = []
    while number > 0x7F:
        digits.append(number & 0x7F | 0x80)
        number >>= 7
    return bytes([*digits, number])


def text(number: int, value: str) -> bytes:
    data = value.encode()
    return varint(number << 3 | 2) + varint(len(data)) + data


def record(node: int, identifier: str, metadata: str) -> bytes:
    """A `SavedObject` in a `SavedMetadata`, as protobuf writes it."""
    fields = (varint(2 << 3) + varint(node) if node else b"") + text(3, "root")
    fields += text(4, identifier) + text(5, metadata)
    return varint(1 << 3 | 2) + varint(len(fields)) + fields


def graph(count: int) -> SavedObjectGraph:
    return SavedObjectGraph(nodes=[{} for _ in range(count)])


DENSE = json.dumps({"class_name": "Dense", "name": "d", "config": {"units": 3}})


def test_fields_are_found():
    data = record(0, "_tf_keras_network", "{}") + record(300, "_tf_keras_layer", DENSE)

    assert parse_keras_metadata(data, "f") == [
        (0, "_tf_keras_network", "{}"),
        (300, "_tf_keras_layer", DENSE),
    ]


def test_file_beside_the_graph(tmp_path):
    (tmp_path / FILE_NAME).write_bytes(record(1, "_tf_keras_layer", DENSE))

    (found,) = read_keras_metadata(str(tmp_path), graph(2)).values()

    assert (found.node, found.name, found.class_name) == (1, "d", "Dense")
    assert found.config == {"units": 3}


def test_text_in_the_object_graph(tmp_path):
    objects = graph(2)
    objects.nodes[1].user_object.identifier = "_tf_keras_layer"
    objects.nodes[1].user_object.metadata = DENSE

    assert read_keras_metadata(str(tmp_path), objects)[1].class_name == "Dense"


def test_model_of_other_programs_has_none(tmp_path):
    objects = graph(1)
    objects.nodes[0].user_object.identifier = "_generic_user_object"

    assert read_keras_metadata(str(tmp_path), objects) == {}


def test_tuples_and_shapes_are_made(tmp_path):
    metadata = {
        "config": {"axis": {"class_name": "__tuple__", "items": [1, 2]}},
        "build_input_shape": {"class_name": "TensorShape", "items": [None, 3]},
    }
    data = record(0, "_tf_keras_layer", json.dumps(metadata))
    (tmp_path / FILE_NAME).write_bytes(data)

    found = read_keras_metadata(str(tmp_path), graph(1))[0]

    assert found.config == {"axis": (1, 2)}
    assert found.metadata["build_input_shape"] == (None, 3)


@pytest.mark.parametrize(
    ("data", "problem"),
    [
        (record(0, "_tf_keras_layer", DENSE)[:-4], "truncated"),
        (b"\x0a\x05\x22\x09ab", "truncated"),
        (b"\x00\x01\x02", "another kind"),
        (record(0, "_tf_keras_layer", "{"), "no JSON"),
        (record(0, "_tf_keras_layer", "[" * 100_000), "no JSON"),
        (record(0, "_tf_keras_layer", "[1]"), "is a list"),
        (record(9, "_tf_keras_layer", DENSE), "not in the object graph"),
        (record(2**63, "_tf_keras_layer", DENSE), "not in the object graph"),
        (record(0, "_tf_keras_layer", "x").replace(b"x", b"\xff"), "decode"),
    ],
)
def test_damage_is_told(data, problem, tmp_path):
    (tmp_path / FILE_NAME).write_bytes(data)

    with pytest.raises(FormatError, match=problem):
        read_keras_metadata(str(tmp_path), graph(2))


def test_sizes_are_bounded(monkeypatch, tmp_path):
    data = record(0, "_tf_keras_layer", DENSE)
    (tmp_path / FILE_NAME).write_bytes(data * 3)
    for name, value in (("_MOST_OBJECTS", 2), ("_MOST_JSON", 10), ("_MOST_BYTES", 20)):
        with monkeypatch.context() as patch:
            patch.setattr(keras_metadata, name, value)
            with pytest.raises(FormatError):
                read_keras_metadata(str(tmp_path), graph(1))


def test_link_out_of_the_directory_is_refused(tmp_path):
    (tmp_path / "secret").write_bytes(record(0, "_tf_keras_layer", DENSE))
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / FILE_NAME).symlink_to(tmp_path / "secret")

    with pytest.raises(UntrustedContentError):
        read_keras_metadata(str(tmp_path / "model"), graph(1))
