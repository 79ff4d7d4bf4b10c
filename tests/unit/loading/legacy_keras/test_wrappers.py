"""Layers around others, against the layers themselves."""

import keras
import numpy as np
import pytest

from keras_metagraph.loading.legacy_keras.arguments import renew
from keras_metagraph.loading.legacy_keras.layers import TextVectors
from keras_metagraph.loading.legacy_keras.wrappers import AddLoss, FromState

TOKENS = np.array([[3, 0, 1], [0, 2, 0]])


@pytest.mark.parametrize("kind", [keras.layers.GRU, keras.layers.LSTM])
def test_initial_state_leaves_the_mask(kind):
    tokens, start = keras.Input((3,), dtype="int32"), keras.Input((2,))
    embedding = keras.layers.Embedding(5, 4, mask_zero=True)
    states = [start] * (2 if kind is keras.layers.LSTM else 1)
    layer = kind(2, return_sequences=True)
    last = keras.layers.SimpleRNN(2)
    sequence = FromState(layer)([embedding(tokens), *states])
    model = keras.Model([tokens, start], last(sequence))
    value = np.ones((2, 2), "float32")

    mask = keras.ops.convert_to_tensor(TOKENS != 0)
    sequence = layer(embedding(TOKENS), initial_state=[value] * len(states), mask=mask)
    expected = last(sequence, mask=mask)

    np.testing.assert_allclose(model([TOKENS, value]), expected, 1e-6)


def test_added_loss_is_that_of_the_model(tmp_path):
    x = keras.Input((3,))
    output = keras.layers.Dense(1, kernel_initializer="ones")(x)
    added = AddLoss()([output, keras.ops.mean(x) * 2.0])
    model = keras.Model(x, added)
    model.compile("sgd", "mse")
    value = np.ones((4, 3), "float32")

    np.testing.assert_allclose(model(value), 3.0)
    assert model.evaluate(value, np.full((4, 1), 3.0), verbose=0) == pytest.approx(2.0)
    model.save(tmp_path / "m.keras")
    again = keras.saving.load_model(tmp_path / "m.keras")
    assert again.evaluate(value, np.full((4, 1), 3.0), verbose=0) == pytest.approx(2.0)


def test_texts_in_rows_have_the_shape_that_they_get():
    layer = TextVectors(output_mode="count", vocabulary=["a", "b"])
    texts = keras.ops.convert_to_tensor([["a b b"], ["c"]])

    assert layer.compute_output_shape((None, 1))[1:] == layer(texts).shape[1:]


@pytest.mark.parametrize(
    ("kind", "config", "expected"),
    [
        (
            "IntegerLookup",
            {"mask_value": 0, "oov_value": -1, "max_values": 9, "dtype": "int64"},
            {
                "mask_token": 0,
                "oov_token": -1,
                "max_tokens": 9,
                "output_mode": "int",
            },
        ),
        (
            "CategoryEncoding",
            {"max_tokens": 4, "output_mode": "binary"},
            {"num_tokens": 4, "output_mode": "multi_hot"},
        ),
        ("Hashing", {"num_bins": 3}, {"num_bins": 3, "output_mode": "int"}),
    ],
)
def test_arguments_of_early_preprocessing_layers(kind, config, expected):
    assert renew(kind, config, (2, 4), True) == (kind, expected)


def test_what_keras_3_computes_otherwise_is_told():
    with pytest.raises(ValueError, match="RandomCrop"):
        renew("RandomCrop", {"height": 2, "width": 2}, (2, 15), True)
