"""Weights of old Keras in models that were built by hand, and their layouts."""

import keras
import numpy as np
import pytest

from keras_metagraph.errors import MissingVariableError, ShapeMismatchError
from keras_metagraph.formats.keras_h5 import KerasH5, read_keras_h5
from keras_metagraph.loading.legacy_keras.layouts import convert
from keras_metagraph.loading.legacy_keras.weights import assign
from oracle import references

FOLDER = references.FIXTURES / "legacy_keras"
RANDOM = np.random.default_rng(7)


def values(*shape):
    return RANDOM.normal(size=shape).astype("float32")


def content(weights, version="2.2.4", backend="tensorflow"):
    return KerasH5("w.h5", version, backend, None, None, weights, None)


def built(layer, *shape):
    layer.build(shape)
    return layer


def to(layer, arrays, release, *, first=False, backend="tensorflow"):
    return convert(layer, arrays, release, backend, channels_first=first)


def test_gates_that_keras_1_stored_apart():
    layer = built(keras.layers.LSTM(2), None, 5, 3)
    i, c, f, o = ([values(3, 2), values(2, 2), values(2)] for _ in range(4))

    kernel, recurrent, bias = to(layer, [*i, *c, *f, *o], (1, 2, 2))

    for joined, place in ((kernel, 0), (recurrent, 1), (bias, 2)):
        expected = np.concatenate([gate[place] for gate in (i, f, c, o)], axis=-1)
        np.testing.assert_array_equal(joined, expected)


def cudnn(kernels, gates, source):
    """How Keras 2.3.1 turns a kernel of `LSTM` into one of `CuDNNLSTM`."""
    parts = np.hsplit(kernels, gates)
    if source == "input":
        return np.hstack([part.T.reshape(part.shape, order="C") for part in parts])
    return np.hstack([part.T for part in parts])


@pytest.mark.parametrize(
    ("layer", "gates", "bias"),
    [
        (keras.layers.LSTM(2), 4, lambda stored: stored[:8] + stored[8:]),
        (keras.layers.GRU(2, reset_after=True), 3, lambda b: b.reshape(2, -1)),
    ],
)
def test_cudnn_layers(layer, gates, bias):
    layer = built(layer, None, 5, 3)
    kernel, recurrent = values(3, 2 * gates), values(2, 2 * gates)
    stored = [
        cudnn(kernel, gates, "input"),
        cudnn(recurrent, gates, "recurrent"),
        values(4 * gates),
    ]

    found = to(layer, stored, (2, 2, 4))

    np.testing.assert_array_equal(found[0], kernel)
    np.testing.assert_array_equal(found[1], recurrent)
    np.testing.assert_allclose(found[2], bias(stored[2]))


def test_theano_kernels_are_flipped_in_keras_2():
    layer = built(keras.layers.Conv2D(3, (2, 4)), None, 8, 8, 5)
    kernel = values(2, 4, 5, 3)

    found, _ = to(layer, [kernel, values(3)], (2, 2, 4), backend="theano")

    np.testing.assert_array_equal(found, kernel[::-1, ::-1])


def test_theano_order_of_axes_in_keras_1():
    layer = built(keras.layers.Conv2D(3, (2, 4)), None, 8, 8, 5)
    kernel = values(3, 5, 2, 4)

    found, _ = to(layer, [kernel, values(3)], (1, 2, 2), first=True)

    np.testing.assert_array_equal(found, kernel.transpose(2, 3, 1, 0))


def dense_model():
    return keras.Sequential(
        [
            keras.Input((4,)),
            keras.layers.Dense(3, name="first"),
            keras.layers.BatchNormalization(name="norm"),
            keras.layers.Dense(2, name="last"),
        ]
    )


def dense_weights(first="first", last="last"):
    return {
        first: [("kernel:0", values(4, 3)), ("bias:0", values(3))],
        "flatten": [],
        "norm": [(f"{name}:0", values(3)) for name in ("g", "b", "m", "v")],
        last: [("kernel:0", values(3, 2)), ("bias:0", values(2))],
    }


@pytest.mark.parametrize("names", [("first", "last"), ("dense_7", "dense_8")])
def test_assign_by_names_or_else_by_order(names):
    weights, model = dense_weights(*names), dense_model()

    assert assign(model, content(weights)) == []

    stored = [value for group in weights.values() for _, value in group]
    for variable, value in zip(model.weights, stored, strict=True):
        np.testing.assert_array_equal(variable, value)


def test_assign_by_name_tells_what_it_leaves():
    weights, model = dense_weights("first", "other"), dense_model()
    before = model.get_layer("last").get_weights()

    assert assign(model, content(weights), by_name=True) == ["last"]

    for old, new in zip(before, model.get_layer("last").get_weights(), strict=True):
        np.testing.assert_array_equal(old, new)


def test_other_layers_are_told_of():
    weights = dense_weights()
    del weights["norm"]

    with pytest.raises(MissingVariableError, match="norm: not in the file"):
        assign(dense_model(), content(weights))


def test_all_misfits_are_told_and_nothing_is_assigned():
    weights, model = dense_weights(), dense_model()
    weights["first"][0] = ("kernel:0", values(5, 3))
    weights["last"][1] = ("bias:0", values(9))
    before = model.get_weights()

    with pytest.raises(ShapeMismatchError) as caught:
        assign(model, content(weights))

    assert len(caught.value.findings) == 2
    for old, new in zip(before, model.get_weights(), strict=True):
        np.testing.assert_array_equal(old, new)


def test_trained_weights_of_a_model_inside_come_before_the_others():
    inner = keras.Sequential(
        [
            keras.Input((4,)),
            keras.layers.BatchNormalization(),
            keras.layers.Dense(2),
        ]
    )
    model = keras.Sequential([keras.Input((4,)), inner])
    names = ("gamma", "beta", "kernel", "bias", "mean", "variance")
    shapes = ((4,), (4,), (4, 2), (2,), (4,), (4,))
    stored = {name: values(*shape) for name, shape in zip(names, shapes, strict=True)}

    assign(model, content({inner.name: list(stored.items())}))

    order = ("gamma", "beta", "mean", "variance", "kernel", "bias")
    for variable, name in zip(model.weights, order, strict=True):
        np.testing.assert_array_equal(variable, stored[name])


def test_file_of_keras_1_into_layers_of_keras_3():
    path = FOLDER / "keras-1.2.2" / "keras1_rnn.h5"
    loaded = read_keras_h5(path)
    layers = [
        keras.layers.LSTM(5, return_sequences=True),
        keras.layers.GRU(4, return_sequences=True, reset_after=False),
    ]
    model = keras.Sequential([keras.Input((7, 6)), *layers])
    names = [n for n in loaded.weights if n.startswith(("lstm_1", "gru_1"))]
    part = content({name: loaded.weights[name] for name in names}, "1.2.2")

    assign(model, part)

    stored = dict(loaded.weights["lstm_1"])
    np.testing.assert_array_equal(layers[0].cell.kernel[:, :5], stored["lstm_1_W_i:0"])


@pytest.mark.parametrize("arrays", [3, 12])
def test_gates_of_keras_1_in_a_model_that_was_built_by_hand(arrays):
    layer = keras.layers.LSTM(2, name="lstm_1")
    model = keras.Sequential([keras.Input((5, 3)), layer])
    shapes = [(3, 2), (2, 2), (2,)] * 4 if arrays == 12 else [(3, 8), (2, 8), (8,)]
    stored = [(f"{i}:0", values(*shape)) for i, shape in enumerate(shapes)]

    assign(model, content({"lstm_1": stored}, "1.2.2"))

    np.testing.assert_array_equal(layer.cell.kernel[:, :2], stored[0][1][:, :2])
