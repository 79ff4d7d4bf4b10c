"""Variables get the names that TensorFlow 1 would give them."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers

from keras_metagraph.export.names import named_variables, node_name


def names_of(model, role=None):
    return [v.name for v in named_variables(model) if role in (None, v.role)]


def test_the_name_of_the_root_model_is_no_prefix():
    model = keras.Sequential(
        [keras.Input((3,)), layers.Dense(2), layers.Dense(1)], name="root"
    )
    assert names_of(model) == [
        "dense/kernel",
        "dense/bias",
        "dense_1/kernel",
        "dense_1/bias",
    ]


def test_a_subclassed_model_is_named_like_others():
    class Net(keras.Model):
        def __init__(self):
            super().__init__()
            self.body = layers.Dense(2, name="body")

        def call(self, x):
            return self.body(x)

    model = Net()
    model(np.ones((1, 3), "float32"))
    assert names_of(model) == ["body/kernel", "body/bias"]


def test_nested_models_are_prefixes_wherever_they_were_built():
    innermost = keras.Sequential(
        [keras.Input((2,)), layers.Dense(2, name="dense")], name="innermost"
    )
    inner = keras.Sequential([keras.Input((2,)), innermost], name="inner")
    x = keras.Input((2,))
    model = keras.Model(x, layers.Dense(1, name="dense")(inner(x)))
    assert names_of(model) == [
        "inner/innermost/dense/kernel",
        "inner/innermost/dense/bias",
        "dense/kernel",
        "dense/bias",
    ]


def test_a_shared_layer_is_named_once():
    shared = layers.Dense(3, name="shared")
    x = keras.Input((3,))
    model = keras.Model(x, shared(shared(x)))
    assert names_of(model) == ["shared/kernel", "shared/bias"]


def test_equal_names_are_numbered_without_regard_to_case():
    class Twins(keras.Model):
        def __init__(self):
            super().__init__()
            self.one = layers.Dense(1, name="twin", use_bias=False)
            self.two = layers.Dense(1, name="Twin", use_bias=False)

        def call(self, x):
            return self.one(x) + self.two(x)

    model = Twins()
    model(np.ones((1, 3), "float32"))
    assert names_of(model) == ["twin/kernel", "Twin/kernel_1"]


def test_roles_indices_and_trainable_flags():
    frozen = layers.Dense(2, use_bias=False, trainable=False)
    last = layers.Dense(2, use_bias=False)
    model = keras.Sequential([keras.Input((3,)), frozen, layers.Dropout(0.5), last])
    model.compile("sgd", "mse")
    model.fit(np.ones((2, 3)), np.ones((2, 2)), verbose=0)
    found = {v.name: (v.role, v.index, v.trainable) for v in named_variables(model)}
    assert found == {
        "dense/kernel": ("weight", 0, False),
        "dense_1/kernel": ("weight", 1, True),
        "seed_generator/seed_generator_state": ("seed", 0, False),
        "global_step": ("optimizer", 0, False),
        "sgd/learning_rate": ("optimizer", 1, False),
        "metrics/loss/total": ("metric", 0, False),
        "metrics/loss/count": ("metric", 1, False),
    }


@pytest.mark.parametrize(
    ("optimizer", "slots"),
    [
        (keras.optimizers.Adam, ["Adam", "Adam_1"]),
        (keras.optimizers.AdamW, ["AdamW", "AdamW_1"]),
        (keras.optimizers.Adagrad, ["Adagrad"]),
        (keras.optimizers.Adadelta, ["Adadelta", "Adadelta_1"]),
        (keras.optimizers.Ftrl, ["Ftrl", "Ftrl_1"]),
        (keras.optimizers.RMSprop, ["RMSProp"]),
        (
            lambda: keras.optimizers.RMSprop(centered=True, momentum=0.5),
            ["RMSProp", "RMSProp_2", "RMSProp_1"],
        ),
        (
            lambda: keras.optimizers.SGD(use_ema=True),
            ["ExponentialMovingAverage"],
        ),
    ],
)
def test_slots_that_mean_the_same_have_the_names_of_tensorflow_1(optimizer, slots):
    model = keras.Sequential([keras.Input((3,)), layers.Dense(2, use_bias=False)])
    model.compile(optimizer(), "mse")
    model.optimizer.build(model.trainable_variables)
    found = [n for n in names_of(model, "optimizer") if n.startswith("dense/kernel/")]
    assert found == [f"dense/kernel/{slot}" for slot in slots]


def test_other_slots_are_named_after_their_optimizer():
    model = keras.Sequential([keras.Input((3,)), layers.Dense(2)])
    # TensorFlow 1 keeps momentum without the learning rate, Keras with it.
    model.compile(keras.optimizers.SGD(momentum=0.9, name="opt"), "mse")
    model.optimizer.build(model.trainable_variables)
    assert names_of(model, "optimizer") == [
        "global_step",
        "opt/learning_rate",
        "opt/dense/kernel/momentum",
        "opt/dense/bias/momentum",
    ]


def test_a_subclass_of_an_optimizer_makes_no_claim_about_its_slots():
    class Adam(keras.optimizers.Adam):
        pass

    model = keras.Sequential([keras.Input((3,)), layers.Dense(2, use_bias=False)])
    model.compile(Adam(name="mine"), "mse")
    model.optimizer.build(model.trainable_variables)
    assert "mine/dense/kernel/momentum" in names_of(model)


def test_the_number_of_an_optimizer_in_its_process_is_no_part_of_the_name():
    for name in ("adam", "rmsprop"):
        keras.optimizers.get(name)
    model = keras.Sequential([keras.Input((3,)), layers.Dense(2)])
    for optimizer, name in (
        (keras.optimizers.RMSprop(), "rm_sprop/learning_rate"),
        (keras.optimizers.Adam(name="adam_7"), "adam/learning_rate"),
        (keras.optimizers.Adam(name="mine_7"), "mine_7/learning_rate"),
    ):
        model.compile(optimizer, "mse")
        assert name in names_of(model)


def test_a_wrapped_optimizer_keeps_its_names_and_the_step():
    model = keras.Sequential([keras.Input((3,)), layers.Dense(2, use_bias=False)])
    inner = keras.optimizers.Adam(name="inner")
    model.compile(keras.optimizers.LossScaleOptimizer(inner, name="outer"), "mse")
    model.optimizer.build(model.trainable_variables)
    named = {v.name: v.variable for v in named_variables(model)}
    assert named["global_step"] is inner.iterations
    assert {"outer/dynamic_scale", "dense/kernel/Adam", "inner/learning_rate"} <= set(
        named
    )


def test_second_optimizers_and_found_variables_are_others():
    class Gan(keras.Model):
        def __init__(self):
            super().__init__()
            self.body = layers.Dense(2, name="body", use_bias=False)
            self.second = keras.optimizers.SGD(momentum=0.9, name="second")

        def call(self, x):
            return self.body(x)

    model = Gan()
    model(np.ones((1, 3), "float32"))
    model.second.build(model.trainable_variables)
    extra = tf.Variable(1.0, name="extra")
    found = [v for v in named_variables(model, [extra]) if v.role == "other"]
    assert [v.name for v in found] == [
        "second/iteration",
        "second/learning_rate",
        "second/body/kernel/momentum",
        "extra",
    ]
    assert [v.index for v in found] == [0, 1, 2, 3]


@pytest.mark.parametrize(
    ("text", "name"),
    [("a b/c", "a_b/c"), ("_x", "x_x"), ("/a//b/", "a/b"), ("ok-1.2/w", "ok-1.2/w")],
)
def test_any_text_becomes_a_name_that_tensorflow_takes(text, name):
    assert node_name(text) == name
