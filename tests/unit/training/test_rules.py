"""Fused updates are what Keras's optimizers compute, step by step."""

import inspect

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_metagraph.errors import MetaGraphError
from keras_metagraph.export.op_table import known_ops
from keras_metagraph.training import optimizers as own
from keras_metagraph.training.rules import (
    register_rule,
    rule_of,
    run_rule,
    slot_suffixes,
)
from keras_metagraph.training.slots import optimizer_slots

BETAS = {"learning_rate": 0.125, "beta_1": 0.875, "beta_2": 0.96875}


def rmsprop(**settings):
    return keras.optimizers.RMSprop(0.125, rho=0.875, **settings)


# Numbers that float32 holds exactly: Keras rounds its settings to that.
OPTIMIZERS = {
    "sgd": lambda: keras.optimizers.SGD(0.125),
    "sgd_momentum": lambda: keras.optimizers.SGD(0.125, momentum=0.875),
    "sgd_nesterov": lambda: keras.optimizers.SGD(0.125, momentum=0.875, nesterov=True),
    "adam": lambda: keras.optimizers.Adam(**BETAS),
    "adam_epsilon": lambda: keras.optimizers.Adam(epsilon=0.25, **BETAS),
    "amsgrad": lambda: keras.optimizers.Adam(amsgrad=True, **BETAS),
    "adamw": lambda: keras.optimizers.AdamW(weight_decay=0.125, **BETAS),
    "adamax": lambda: keras.optimizers.Adamax(epsilon=0.25, **BETAS),
    "rmsprop": lambda: rmsprop(epsilon=0.25),
    "rmsprop_momentum": lambda: rmsprop(momentum=0.75),
    "rmsprop_centered": lambda: rmsprop(centered=True),
    "rmsprop_both": lambda: rmsprop(momentum=0.75, centered=True),
    "adagrad": lambda: keras.optimizers.Adagrad(0.125, epsilon=0.0),
    "adadelta": lambda: keras.optimizers.Adadelta(0.5, rho=0.875, epsilon=0.25),
    "ftrl": lambda: keras.optimizers.Ftrl(0.125),
    "ftrl_all": lambda: keras.optimizers.Ftrl(
        0.125,
        learning_rate_power=-0.75,
        l1_regularization_strength=0.0625,
        l2_regularization_strength=0.125,
        l2_shrinkage_regularization_strength=0.25,
        beta=0.5,
    ),
    "scheduled": lambda: keras.optimizers.Ftrl(
        keras.optimizers.schedules.ExponentialDecay(0.25, 5, 0.875), beta=0.5
    ),
}
SPARSE = {"sgd", "sgd_momentum", "sgd_nesterov"}
WITHOUT_RULE = {
    "adagrad": lambda: keras.optimizers.Adagrad(0.05),
    "nadam": keras.optimizers.Nadam,
    "lion": keras.optimizers.Lion,
    "lamb": keras.optimizers.Lamb,
    "adafactor": keras.optimizers.Adafactor,
    "a subclass": type("Adam", (keras.optimizers.Adam,), {}),
}


def fused(optimizer, variables):
    """The optimizer, with the fused op in place of its own step."""
    optimizer.build(variables)
    slots = {
        id(variable.value): {
            # What an RMSprop without momentum does not keep.
            "momentum": tf.Variable(tf.zeros_like(variable.value)),
            **found,
        }
        for variable, found in zip(
            variables, optimizer_slots(optimizer, variables), strict=True
        )
    }

    rule = rule_of(optimizer)

    def update_step(gradient, variable, learning_rate):
        of_variable = slots[id(variable)]
        run_rule(rule, optimizer, gradient, variable, learning_rate, of_variable)

    object.__setattr__(optimizer, "update_step", update_step)
    return optimizer


def train(make, gradients, *, with_op, dtype="float64"):
    """Applies gradients; returns the values of the weight and of the slots."""
    start = np.linspace(-1, 1, 15).reshape(5, 3)
    variable = keras.Variable(start, dtype=dtype, name="kernel")
    optimizer = make()
    if with_op:
        fused(optimizer, [variable])
    for gradient in gradients:
        optimizer.apply([gradient], [variable])
    (slots,) = optimizer_slots(optimizer, [variable])
    return {"weight": np.array(variable), **{k: np.array(v) for k, v in slots.items()}}


def dense_gradients(dtype="float64", count=50):
    values = np.random.default_rng(3).normal(size=(count, 5, 3))
    return [tf.constant(value, dtype) for value in values]


def sparse_gradients(dtype="float64", count=50):
    """Row 4 never, row 0 at first only, one index twice."""
    rng = np.random.default_rng(4)
    for step in range(count):
        indices = np.array([1, 2, 1] if step > 5 else [0, 3, 3])
        values = tf.constant(rng.normal(size=(3, 3)), dtype)
        yield tf.IndexedSlices(values, tf.constant(indices), tf.constant([5, 3]))


def assert_equal(found, expected):
    assert found.keys() == expected.keys()
    for key, value in expected.items():
        # In double precision only another formula differs by this much.
        np.testing.assert_allclose(found[key], value, rtol=1e-10, err_msg=key)


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_the_op_is_the_step_of_keras(name):
    expected = train(OPTIMIZERS[name], dense_gradients(), with_op=False)

    found = train(OPTIMIZERS[name], dense_gradients(), with_op=True)

    assert_equal(found, expected)


@pytest.mark.parametrize("name", sorted(SPARSE))
def test_the_op_is_the_step_of_keras_for_rows(name):
    expected = train(OPTIMIZERS[name], sparse_gradients(), with_op=False)

    found = train(OPTIMIZERS[name], sparse_gradients(), with_op=True)

    assert_equal(found, expected)


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_the_rest_of_the_step_stays_with_keras(name):
    def make():
        optimizer = OPTIMIZERS[name]()
        optimizer.weight_decay = 0.125
        optimizer.clipvalue = 0.5
        return optimizer

    expected = train(make, dense_gradients(count=5), with_op=False)

    assert_equal(train(make, dense_gradients(count=5), with_op=True), expected)


@pytest.mark.parametrize(
    "make", [keras.optimizers.Adam, lambda: keras.optimizers.Adam(amsgrad=True)]
)
def test_adam_in_float32_differs_by_how_1_minus_beta_2_is_rounded(make):
    gradients = dense_gradients("float32")
    expected = train(make, gradients, with_op=False, dtype="float32")

    found = train(make, gradients, with_op=True, dtype="float32")

    np.testing.assert_allclose(found["weight"], expected["weight"], rtol=1e-5)
    for slot in found.keys() - {"weight"}:
        np.testing.assert_allclose(found[slot], expected[slot], rtol=2e-5, atol=1e-7)


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_the_op_in_float16(name):
    gradients = [tf.cast(g, "float16") for g in dense_gradients(count=10)]
    expected = train(OPTIMIZERS[name], gradients, with_op=False, dtype="float16")

    found = train(OPTIMIZERS[name], gradients, with_op=True, dtype="float16")

    np.testing.assert_allclose(found["weight"], expected["weight"], atol=0.02)


@pytest.mark.parametrize("name", sorted(OPTIMIZERS.keys() - SPARSE))
def test_rows_are_refused_where_keras_squares_them_one_by_one(name):
    (gradient,) = sparse_gradients(count=1)
    assert not rule_of(OPTIMIZERS[name]()).takes_rows

    with pytest.raises(MetaGraphError, match="no fused update for a sparse"):
        train(OPTIMIZERS[name], [gradient], with_op=True)


def test_keras_squares_rows_one_by_one():
    """What the rules leave sparse gradients out for; see `UpdateRule.takes_rows`."""
    twice = tf.IndexedSlices(tf.ones((2, 3), "float64"), [1, 1], [5, 3])
    once = tf.IndexedSlices(2 * tf.ones((1, 3), "float64"), [1], [5, 3])

    found, expected = (
        train(OPTIMIZERS["adam"], [gradient], with_op=False)["velocity"][1]
        for gradient in (twice, once)
    )

    np.testing.assert_allclose(found, expected / 2)


@pytest.mark.parametrize("name", WITHOUT_RULE)
def test_no_rule(name):
    assert rule_of(WITHOUT_RULE[name]()) is None


@pytest.mark.parametrize(
    "optimizer",
    [
        *(make() for make in OPTIMIZERS.values()),
        *(
            getattr(own, name)()
            for name in own.__all__
            if not name.endswith(("W", "p"))
        ),
        own.TF1RMSProp(centered=True),
        own.TF1Ftrl(l2_shrinkage_regularization_strength=0.1),
        own.TFKerasSGD(momentum=0.9),
        own.TFKerasAdam(amsgrad=True),
        own.TFKerasRMSprop(momentum=0.9),
    ],
    ids=lambda optimizer: optimizer.name,
)
def test_rules_name_ops_of_tf115_and_all_their_arguments(optimizer):
    rule = rule_of(optimizer)
    if rule is None:
        return
    given = {*rule.slots, *rule.scalars, rule.rate, *rule.attributes, "var"}
    sparse = rule.sparse_op if rule.sparse_op != "GradientDescent" else None
    for op, gradient in (
        (f"ResourceApply{rule.op}", {rule.gradient}),
        (f"ResourceSparseApply{sparse}", {"grad", "indices"}),
    ):
        if sparse is None and "Sparse" in op:
            continue
        parameters = inspect.signature(getattr(tf.raw_ops, op)).parameters
        needed = {k for k, p in parameters.items() if p.default is p.empty}
        assert op in known_ops()
        assert rule.attributes.keys() <= known_ops()[op]
        assert needed <= given | gradient <= parameters.keys()
    assert rule.suffixes.keys() <= set(rule.slots.values())


def test_suffixes_are_those_of_tf1():
    average = {"average": "ExponentialMovingAverage"}
    assert slot_suffixes(keras.optimizers.Adam(amsgrad=True)) == {
        "momentum": "Adam",
        "velocity": "Adam_1",
        **average,
    }
    # No op is its step, yet the values are the same.
    assert slot_suffixes(keras.optimizers.Adagrad()) == {
        "accumulator": "Adagrad",
        **average,
    }
    assert slot_suffixes(own.BertAdamW()) == {
        "momentum": "adam_m",
        "velocity": "adam_v",
        **average,
    }
    assert slot_suffixes(keras.optimizers.Lion()) == average


def test_a_class_has_one_rule():
    with pytest.raises(MetaGraphError, match="already"):
        register_rule(keras.optimizers.SGD, rule_of)
