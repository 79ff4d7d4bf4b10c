import copy
import json

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_metagraph.errors import FormatError, UntrustedContentError
from keras_metagraph.training.schedules import (
    GraphSchedule,
    LinearCosineDecay,
    LinearWarmup,
    NaturalExpDecay,
    ShiftedSchedule,
)

schedules = keras.optimizers.schedules


def formula(build, *, step="step"):
    with tf.Graph().as_default() as graph:
        placeholder = tf.compat.v1.placeholder(tf.float32, [], step)
        tf.identity(build(placeholder), name="rate")
    return graph.as_graph_def().SerializeToString()


def inverse_root():
    return GraphSchedule(formula(lambda s: tf.math.rsqrt(s + 1.0)), "step", "rate:0")


SCHEDULES = {
    "natural": lambda: NaturalExpDecay(0.1, 10, 0.5),
    "natural_stairs": lambda: NaturalExpDecay(0.1, 10, 0.5, staircase=True),
    "linear_cosine": lambda: LinearCosineDecay(0.1, 20, 2.0, 0.1, 0.01),
    "warmup": lambda: LinearWarmup(schedules.PolynomialDecay(0.1, 100, 0.0), 10, 0.1),
    "warmup_to_constant": lambda: LinearWarmup(0.1, 10, 0.1),
    "shifted": lambda: ShiftedSchedule(schedules.ExponentialDecay(0.1, 5, 0.9), 7),
    "graph": inverse_root,
}


@pytest.mark.parametrize("name", SCHEDULES)
def test_survives_serialization(name):
    schedule = SCHEDULES[name]()
    optimizer = keras.optimizers.SGD(schedule)

    text = json.dumps(keras.optimizers.serialize(optimizer))
    again = keras.optimizers.deserialize(json.loads(text))

    for step in (0, 3, 10, 19, 20, 1000):
        again.iterations.assign(step)
        rate = float(schedule(step))
        assert float(again.learning_rate) == pytest.approx(rate, rel=1e-6)


@pytest.mark.parametrize("name", SCHEDULES)
def test_works_in_fit_and_in_a_function(name):
    schedule = SCHEDULES[name]()
    model = keras.Sequential([keras.Input([1]), keras.layers.Dense(1, use_bias=False)])
    model.compile(keras.optimizers.SGD(schedule), lambda y, p: keras.ops.mean(p))
    before = model.get_weights()[0][0, 0]

    model.fit(np.ones([4, 1]), np.zeros([4, 1]), 1, epochs=3, verbose=0)

    rates = [float(schedule(step)) for step in range(12)]
    assert before - model.get_weights()[0][0, 0] == pytest.approx(sum(rates), rel=1e-5)
    traced = tf.function(schedule)(tf.constant(5))
    assert float(traced) == pytest.approx(float(schedule(5)), rel=1e-6)


def test_a_formula_can_be_copied():
    schedule = inverse_root()
    schedule(3)

    assert float(copy.deepcopy(schedule)(3)) == 0.5


def test_the_shift_is_added_to_the_step():
    inner = schedules.ExponentialDecay(0.1, 5, 0.9)

    assert float(ShiftedSchedule(inner, 7)(3)) == float(inner(10))


def test_refuses_a_formula_that_reads_files():
    def build(step):
        length = tf.strings.length(tf.io.read_file("/etc/passwd"))
        return step * tf.cast(length, tf.float32)

    with pytest.raises(UntrustedContentError, match="ReadFile"):
        GraphSchedule(formula(build), "step", "rate:0")


@pytest.mark.parametrize("damage", [lambda t: t[:-9], lambda t: "no base64 é"])
def test_says_that_a_configuration_is_damaged(damage):
    config = inverse_root().get_config()

    with pytest.raises(FormatError):
        GraphSchedule.from_config(config | {"graph_def": damage(config["graph_def"])})
