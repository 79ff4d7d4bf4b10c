"""Functions and ops of TensorFlow that Keras 2 stored as layers."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_metagraph.errors import MetaGraphError, UntrustedContentError
from keras_metagraph.loading.legacy_keras.tensor_functions import (
    FUNCTIONS,
    TensorFunction,
    bind,
)
from keras_metagraph.loading.legacy_keras.tensor_ops import TensorOp, read_op

X = np.arange(12, dtype="float32").reshape(3, 4)


def run(function: str, call, *tensors):
    layer, references = bind(TensorFunction(function), call, again=True)
    assert len(references) == len(tensors)
    return np.asarray(layer([tf.constant(tensor) for tensor in tensors]))


@pytest.mark.parametrize(
    ("function", "call", "expected"),
    [
        ("math.multiply", ["a", 0, 0, {"y": 2.0, "name": None}], X * 2),
        ("math.subtract", ["_CONSTANT_VALUE", -1, 1.0, {"y": ["a", 0, 0]}], 1 - X),
        ("concat", [["a", 0, 0, {"axis": -1}]], X),
        ("stack", [["a", 0, 0, {"axis": 1}]], X[:, None]),
        ("math.reduce_sum", ["a", 0, 0, {"axis": [0, 1]}], X.sum()),
        ("cast", ["a", 0, 0, {"dtype": "int32"}], X.astype("int32")),
        (
            "__operators__.getitem",
            [
                "a",
                0,
                0,
                {
                    "slice_spec": (
                        {"class_name": "__ellipsis__"},
                        {"start": None, "stop": None, "step": -1},
                    )
                },
            ],
            X[..., ::-1],
        ),
        (
            "__operators__.getitem",
            [
                "a",
                0,
                0,
                {"slice_spec": {"class_name": "__tuple__", "items": [1, 2]}},
            ],
            X[1, 2],
        ),
    ],
)
def test_call_of_the_file(function, call, expected):
    np.testing.assert_array_equal(run(function, call, X), expected)


def test_tensors_among_the_arguments():
    call = ["a", 0, 0, {"x": ["b", 0, 0], "y": ["c", 0, 0]}]

    found = run("where", call, X > 3, X, -X)

    np.testing.assert_array_equal(found, np.where(X > 3, X, -X))


@pytest.mark.parametrize(
    "function",
    ["io.read_file", "py_function", "raw_ops.ReadFile", "__class__", "io.gfile.GFile"],
)
def test_other_functions_are_refused(function):
    with pytest.raises(UntrustedContentError, match="not called"):
        TensorFunction(function)


def test_all_functions_are_public_ones_of_tensorflow():
    for name, function in FUNCTIONS.items():
        if name.startswith("__operators__"):
            continue
        found = tf
        for part in name.split("."):
            found = getattr(found, part)
        assert found is function


def test_function_is_saved_with_its_arguments(tmp_path):
    x = keras.Input((4,))
    item = bind(
        TensorFunction("__operators__.getitem"),
        ["a", 0, 0, {"slice_spec": ({"start": 1, "stop": None, "step": None}, 2)}],
        again=True,
    )[0]
    keras.Model(x, item([x])).save(tmp_path / "m.keras")

    again = keras.saving.load_model(tmp_path / "m.keras")

    np.testing.assert_array_equal(again(X), X[1:, 2])


def op(name: str, inputs: int, **attributes):
    types = {key: {"type": "DT_FLOAT"} for key in ("T",)}
    node = {"name": "n", "op": name, "input": ["i"] * inputs}
    return {**node, "attr": {**types, **attributes}}


def test_op_with_a_constant():
    layer = TensorOp(op("Sub", 2), {"0": 1.0})

    np.testing.assert_array_equal(layer(tf.constant(X)), 1 - X)


def test_op_with_a_list_of_inputs():
    layer = TensorOp(op("Pack", 2, N={"i": "2"}, axis={"i": "1"}))

    found = layer([tf.constant(X), tf.constant(-X)])

    np.testing.assert_array_equal(found, np.stack([X, -X], 1))


def test_op_with_several_outputs():
    layer = TensorOp(op("Unpack", 1, num={"i": "3"}, axis={"i": "0"}))

    for found, wanted in zip(layer(tf.constant(X)), X, strict=True):
        np.testing.assert_array_equal(found, wanted)


def test_op_is_saved(tmp_path):
    x = keras.Input((4,))
    config = {"name": "twice", "node_def": op("Mul", 2), "constants": {"1": 2.0}}
    layer = TensorOp(**read_op(config))
    assert layer.name == "tf_op_layer_twice"
    keras.Model(x, layer(x)).save(tmp_path / "m.keras")

    again = keras.saving.load_model(tmp_path / "m.keras")

    np.testing.assert_array_equal(again(X), X * 2)


def test_op_that_reads_files_is_refused():
    node = {"name": "n", "op": "ReadFile", "input": ["i"], "attr": {}}

    with pytest.raises(UntrustedContentError, match="ReadFile"):
        TensorOp(node)


@pytest.mark.parametrize(
    "node",
    [
        {"name": "n", "op": "NoSuchOp"},
        {"name": "n", "op": "Mul", "attr": {}},
        {"op": {"a": 1}},
    ],
)
def test_op_that_cannot_be_read_is_told(node):
    with pytest.raises((ValueError, MetaGraphError)):
        TensorOp(node)
