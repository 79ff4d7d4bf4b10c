"""Own layers, against the ops and formulas of old releases."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_metagraph.loading.legacy_keras.layers import (
    BilinearUpSampling2D,
    DropoutEmbedding,
    SummedActivityRegularizer,
)
from keras_metagraph.loading.legacy_keras.normalization import (
    UnbiasedBatchNormalization,
)
from keras_metagraph.loading.legacy_keras.wrappers import FoldedTimeDistributed

RANDOM = np.random.default_rng(7)


def values(*shape):
    return RANDOM.normal(size=shape).astype("float32")


def test_moving_variance_is_that_of_the_fused_op():
    x = values(2, 3, 2, 4)
    layer = UnbiasedBatchNormalization(momentum=0.9, fused=True)
    layer(x, training=True)

    fused = tf.raw_ops.FusedBatchNormV3(
        x=x,
        scale=np.ones(4, "float32"),
        offset=np.zeros(4, "float32"),
        mean=np.zeros(0, "float32"),
        variance=np.zeros(0, "float32"),
        is_training=True,
    )

    expected = 0.9 * 1.0 + 0.1 * fused.batch_variance
    np.testing.assert_allclose(layer.moving_variance, expected, rtol=1e-5)


@pytest.mark.parametrize(
    ("arguments", "factor"),
    [
        ({}, 1.0),
        ({"fused": True}, 1.0),  # which is for images only
        ({"standalone": True}, 6 / (6 - 1.001)),
    ],
)
def test_moving_variance_of_vectors(arguments, factor):
    x = values(6, 4)
    layer = UnbiasedBatchNormalization(momentum=0.9, epsilon=1e-3, **arguments)
    layer(x, training=True)
    layer(x, training=False)

    expected = 0.9 + 0.1 * x.var(axis=0) * factor
    np.testing.assert_allclose(layer.moving_variance, expected, rtol=1e-5)


def test_bilinear_corners_are_those_of_tensorflow_1():
    x = values(2, 3, 4, 2)

    found = BilinearUpSampling2D((2, 3))(x)

    expected = tf.compat.v1.image.resize_bilinear(x, (6, 12))
    np.testing.assert_allclose(found, expected, rtol=1e-6)
    first = BilinearUpSampling2D((2, 3), data_format="channels_first")
    np.testing.assert_allclose(
        first(np.moveaxis(x, -1, 1)), np.moveaxis(expected, -1, 1), rtol=1e-6
    )
    assert first.compute_output_shape((2, 2, 3, 4)) == (2, 2, 6, 12)


def test_activity_is_summed_over_the_batch():
    layer = keras.layers.Dense(
        3, activity_regularizer=SummedActivityRegularizer(l1=0.1, l2=0.2)
    )
    x = values(5, 2)

    output = np.asarray(layer(x))

    expected = 0.1 * np.abs(output).sum() + 0.2 * (output**2).sum()
    np.testing.assert_allclose(layer.losses[0], expected, rtol=1e-5)


def test_steps_are_one_batch_to_batch_normalization():
    x = values(4, 3, 2)
    layer = FoldedTimeDistributed(keras.layers.BatchNormalization(epsilon=0.0))

    found = layer(x, training=True)

    flat = x.reshape(-1, 2)
    expected = (flat - flat.mean(0)) / flat.std(0)
    np.testing.assert_allclose(found, expected.reshape(x.shape), 1e-4, 1e-4)


def test_dropped_rows_are_zero_wherever_they_are_used():
    layer = DropoutEmbedding(50, 3, rate=0.5, embeddings_initializer="ones")
    indices = np.arange(50).repeat(2).reshape(1, 100)

    trained = np.asarray(layer(indices, training=True)).reshape(50, 2, 3)

    np.testing.assert_array_equal(trained[:, 0], trained[:, 1])
    assert set(np.unique(trained)) == {0.0, 2.0}
    np.testing.assert_array_equal(layer(indices), np.ones((1, 100, 3)))
