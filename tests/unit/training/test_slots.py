"""Slots are found for the weight that they belong to."""

import keras
import numpy as np
import pytest

from keras_metagraph.training.optimizers import OptimizerGroup, TF1Adagrad, TF1Momentum
from keras_metagraph.training.slots import optimizer_slots


def variable(name, shape=(2,)):
    return keras.Variable(np.zeros(shape, "float32"), name=name)


@pytest.mark.parametrize(
    ("optimizer", "expected"),
    [
        (keras.optimizers.SGD(), []),
        (keras.optimizers.SGD(momentum=0.9), ["momentum"]),
        (keras.optimizers.Adam(), ["momentum", "velocity"]),
        (keras.optimizers.Adam(use_ema=True), ["average", "momentum", "velocity"]),
        (
            keras.optimizers.RMSprop(momentum=0.9, centered=True),
            ["velocity", "momentum", "average_gradient"],
        ),
        (
            keras.optimizers.Adadelta(gradient_accumulation_steps=2),
            ["gradient_accumulator", "accumulated_grad", "accumulated_delta_var"],
        ),
        (TF1Momentum(), ["momentum"]),
    ],
)
def test_every_weight_has_its_slots(optimizer, expected):
    weights = [variable("kernel", (3,)), variable("bias", (4,))]
    optimizer.build(weights)

    found = optimizer_slots(optimizer, weights)

    assert [list(slots) for slots in found] == [expected, expected]
    for weight, slots in zip(weights, found, strict=True):
        assert all(slot.shape == weight.shape for slot in slots.values())


def test_weights_that_are_not_trained_have_none():
    weights = [variable("kernel"), variable("mean"), variable("bias")]
    optimizer = keras.optimizers.SGD(momentum=0.9)
    optimizer.build([weights[0], weights[2]])

    found = optimizer_slots(optimizer, weights)

    assert [list(slots) for slots in found] == [["momentum"], [], ["momentum"]]


def test_weights_of_one_path_are_told_apart_by_their_order():
    weights = [variable("w", (2,)), variable("w", (3,))]
    optimizer = keras.optimizers.Adam()
    optimizer.build(weights)

    found = optimizer_slots(optimizer, weights)

    assert [slots["velocity"].shape for slots in found] == [(2,), (3,)]


def test_a_path_may_begin_like_another():
    weights = [variable("w", (2,)), variable("w_momentum", (3,))]
    optimizer = keras.optimizers.SGD(momentum=0.9)
    optimizer.build(weights)

    found = optimizer_slots(optimizer, weights)

    assert [slots["momentum"].shape for slots in found] == [(2,), (3,)]


def test_wrapped_optimizers_count():
    weights = [variable("wide"), variable("deep")]
    group = OptimizerGroup([TF1Momentum(), TF1Adagrad()], {"wide": 0, "deep": 1})
    scaled = keras.optimizers.LossScaleOptimizer(group)
    scaled.build(weights)

    found = optimizer_slots(scaled, weights)

    assert [list(slots) for slots in found] == [["momentum"], ["accumulator"]]
