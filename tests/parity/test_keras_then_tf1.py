"""Keras trains 50 steps, real TensorFlow 1.15 goes on for 50: as Keras for 100."""

import keras
import numpy as np
import pytest
from keras import layers, optimizers

from keras_metagraph.saving import save_meta_graph, variable_values
from keras_metagraph.training import optimizers as tf1
from parity.keras_models import is_unused

STEPS = 50
BATCH = 16
WORDS = 40

schedules = optimizers.schedules

SCHEDULES = {
    "exponential": lambda: schedules.ExponentialDecay(0.05, 20, 0.9),
    "staircase": lambda: schedules.ExponentialDecay(0.05, 20, 0.5, staircase=True),
    "inverse_time": lambda: schedules.InverseTimeDecay(0.05, 10, 0.5),
    "polynomial": lambda: schedules.PolynomialDecay(0.05, 80, 0.001, power=2.0),
    "polynomial_cycle": lambda: schedules.PolynomialDecay(0.05, 30, 0.001, cycle=True),
    "piecewise": lambda: schedules.PiecewiseConstantDecay([30, 70], [0.1, 0.05, 0.01]),
    "cosine": lambda: schedules.CosineDecay(
        0.001, 80, 0.1, warmup_target=0.05, warmup_steps=20
    ),
    "cosine_restarts": lambda: schedules.CosineDecayRestarts(0.05, 15),
}

OPTIMIZERS = {
    "sgd": lambda: optimizers.SGD(0.1),
    "momentum": lambda: optimizers.SGD(0.05, momentum=0.9),
    "nesterov": lambda: optimizers.SGD(0.05, momentum=0.9, nesterov=True),
    "adam": lambda: optimizers.Adam(0.01),
    "adam_betas": lambda: optimizers.Adam(0.01, beta_1=0.8, beta_2=0.9, epsilon=1e-3),
    "amsgrad": lambda: optimizers.Adam(0.01, amsgrad=True),
    "adamw": lambda: optimizers.AdamW(0.01, weight_decay=0.02),
    "adamax": lambda: optimizers.Adamax(0.01),
    "nadam": lambda: optimizers.Nadam(0.01),
    "adagrad": lambda: optimizers.Adagrad(0.1),
    "adadelta": lambda: optimizers.Adadelta(1.0),
    "rmsprop": lambda: optimizers.RMSprop(0.01),
    "rmsprop_momentum": lambda: optimizers.RMSprop(0.005, momentum=0.5),
    "rmsprop_centered": lambda: optimizers.RMSprop(0.005, momentum=0.5, centered=True),
    "ftrl": lambda: optimizers.Ftrl(
        0.1,
        l1_regularization_strength=0.001,
        l2_regularization_strength=0.01,
        l2_shrinkage_regularization_strength=0.01,
        beta=0.1,
    ),
    "lion": lambda: optimizers.Lion(0.001),
    "lamb": lambda: optimizers.Lamb(0.01),
    "adafactor": lambda: optimizers.Adafactor(0.01),
    "loss_scale": lambda: optimizers.LossScaleOptimizer(
        optimizers.Adam(0.01), dynamic_growth_steps=7
    ),
    "ema": lambda: optimizers.Adam(0.01, use_ema=True, ema_overwrite_frequency=20),
    "accumulation": lambda: optimizers.Adam(0.01, gradient_accumulation_steps=3),
    "clipnorm": lambda: optimizers.Adam(0.01, clipnorm=0.1),
    "clipvalue": lambda: optimizers.RMSprop(0.01, clipvalue=0.01),
    "global_clipnorm": lambda: optimizers.SGD(0.1, momentum=0.9, global_clipnorm=0.1),
    "weight_decay": lambda: optimizers.SGD(0.1, weight_decay=0.01),
    "named": lambda: optimizers.Adam(0.01, name="mine"),
    **{
        f"sgd_{name}": lambda make=make: optimizers.SGD(make())
        for name, make in SCHEDULES.items()
    },
    "adam_scheduled": lambda: optimizers.Adam(SCHEDULES["exponential"]()),
    "momentum_scheduled": lambda: optimizers.SGD(
        SCHEDULES["exponential"](), momentum=0.9, nesterov=True
    ),
}
TF1_OPTIMIZERS = {
    "gradient_descent": lambda: tf1.TF1GradientDescent(0.1),
    "momentum": lambda: tf1.TF1Momentum(0.05),
    "nesterov": lambda: tf1.TF1Momentum(SCHEDULES["piecewise"](), use_nesterov=True),
    "momentum_w": lambda: tf1.TF1MomentumW(0.001, 0.05),
    "adam": lambda: tf1.TF1Adam(0.01),
    "adam_scheduled": lambda: tf1.TF1Adam(SCHEDULES["exponential"]()),
    "lazy_adam": lambda: tf1.TF1LazyAdam(0.01),
    "adamw": lambda: tf1.TF1AdamW(0.001, 0.01),
    "nadam": lambda: tf1.TF1Nadam(0.01),
    "adamax": lambda: tf1.TF1AdaMax(0.01),
    "rmsprop": lambda: tf1.TF1RMSProp(0.01),
    "rmsprop_centered": lambda: tf1.TF1RMSProp(0.005, momentum=0.5, centered=True),
    "adagrad": lambda: tf1.TF1Adagrad(0.1),
    "adagrad_da": lambda: tf1.TF1AdagradDA(0.5),
    "adadelta": lambda: tf1.TF1Adadelta(1.0),
    "ftrl": lambda: tf1.TF1Ftrl(0.5, l2_regularization_strength=0.001),
    "proximal_adagrad": lambda: tf1.TF1ProximalAdagrad(0.1),
    "proximal_gradient_descent": lambda: tf1.TF1ProximalGradientDescent(0.1),
    "add_sign": lambda: tf1.TF1AddSign(0.001),
    "power_sign": lambda: tf1.TF1PowerSign(0.001),
    "bert_adamw": lambda: tf1.BertAdamW(0.01, weight_decay_rate=0.01),
    "bert_lamb": lambda: tf1.BertLAMB(0.01, weight_decay_rate=0.01),
    "tf_keras_sgd": lambda: tf1.TFKerasSGD(0.05, momentum=0.9),
    "tf_keras_adam": lambda: tf1.TFKerasAdam(0.01),
    "tf_keras_adagrad": lambda: tf1.TFKerasAdagrad(0.1),
    "tf_keras_rmsprop": lambda: tf1.TFKerasRMSprop(0.01),
    "tf_keras_nadam": lambda: tf1.TFKerasNadam(0.01),
}
# Keras's own step of these fails with sparse gradients.
DENSE_ONLY = {"adafactor", "accumulation", "rmsprop_centered"}


def dense_model():
    return keras.Sequential(
        [
            keras.Input((6,), name="x"),
            layers.Dense(12, activation="tanh"),
            layers.BatchNormalization(),
            layers.Dense(3),
        ]
    )


def embedding_model():
    """Its embedding has sparse gradients, in which words come twice."""
    return keras.Sequential(
        [
            keras.Input((5,), dtype="int32", name="x"),
            layers.Embedding(WORDS, 6),
            layers.GlobalAveragePooling1D(),
            layers.Dense(3, activation="tanh"),
            layers.Dense(3),
        ]
    )


def batches(kind, count):
    rng = np.random.default_rng(5)
    if kind == "dense":
        x = rng.normal(size=(count, BATCH, 6)).astype("float32")
        return x, np.sin(2 * x[..., :3]).astype("float32")
    x = rng.integers(0, WORDS, (count, BATCH, 5)).astype("int32")
    return x, np.cos(x[..., :3]).astype("float32")


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_keras_optimizer(name, tf115, tmp_path):
    check(dense_model(), OPTIMIZERS[name](), "dense", tf115, tmp_path)


@pytest.mark.parametrize(
    "name", [n for n in OPTIMIZERS if n not in DENSE_ONLY and n[4:] not in SCHEDULES]
)
def test_keras_optimizer_with_sparse_gradients(name, tf115, tmp_path):
    check(embedding_model(), OPTIMIZERS[name](), "sparse", tf115, tmp_path)


@pytest.mark.parametrize("name", TF1_OPTIMIZERS)
def test_optimizer_with_the_rule_of_tensorflow_1(name, tf115, tmp_path):
    check(dense_model(), TF1_OPTIMIZERS[name](), "dense", tf115, tmp_path)


@pytest.mark.parametrize("name", TF1_OPTIMIZERS)
def test_the_same_with_sparse_gradients(name, tf115, tmp_path):
    check(embedding_model(), TF1_OPTIMIZERS[name](), "sparse", tf115, tmp_path)


def test_a_group_of_optimizers(tf115, tmp_path):
    model = embedding_model()
    model.build((None, 5))
    parts = [tf1.TF1Adagrad(0.1), optimizers.Adam(0.01), tf1.TF1Adam(0.01)]
    places = {weight.path: min(i, 2) for i, weight in enumerate(model.weights)}
    group = tf1.OptimizerGroup(parts, places)
    check(model, group, "sparse", tf115, tmp_path)
    powers = {"beta1_power", "beta1_power_1", "beta2_power", "beta2_power_1"}
    assert powers <= set(variable_values(model))


def test_mixed_precision(tf115, tmp_path):
    """Keras wraps the optimizer into a loss scale; half precision rounds to 1e-3."""
    keras.config.set_dtype_policy("mixed_float16")
    model = dense_model()
    model.add(layers.Activation("linear", dtype="float32"))
    check(model, optimizers.Adam(0.01), "dense", tf115, tmp_path, 2e-3)
    assert isinstance(model.optimizer, optimizers.LossScaleOptimizer)


def check(model, optimizer, kind, tf115, folder, tolerance=1e-5):
    """Compares losses and all that is saved after the last step."""
    rng = np.random.default_rng(7)
    for weight in model.weights:
        noise = rng.normal(scale=0.2, size=weight.shape).astype("float32")
        weight.assign(weight + np.abs(noise))
    model.compile(optimizer, "mse")
    x, y = batches(kind, 2 * STEPS)
    for step in range(STEPS):
        model.train_on_batch(x[step], y[step])
    prefix = save_meta_graph(model, folder / "m")
    losses = []
    for step in range(STEPS, 2 * STEPS):
        model.reset_metrics()
        losses.append(float(model.train_on_batch(x[step], y[step])))
    fed = {"train/x": x[STEPS:], "train/labels": y[STEPS:]}
    found = tf115("continue_training", fed, {"checkpoint": prefix})
    np.testing.assert_allclose(found["train/loss"], losses, rtol=tolerance)
    assert all(np.any(weight) for weight in model.trainable_weights)
    for variable, value in variable_values(model).items():
        if is_unused(variable, optimizer):
            continue
        np.testing.assert_allclose(
            found[f"after/{variable}"],
            value,
            rtol=10 * tolerance,
            atol=tolerance,
            err_msg=variable,
        )
