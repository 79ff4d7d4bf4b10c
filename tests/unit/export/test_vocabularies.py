import json

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_metagraph.export.vocabularies import (
    restore_vocabularies,
    sublayers,
    vocabularies,
)

LAYERS = keras.layers
COLORS = [["red", "blue"], ["red", "green"]]
UNKNOWN = [["red", "none"], ["", "blue"]]


def model_of(layer, data):
    inputs = keras.Input(data.shape[1:], dtype=data.dtype)
    return keras.Model(inputs, layer(inputs))


def rebuilt(model):
    return keras.saving.deserialize_keras_object(
        json.loads(json.dumps(keras.saving.serialize_keras_object(model)))
    )


@pytest.mark.parametrize(
    ("layer", "learned", "asked"),
    [
        (LAYERS.StringLookup(), COLORS, UNKNOWN),
        (LAYERS.StringLookup(mask_token="", num_oov_indices=2), COLORS, UNKNOWN),
        (LAYERS.StringLookup(output_mode="multi_hot"), COLORS, UNKNOWN),
        (LAYERS.StringLookup(output_mode="tf_idf"), COLORS, UNKNOWN),
        (LAYERS.IntegerLookup(), [[5, 5], [7, 5]], [[5, 7], [1, 5]]),
        (LAYERS.TextVectorization(), ["a b", "b c"], [["a b"], ["z c"]]),
        (LAYERS.TextVectorization(output_mode="tf_idf"), ["a b", "b"], [["a"], ["z"]]),
    ],
)
def test_learned_vocabularies_come_back(layer, learned, asked):
    layer.adapt(tf.constant(learned))
    asked = tf.constant(asked)
    model = model_of(layer, asked)
    recorded = json.loads(json.dumps(vocabularies(model)))
    other = rebuilt(model)
    restore_vocabularies(other, recorded)
    np.testing.assert_array_equal(np.asarray(other(asked)), np.asarray(model(asked)))
    assert vocabularies(other) == recorded


def test_given_vocabularies_are_in_the_config():
    layer = LAYERS.StringLookup(vocabulary=["x", "y"])
    model = model_of(layer, tf.constant([["x"]]))
    assert vocabularies(model) == [None]
    restore_vocabularies(rebuilt(model), [])


def test_file_without_the_vocabulary_is_refused():
    layer = LAYERS.StringLookup(name="colors")
    layer.adapt(tf.constant(COLORS))
    model = model_of(layer, tf.constant(UNKNOWN))
    with pytest.raises(ValueError, match="colors"):
        restore_vocabularies(rebuilt(model), [])


def test_other_number_of_lookups_is_refused():
    layer = LAYERS.StringLookup(vocabulary=["x"])
    with pytest.raises(ValueError, match=r"shorter|longer"):
        restore_vocabularies(model_of(layer, tf.constant([["x"]])), [None, None])


def test_layers_are_found_in_lists_dicts_and_layers_once_each():
    class Inner(LAYERS.Layer):
        def __init__(self):
            super().__init__()
            self.deep = LAYERS.Dense(1, name="deep")

    class Outer(keras.Model):
        def __init__(self):
            super().__init__()
            self.listed = [LAYERS.Dense(1, name="one"), (LAYERS.Dense(1, name="two"),)]
            self.named = {"key": Inner()}
            self.again = self.listed[0]

    names = [layer.name for layer in sublayers(Outer())]
    assert sorted(names) == ["deep", "inner", "one", "two"]
    assert names.index("inner") < names.index("deep")
