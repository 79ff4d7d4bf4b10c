import json
import os

import ml_dtypes
import numpy as np
import pytest
import tensorflow as tf

from keras_metagraph import cli
from keras_metagraph.cli.outputs import write_npz
from keras_metagraph.cli.run import Outputs
from keras_metagraph.errors import ExportError


def test_a_file_holds_what_was_given(tmp_path):
    arrays = {
        "file": np.arange(3),  # an argument of numpy.savez
        "metrics/auc/value": np.float32(0.5),
        "text": np.array([[b"a", b"\xff\x00b"]], dtype=object),
        "none": np.empty((0, 2), dtype=object),
        "half": np.array([1.5, np.inf], dtype=ml_dtypes.bfloat16),
    }
    path = tmp_path / "out.npz"

    write_npz(str(path), {k: np.asarray(v) for k, v in arrays.items()}, force=False)

    with np.load(path, allow_pickle=False) as found:
        assert set(found.files) == set(arrays)
        assert found["text"].tolist() == [[b"a", b"\xff\x00b"]]
        assert found["none"].shape == (0, 2)
        assert found["half"].tolist() == [1.5, np.inf]
        assert found["metrics/auc/value"].tolist() == 0.5
    assert os.listdir(tmp_path) == ["out.npz"]


def test_nothing_is_replaced_unasked(tmp_path):
    path = tmp_path / "out.npz"
    path.write_text("kept")

    with pytest.raises(ExportError, match="exists"):
        write_npz(str(path), {"x": np.ones(1)}, force=False)

    assert path.read_text() == "kept"
    write_npz(str(path), {"x": np.ones(1)}, force=True)
    assert np.load(path)["x"] == 1.0


def test_what_a_file_cannot_hold_is_refused(tmp_path):
    value = np.array([b"a\x00"], dtype=object)

    with pytest.raises(ExportError, match="zeros"):
        write_npz(str(tmp_path / "out.npz"), {"x": value}, force=False)

    assert os.listdir(tmp_path) == []


def test_a_missing_directory_is_an_error_of_ours(tmp_path):
    with pytest.raises(ExportError, match="failed"):
        write_npz(str(tmp_path / "no" / "out.npz"), {"x": np.ones(1)}, force=False)


def test_prints_as_json_and_in_80_columns():
    report = Outputs(
        "serving_default",
        {
            "scores": np.full((40, 50), 0.123456789, np.float32),
            "classes": np.array([[b"[bold]", b"\xff"]], dtype=object),
            "loss": np.asarray(np.float32(0.5)),
        },
        None,
    )

    printed = str(report)
    assert max(map(len, printed.splitlines())) <= 80
    assert "float32 (40, 50)" in printed
    assert "[bold]" in printed
    plain = json.loads(json.dumps(report.to_dict()))
    assert plain["signature_name"] == "serving_default"
    assert plain["outputs"]["classes"] == [["[bold]", {"b64": "/w=="}]]
    assert plain["outputs"]["loss"] == 0.5
    assert np.shape(plain["outputs"]["scores"]) == (40, 50)


def test_sparse_and_ragged_outputs_are_their_parts(tmp_path, capsys):
    v1 = tf.compat.v1
    with tf.Graph().as_default(), v1.Session() as session:
        x = v1.placeholder(tf.string, [None], "x")
        builder = v1.saved_model.Builder(str(tmp_path / "exported"))
        words = tf.strings.split(x)
        outputs = {"sparse": words.to_sparse(), "ragged": words}
        signature = v1.saved_model.build_signature_def(
            {"x": v1.saved_model.build_tensor_info(x)},
            {k: v1.saved_model.build_tensor_info(v) for k, v in outputs.items()},
            "tensorflow/serving/predict",
        )
        signatures = {"serving_default": signature}
        builder.add_meta_graph_and_variables(session, ["serve"], signatures)
        builder.save()
    path = str(tmp_path / "exported")

    code = cli.main(["run", path, "--json", "--inputs-json", '{"x": ["a b", "c"]}'])

    assert code == 0
    assert json.loads(capsys.readouterr().out)["outputs"] == {
        "ragged.values": ["a", "b", "c"],
        "ragged.row_splits": [0, 2, 3],
        "sparse.indices": [[0, 0], [0, 1], [1, 0]],
        "sparse.values": ["a", "b", "c"],
        "sparse.dense_shape": [2, 2],
    }
