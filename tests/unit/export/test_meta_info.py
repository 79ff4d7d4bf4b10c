"""Tags, versions and fields of the user."""

import pytest
import tensorflow as tf
from google.protobuf import wrappers_pb2

from keras_metagraph.errors import ExportError
from keras_metagraph.export.meta_info import read_meta_info, write_meta_info


def written(fields):
    info = tf.compat.v1.MetaGraphDef().meta_info_def
    write_meta_info(info, fields, version="1.15.5", stripped=True)
    return info


def test_fields_of_the_format():
    info = written({"tags": ["serve", "gpu"], "meta_graph_version": "v2"})
    assert list(info.tags) == ["serve", "gpu"]
    assert info.meta_graph_version == "v2"
    assert info.tensorflow_version == "1.15.5"
    assert info.stripped_default_attrs
    assert list(written({"tags": "serve"}).tags) == ["serve"]
    assert read_meta_info(info) == {}


def test_fields_of_the_user():
    fields = {"author": "me", "runs": [1, 2], "nested": {"a": True}}
    assert read_meta_info(written(fields)) == fields


def test_a_message_of_the_user():
    info = written({"any_info": wrappers_pb2.StringValue(value="x")})
    value = wrappers_pb2.StringValue()
    assert info.any_info.Unpack(value)
    assert value.value == "x"
    assert written({"any_info": info.any_info}).any_info == info.any_info


def test_what_has_no_form_is_refused():
    with pytest.raises(ExportError, match="no JSON form"):
        written({"author": object()})
    with pytest.raises(ExportError, match="room for one message"):
        written({"author": "me", "any_info": wrappers_pb2.StringValue()})
