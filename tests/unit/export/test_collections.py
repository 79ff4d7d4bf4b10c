"""Collections of every kind are written, and read back."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from google.protobuf import struct_pb2, wrappers_pb2
from google.protobuf.any_pb2 import Any as AnyProto

from keras_metagraph.errors import ExportError, FormatError
from keras_metagraph.export.collections import (
    check_name,
    read_collection,
    register_proto_function,
    unregister_proto_function,
    write_collections,
)
from keras_metagraph.export.nodes import make_node
from keras_metagraph.graph.ir import Graph


class Rate:
    """A user class."""

    def __init__(self, value):
        self.value = value

    def to_proto(self):
        return wrappers_pb2.DoubleValue(value=self.value)

    @staticmethod
    def from_proto(message):
        return Rate(message.value)


@pytest.fixture
def graph():
    graph = Graph()
    graph.add(make_node("dense/Relu", "Relu", T=tf.float32))
    graph.add(make_node("init", "NoOp"))
    return graph


def written(graph, values, names=None):
    meta_graph_def = tf.compat.v1.MetaGraphDef()
    write_collections(meta_graph_def, {"c": values}, graph, names or {})
    collection = meta_graph_def.collection_def["c"]
    return collection.WhichOneof("kind"), read_collection("c", collection)


@pytest.mark.parametrize(
    ("values", "kind", "read"),
    [
        ([1, 2, np.int32(3)], "int64_list", [1, 2, 3]),
        ([0.5, np.float64(2.0)], "float_list", [0.5, 2.0]),
        (np.array([[1, 2]]), "int64_list", [1, 2]),
        (7, "int64_list", [7]),
        (["cat", "dog:3"], "bytes_list", [b"cat", b"dog:3"]),
        (b"raw", "bytes_list", [b"raw"]),
        (["dense/Relu:0"], "node_list", ["dense/Relu:0"]),
        (["^init"], "node_list", ["init"]),
        # Only the form of a tensor's name makes it one.
        (["init"], "bytes_list", [b"init"]),
        ([True], "int64_list", [1]),
    ],
)
def test_the_kind_follows_from_the_values(graph, values, kind, read):
    assert written(graph, values) == (kind, read)


def test_messages_become_any(graph):
    kind, (packed,) = written(graph, wrappers_pb2.StringValue(value="x"))
    assert kind == "any_list"
    value = wrappers_pb2.StringValue()
    assert packed.Unpack(value)
    assert value.value == "x"
    again = AnyProto()
    again.CopyFrom(packed)
    assert written(graph, [again])[1] == [packed]


def test_a_variable_of_the_model_is_a_node(graph):
    variable = keras.Variable(1.0)
    graph.add(make_node("dense/kernel", "VarHandleOp"))
    names = {id(variable): "dense/kernel"}
    assert written(graph, [variable], names) == ("node_list", ["dense/kernel:0"])


def test_objects_go_through_their_own_to_proto(graph):
    kind, (value,) = written(graph, Rate(0.25))
    assert kind == "bytes_list"
    assert wrappers_pb2.DoubleValue.FromString(value).value == 0.25


def test_registered_functions_bring_objects_back(graph):
    register_proto_function(
        "c", wrappers_pb2.DoubleValue, Rate.to_proto, Rate.from_proto
    )
    try:
        _, (value,) = written(graph, [Rate(0.25)])
        assert isinstance(value, Rate)
        assert value.value == 0.25
        with pytest.raises(ExportError, match="already"):
            register_proto_function("c")
        broken = tf.compat.v1.MetaGraphDef().collection_def["c"]
        broken.bytes_list.value.append(b"\xff")
        with pytest.raises(FormatError, match="holds no"):
            read_collection("c", broken)
    finally:
        unregister_proto_function("c")
    assert read_collection("c", broken) == [b"\xff"]


def test_everything_that_has_no_form_is_listed(graph):
    values = {"one": [object()], "two": [1, 0.5], "three": [{"a": 1}], "good": [1]}
    with pytest.raises(ExportError) as info:
        write_collections(tf.compat.v1.MetaGraphDef(), values, graph, {})
    assert len(info.value.findings) == 3
    assert "two: mixes float_list, int64_list" in info.value.findings


def test_an_empty_collection_is_not_written(graph):
    meta_graph_def = tf.compat.v1.MetaGraphDef()
    write_collections(meta_graph_def, {"c": []}, graph, {})
    assert "c" not in meta_graph_def.collection_def
    assert read_collection("c", meta_graph_def.collection_def["c"]) == []


@pytest.mark.parametrize("name", ["keras_metagraph", "variables", "", 3])
def test_names_of_the_format_are_refused(name):
    with pytest.raises(ExportError):
        check_name(name)


def test_a_message_of_another_kind_is_kept_as_it_is(graph):
    struct = struct_pb2.Struct()
    struct["a"] = 1.5
    _, (packed,) = written(graph, struct)
    back = struct_pb2.Struct()
    assert packed.Unpack(back)
    assert back["a"] == 1.5
