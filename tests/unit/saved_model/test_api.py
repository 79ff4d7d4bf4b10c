"""What `save_saved_model` refuses; `simple_save`."""

import os

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_metagraph import errors, save_saved_model, simple_save
from oracle.saved_models import files, keys, mlp, read

X = np.random.default_rng(1).normal(size=(8, 3)).astype("float32")


class TestRefusals:
    def test_all_that_is_wrong_with_the_graphs(self, tmp_path):
        with pytest.raises(errors.ExportError) as info:
            save_saved_model(
                tmp_path / "1",
                {
                    "serve": 5,
                    ("a", "b"): mlp(),
                    ("b", "a"): mlp(),
                    "train": mlp(compiled=False),
                    "more": {"model": mlp(), "scope": "x", "tag": "y"},
                    "empty": {},
                    3: mlp(),
                },
            )
        assert len(info.value.findings) == 6
        assert os.listdir(tmp_path) == []

    @pytest.mark.parametrize(
        "arguments",
        [
            {"layout": "other"},
            {"target": "1.12"},
            {"assets": ["no"]},
            {"signatures": {"a": {"inputs": {"x": "no:0"}, "outputs": {}}}},
            {"checkpoint": "no/such"},
        ],
    )
    def test_nothing_is_written(self, arguments, tmp_path):
        with pytest.raises(errors.MetaGraphError):
            save_saved_model(tmp_path / "deep" / "1", mlp(), **arguments)
        assert os.listdir(tmp_path) == []

    def test_a_model_that_cannot_be_trained(self, tmp_path):
        model = mlp(compiled=False)
        model.compile("adam")
        with (
            pytest.warns(UserWarning, match="train graph is left out"),
            pytest.raises(errors.ExportError, match="train"),
        ):
            save_saved_model(tmp_path / "1", {"train": model})

    def test_an_existing_directory_is_refused_before_anything_is_done(self, tmp_path):
        (tmp_path / "1").mkdir()
        with pytest.raises(errors.ExportError, match="is there already"):
            save_saved_model(tmp_path / "1", mlp())
        assert files(tmp_path) == {}


class TestSimpleSave:
    def test_the_models_own_inputs_and_outputs(self, tmp_path):
        model = mlp()
        path = simple_save(model, tmp_path / "1")
        serve = tf.saved_model.load(path).signatures["serving_default"]
        (output,) = serve(x=tf.constant(X)).values()
        np.testing.assert_allclose(output, model(X), rtol=1e-5, atol=1e-6)
        assert not any(n.device for n in read(path)["serve",].graph_def.node)

    @pytest.mark.parametrize("named", [False, True])
    def test_tensors(self, named, tmp_path):
        model = mlp()
        hidden = model.layers[0]
        inputs, outputs = {"rows": model.inputs[0]}, {"hidden": hidden.output}
        if named:
            inputs, outputs = {"rows": "x:0"}, {"hidden": "dense/Relu:0"}
        path = simple_save(model, tmp_path / "1", inputs, outputs)
        serve = tf.saved_model.load(path).signatures["serving_default"]
        output = serve(rows=tf.constant(X))["hidden"]
        np.testing.assert_allclose(output, hidden(X), rtol=1e-5, atol=1e-6)
        assert keys(path) == {
            "dense/kernel",
            "dense/bias",
            "dense_1/kernel",
            "dense_1/bias",
        }

    def test_what_is_no_signature(self, tmp_path):
        model = mlp()
        with pytest.raises(errors.ExportError, match="inputs and outputs"):
            simple_save(model, tmp_path / "1", inputs={"x": model.inputs[0]})
        other = keras.Input((3,))
        with pytest.raises(errors.ExportError, match="No model leads"):
            simple_save(model, tmp_path / "1", {"x": other}, {"y": model.outputs[0]})
        with pytest.raises(errors.SignatureError, match="dense/Relo"):
            simple_save(model, tmp_path / "1", {"x": "x:0"}, {"y": "dense/Relo:0"})
