"""Predict-only exports, read by tf2onnx and by OpenVINO."""

import dataclasses
import json
import subprocess
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers

import keras_metagraph as kmg
from oracle import consumers, environment, tf115

SCRIPTS = tf115.SCRIPTS / "consumers"
BATCH = 5


def _mlp() -> keras.Model:
    return keras.Sequential(
        [
            keras.Input((8,), name="x"),
            layers.Dense(16),
            layers.BatchNormalization(),
            layers.Activation("relu"),
            layers.Dropout(0.3),
            layers.Dense(3, activation="softmax"),
        ]
    )


def _conv_net() -> keras.Model:
    return keras.Sequential(
        [
            keras.Input((12, 12, 3), name="image"),
            layers.Conv2D(8, 3, padding="same", activation="relu"),
            layers.BatchNormalization(),
            layers.MaxPooling2D(),
            layers.SeparableConv2D(8, 3, strides=2, padding="same", activation="elu"),
            layers.GlobalAveragePooling2D(),
            layers.Dense(4),
        ]
    )


def _two_inputs_two_outputs() -> keras.Model:
    left, right = keras.Input((6,), name="left"), keras.Input((4,), name="right")
    shared = layers.Dense(5, activation="tanh")
    both = layers.Concatenate()([shared(left[:, :4]), shared(right), left])
    return keras.Model(
        {"left": left, "right": right},
        {
            "score": layers.Dense(1, name="score")(both),
            "class": layers.Dense(3, activation="softmax", name="class")(both),
        },
    )


def _lstm() -> keras.Model:
    return keras.Sequential(
        [keras.Input((7, 5), name="x"), layers.LSTM(6), layers.Dense(2)]
    )


def _bidirectional_gru() -> keras.Model:
    return keras.Sequential(
        [
            keras.Input((7, 5), name="x"),
            layers.Bidirectional(layers.GRU(4, return_sequences=True)),
            layers.Dense(2),
        ]
    )


def _transformer(activation: str = "relu") -> keras.Model:
    tokens = keras.Input((7,), dtype="int32", name="tokens")
    x = layers.Embedding(20, 8)(tokens)
    x = layers.LayerNormalization()(x + layers.MultiHeadAttention(2, 4)(x, x))
    hidden = layers.Dense(8)(layers.Dense(16, activation=activation)(x))
    x = layers.LayerNormalization()(x + layers.Dropout(0.1)(hidden))
    pooled = layers.GlobalAveragePooling1D()(x)
    return keras.Model(tokens, layers.Dense(3, activation="softmax")(pooled))


MODELS: dict[str, Callable[[], keras.Model]] = {
    "mlp": _mlp,
    "conv_net": _conv_net,
    "two_inputs_two_outputs": _two_inputs_two_outputs,
    "lstm": _lstm,
    "bidirectional_gru": _bidirectional_gru,
    "transformer": _transformer,
}


@pytest.fixture(scope="module")
def tf2onnx() -> Path:
    return _interpreter(consumers.TF2ONNX)


@pytest.fixture(scope="module")
def openvino() -> Path:
    return _interpreter(consumers.OPENVINO)


@pytest.mark.parametrize("name", MODELS)
def test_tf2onnx_reads_a_predict_only_export(name, tf2onnx, tmp_path):
    exported = _Exported(MODELS[name](), tmp_path)

    exported.check_tf2onnx(tf2onnx)


@pytest.mark.parametrize("name", MODELS)
def test_openvino_reads_a_predict_only_export(name, openvino, tmp_path):
    exported = _Exported(MODELS[name](), tmp_path)

    exported.check_openvino(openvino)


def test_tf2onnx_takes_the_predictions_out_of_a_full_export(tf2onnx, tmp_path):
    model = _mlp()
    model.compile("adam", "sparse_categorical_crossentropy")
    model.fit(*_training_data(), verbose=0)
    exported = _Exported(model, tmp_path, graphs=("predict", "eval", "train"))

    exported.check_tf2onnx(tf2onnx)


def test_openvino_takes_the_predictions_out_of_a_full_export(openvino, tmp_path):
    model = _mlp()
    model.compile("adam", "sparse_categorical_crossentropy")
    model.fit(*_training_data(), verbose=0)
    exported = _Exported(model, tmp_path, graphs=("predict", "eval", "train"))

    exported.check_openvino(openvino)


def test_openvino_reads_a_transformer_with_gelu(openvino, tmp_path):
    exported = _Exported(_transformer("gelu"), tmp_path)

    exported.check_openvino(openvino)


def test_tf2onnx_lacks_erfc(tf2onnx, tmp_path):
    """It copies ops that it does not know, here of `gelu`, and ONNX refuses them."""
    exported = _Exported(_transformer("gelu"), tmp_path)

    with pytest.raises(tf115.OracleError, match="No Op registered for Erfc"):
        exported.check_tf2onnx(tf2onnx)


def test_wrong_interpreter_is_named(monkeypatch):
    monkeypatch.setenv("KERAS_METAGRAPH_TF2ONNX", "/nowhere/python")

    with pytest.raises(environment.OracleUnavailableError, match="TF2ONNX=/nowhere"):
        consumers.find_or_make(consumers.TF2ONNX)


def test_an_environment_that_cannot_be_made_says_why(monkeypatch, tmp_path):
    monkeypatch.delenv("KERAS_METAGRAPH_OPENVINO", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    impossible = dataclasses.replace(consumers.OPENVINO, requirements=("/nowhere",))

    with pytest.raises(environment.OracleUnavailableError, match="/nowhere failed"):
        consumers.find_or_make(impossible)


def test_a_python_that_is_not_there_is_asked_for(monkeypatch, tmp_path):
    monkeypatch.delenv("KERAS_METAGRAPH_OPENVINO", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    too_old = dataclasses.replace(consumers.OPENVINO, pythons=(1,))

    with pytest.raises(environment.OracleUnavailableError, match=r"needs Python 3\.1,"):
        consumers.find_or_make(too_old)


class _Exported:
    """A model with values that tell its parts apart, its export and its predictions."""

    def __init__(
        self, model: keras.Model, folder: Path, graphs: tuple[str, ...] = ("predict",)
    ) -> None:
        _spread(model)
        self.folder = folder
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            self.prefix = kmg.save_meta_graph(model, folder / "model", graphs=graphs)
        self.inputs = _inputs(model)
        one = next(iter(self.inputs.values()))
        found = model.predict(self.inputs if len(self.inputs) > 1 else one, verbose=0)
        signature = _signature(self.prefix)
        self.tensors = {
            key: info.name
            for infos in (signature.inputs, signature.outputs)
            for key, info in infos.items()
        }
        self.expected = (
            found if isinstance(found, dict) else {next(iter(signature.outputs)): found}
        )
        assert set(self.tensors) == set(self.inputs) | set(self.expected)

    def check_tf2onnx(self, python: Path) -> None:
        """Compares the predictions of onnxruntime, where tensors keep their names."""
        found = self._run(
            python,
            "onnx_predict",
            {self.tensors[key]: array for key, array in self.inputs.items()},
            [self.tensors[key] for key in self.expected],
        )
        self._compare({key: found[self.tensors[key]] for key in self.expected})

    def check_openvino(self, python: Path) -> None:
        """Compares the predictions of OpenVINO, which goes by the signature."""
        outputs = list(self.expected)
        self._compare(self._run(python, "openvino_predict", self.inputs, outputs))

    def _run(
        self, python: Path, script: str, arrays: tf115.Arrays, outputs: list[str]
    ) -> tf115.Arrays:
        args = {"prefix": str(self.prefix), "outputs": outputs}
        (self.folder / "args.json").write_text(json.dumps(args))
        tf115._write_arrays(self.folder / "in", arrays)
        runner, script_file = tf115.SCRIPTS / "_runner.py", SCRIPTS / f"{script}.py"
        done = subprocess.run(
            [python, runner, script_file, self.folder],
            env=environment.clean_environment(),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )
        if done.returncode:
            raise tf115.OracleError(done.stderr[-8000:])
        return tf115._read_arrays(self.folder / "out")

    def _compare(self, found: tf115.Arrays) -> None:
        for key, expected in self.expected.items():
            assert np.ptp(expected) > 0.01
            np.testing.assert_allclose(found[key], expected, atol=1e-5, rtol=1e-5)


def _interpreter(consumer: consumers.Consumer) -> Path:
    try:
        return consumers.find_or_make(consumer)
    except environment.OracleUnavailableError as error:
        if consumers.required():
            pytest.fail(str(error), pytrace=False)
        pytest.skip(str(error))


def _spread(model: keras.Model) -> None:
    """Moves every weight, since ones and zeros hide mistakes."""
    random = np.random.default_rng(11)
    for variable in model.weights:
        if variable.dtype == "float32":
            noise = random.uniform(0.1, 0.6, variable.shape)
            variable.assign(variable + noise.astype("float32"))


def _inputs(model: keras.Model) -> dict[str, np.ndarray]:
    random = np.random.default_rng(5)
    arrays = {}
    for tensor in model.inputs:
        shape = (BATCH, *tensor.shape[1:])
        if tensor.dtype == "int32":
            arrays[tensor.name] = random.integers(0, 20, shape, "int32")
        else:
            arrays[tensor.name] = random.standard_normal(shape, "float32")
    return arrays


def _training_data() -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(3)
    return random.standard_normal((32, 8), "float32"), random.integers(0, 3, 32)


def _signature(prefix: Any) -> Any:
    meta_graph_def = tf.compat.v1.MetaGraphDef()
    meta_graph_def.ParseFromString(Path(f"{prefix}.meta").read_bytes())
    return meta_graph_def.signature_def["serving_default"]
