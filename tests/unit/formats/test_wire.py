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
    # The graph itself and its (absent) library count as parts too.
    expected = (
        1
        + len(meta_graph_def.graph_def.node)
        + len(meta_graph_def.collection_def)
        + len(meta_graph_def.signature_def)
        + meta_graph_def.graph_def.HasField("library")
    )
    assert wire.count_parts(content, "MetaGraphDef") == expected


def test_counts_functions_and_their_nodes():
    meta_graph_def = v1.MetaGraphDef()
    for _ in range(3):
        function = meta_graph_def.graph_def.library.function.add()
        function.node_def.add(name="a")
        function.node_def.add(name="b")
    content = meta_graph_def.SerializeToString()
    assert wire.count_parts(content, "MetaGraphDef") == 1 + 1 + 3 + 6


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
    assert wire.count_parts(data, "SavedModel") <= len(data)
