"""Counting in serialized protos."""

import tensorflow as tf
from hypothesis import given
from hypothesis import strategies as st

from keras_metagraph.formats import wire
from oracle.references import FIXTURES

v1 = tf.compat.v1


def test_counts_what_a_parsed_proto_has():
    content = (FIXTURES / "zoo" / "mlp_adam" / "model-20.meta").read_bytes()
    meta_graph_def = v1.MetaGraphDef.FromString(content)
    collections = len(meta_graph_def.collection_def)
    nodes = len(meta_graph_def.graph_def.node)
    # meta_info_def, graph_def and saver_def; the graph's versions.
    expected = 3 + collections + nodes + 1
    assert wire.count_parts(content, "MetaGraphDef", 10**6) == expected


def test_counts_functions_and_their_nodes():
    meta_graph_def = v1.MetaGraphDef()
    for _ in range(3):
        function = meta_graph_def.graph_def.library.function.add()
        function.node_def.add(name="a")
        function.node_def.add(name="b")
    content = meta_graph_def.SerializeToString()
    # The graph, the library, three functions and six nodes.
    assert wire.count_parts(content, "MetaGraphDef", 10**6) == 1 + 1 + 3 + 6


def test_counting_ends_at_the_limit():
    assert wire.count_parts(b"\x08\x00" * 10**6, "MetaGraphDef", 100) == 101


def test_fields_and_where_they_end():
    saver = v1.train.SaverDef(filename_tensor_name="ab", max_to_keep=300)
    content = saver.SerializeToString()
    fields = list(wire.read_fields(content, 0, len(content)))
    assert fields == [(1, 2, 2, 4), (4, 0, 5, 7)]


def test_truncated_field_ends_behind_the_data():
    content = v1.train.SaverDef(filename_tensor_name="abcdef").SerializeToString()[:4]
    assert list(wire.read_fields(content, 0, 4)) == [(1, 2, 2, 8)]


@given(st.binary(max_size=200))
def test_any_bytes_come_to_an_end(data):
    assert wire.count_parts(data, "SavedModel", 10**6) <= len(data)
