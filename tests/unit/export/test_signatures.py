"""Signatures of the user are checked against the graph."""

import pytest
import tensorflow as tf

from keras_metagraph.errors import SignatureError
from keras_metagraph.export.nodes import make_node
from keras_metagraph.export.outputs import TracedOutput
from keras_metagraph.export.signatures import write_signature, write_user_signatures
from keras_metagraph.export.specs import NamedSpec
from keras_metagraph.graph.ir import Graph


@pytest.fixture
def graph():
    graph = Graph()
    shape = tf.TensorShape([None, 3])
    graph.add(make_node("x", "Placeholder", dtype=tf.float32, shape=shape))
    graph.add(make_node("top", "TopKV2", ["x", "k"], T=tf.float32))
    return graph


def test_tensors_are_named_with_their_types(graph):
    meta_graph_def = tf.compat.v1.MetaGraphDef()
    value = {"inputs": {"in": "x"}, "outputs": {"best": "top:0", "place": "top:1"}}
    write_user_signatures(meta_graph_def, {"top": value}, graph)
    signature = meta_graph_def.signature_def["top"]
    assert signature.method_name == "tensorflow/serving/predict"
    assert signature.inputs["in"].name == "x:0"
    assert [d.size for d in signature.inputs["in"].tensor_shape.dim] == [-1, 3]
    dtypes = {k: tf.as_dtype(i.dtype).name for k, i in signature.outputs.items()}
    assert dtypes == {"best": "float32", "place": "int32"}


def test_a_signature_def_is_taken_as_it_is(graph):
    meta_graph_def = tf.compat.v1.MetaGraphDef()
    own = tf.compat.v1.MetaGraphDef().signature_def["s"]
    own.method_name = "tensorflow/serving/classify"
    own.inputs["inputs"].name = "x:0"
    write_user_signatures(meta_graph_def, {"c": own}, graph)
    assert meta_graph_def.signature_def["c"] == own


def test_all_that_does_not_fit_is_listed(graph):
    own = tf.compat.v1.MetaGraphDef().signature_def["s"]
    own.outputs["o"].name = "tpo:0"
    signatures = {
        "a": {"inputs": {"i": "y:0"}, "outputs": {"o": "top:0"}},
        "b": {"inputs": {}},
        "c": own,
    }
    with pytest.raises(SignatureError) as info:
        write_user_signatures(tf.compat.v1.MetaGraphDef(), signatures, graph)
    assert len(info.value.findings) == 3
    assert "nearest: top" in info.value.findings[2]


def test_a_sparse_tensor_has_three_names():
    meta_graph_def = tf.compat.v1.MetaGraphDef()
    spec = tf.SparseTensorSpec([None, 4], tf.float32)
    output = TracedOutput((), ("a:0", "b:0", "c:0"), spec)
    leaf = NamedSpec("x", spec)
    write_signature(meta_graph_def, "s", "m", {"x": leaf}, {"y": output})
    signature = meta_graph_def.signature_def["s"]
    sparse = signature.inputs["x"].coo_sparse
    assert sparse.values_tensor_name == "x/values:0"
    assert sparse.dense_shape_tensor_name == "x/shape:0"
    assert signature.outputs["y"].coo_sparse.indices_tensor_name == "a:0"


def test_a_ragged_tensor_has_its_spec_and_parts():
    meta_graph_def = tf.compat.v1.MetaGraphDef()
    spec = tf.RaggedTensorSpec([None, None, 2], tf.int32, ragged_rank=1)
    output = TracedOutput((), ("a:0", "b:0"), spec)
    write_signature(
        meta_graph_def, "s", "m", {"x": NamedSpec("x", spec)}, {"y": output}
    )
    signature = meta_graph_def.signature_def["s"]
    given = signature.inputs["x"].composite_tensor
    assert [part.name for part in given.components] == [
        "x/values:0",
        "x/row_splits_0:0",
    ]
    with tf.Graph().as_default():
        parts = [
            tf.compat.v1.placeholder(part.dtype, part.shape, name=name)
            for part, name in zip(
                tf.nest.flatten(spec, expand_composites=True), "ab", strict=True
            )
        ]
        value = tf.RaggedTensor.from_row_splits(*parts, validate=False)
        theirs = tf.compat.v1.saved_model.build_tensor_info(value).composite_tensor
    ours = signature.outputs["y"].composite_tensor
    assert ours.components == theirs.components
    theirs.type_spec.ClearField("num_flat_components")  # TensorFlow 1 has it not
    assert ours.type_spec == theirs.type_spec
