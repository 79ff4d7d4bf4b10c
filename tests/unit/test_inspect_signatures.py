import json
import os

import pytest
import tensorflow as tf

from keras_metagraph.errors import FormatError, SignatureError
from keras_metagraph.inspect_signatures import inspect_signatures
from oracle.references import FIXTURES

v1 = tf.compat.v1
MULTI = FIXTURES / "zoo" / "savedmodel_builder_multi" / "saved_model"


def write(path, build, method="tensorflow/serving/predict"):
    """A SavedModel with one signature of what `build()` gives: inputs, outputs."""
    with tf.Graph().as_default(), v1.Session() as session:
        sides = [
            {
                key: v1.saved_model.build_tensor_info(value)
                for key, value in side.items()
            }
            for side in build()
        ]
        signature = v1.saved_model.build_signature_def(*sides, method)
        builder = v1.saved_model.Builder(str(path))
        builder.add_meta_graph_and_variables(session, ["serve"], {"own": signature})
        builder.save()
    return path


def test_lists_all_graphs():
    report = inspect_signatures(MULTI)

    assert report.kind == "saved_model"
    assert [(g.tags, [s.name for s in g.signatures]) for g in report.graphs] == [
        (("train",), ["train"]),
        (("serve",), ["classify", "regress", "serving_default"]),
        (("serve", "gpu"), ["classify", "regress", "serving_default"]),
    ]
    classify = report.graphs[1].signatures[0]
    assert classify.method == "tensorflow/serving/classify"
    assert str(classify.outputs["scores"]) == "float32 (None, 2)"
    assert not report.refused
    assert json.loads(json.dumps(report.to_dict()))["graphs"][1]["tags"] == ["serve"]


def test_one_graph_by_its_tags():
    (graph,) = inspect_signatures(MULTI, tags=["gpu", "serve"]).graphs

    assert graph.tags == ("serve", "gpu")
    with pytest.raises(SignatureError, match="nix"):
        inspect_signatures(MULTI, tags="nix")


def test_sparse_and_ragged_tensors_are_their_parts(tmp_path):
    def build():
        x = v1.sparse_placeholder(tf.float32, [None, 5], "x")
        words = v1.ragged.placeholder(tf.string, 1, name="words")
        return {"x": x, "words": words}, {"y": tf.sparse.to_dense(x)}

    (graph,) = inspect_signatures(write(tmp_path / "out", build)).graphs
    inputs = graph.signatures[0].inputs

    indices, values, _ = inputs["x"].tensor.split()
    assert (indices, values) == ("x/indices:0", "x/values:0")
    assert str(inputs["x"]) == "float32 (None, 5)"
    assert str(inputs["words"]) == "string of unknown shape"
    assert len(inputs["words"].tensor.split()) == 2


def test_says_what_a_server_refuses(tmp_path):
    def build():
        x = v1.placeholder(tf.float32, [None], "x")
        return {"x": x}, {"y": tf.identity(x)}

    report = inspect_signatures(
        write(tmp_path / "out", build, "tensorflow/serving/regress")
    )

    assert report.refused
    assert "! TensorFlow Serving: own: " in str(report)
    assert max(map(len, str(report).splitlines())) <= 80


def test_what_tensorflow_reserves_is_left_out(tmp_path):
    module = tf.Module()
    module.f = tf.function(
        lambda x: x + 1.0, input_signature=[tf.TensorSpec([None], tf.float32, "x")]
    )
    tf.saved_model.save(module, tmp_path / "out", signatures=module.f)

    (graph,) = inspect_signatures(tmp_path / "out").graphs

    assert [signature.name for signature in graph.signatures] == ["serving_default"]
    # The graph itself is a call of a function, of which nothing is known.
    assert str(graph.signatures[0].outputs["output_0"]) == "float32 (None,)"


def test_a_graph_without_signatures_says_so():
    report = inspect_signatures(FIXTURES / "zoo" / "mlp_adam")

    assert "has no signatures" in str(report)
    assert not report.refused


@pytest.mark.parametrize("name", ["nothing", "m.keras"])
def test_what_is_no_graph_is_refused(tmp_path, name):
    (tmp_path / "m.keras").touch()
    before = os.listdir(tmp_path)

    with pytest.raises(FormatError, match=name):
        inspect_signatures(tmp_path / name)

    assert os.listdir(tmp_path) == before
