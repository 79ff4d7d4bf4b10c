"""Exported steps run TensorFlow 1's fused ops, and compute what Keras computes."""

from collections import Counter

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers, optimizers

from keras_metagraph.export.fused import fused_step, fused_steps
from keras_metagraph.export.names import named_variables
from keras_metagraph.saving import export_meta_graph, save_meta_graph, variable_values
from keras_metagraph.training import optimizers as tf1

X = np.linspace(-1, 1, 24, dtype="float32").reshape(8, 3)
Y = np.linspace(0, 1, 16, dtype="float32").reshape(8, 2)


def mlp(optimizer):
    model = keras.Sequential(
        [keras.Input((3,), name="x"), layers.Dense(4, "tanh"), layers.Dense(2)]
    )
    model.compile(optimizer, "mse")
    model.train_on_batch(X, Y)
    return model


def ops(model, **arguments):
    """How often each op that applies gradients is in the exported graph."""
    graph_def = export_meta_graph(model, **arguments).graph_def
    nodes = [
        *graph_def.node,
        *(n for f in graph_def.library.function for n in f.node_def),
    ]
    names = (node.op for node in nodes)
    return Counter(
        op for op in names if op.startswith(("ResourceApply", "ResourceSparseApply"))
    )


def names(model):
    return {v.name: v.role for v in named_variables(model)}


@pytest.mark.parametrize(
    ("make", "op"),
    [
        (lambda: optimizers.SGD(), "GradientDescent"),
        (lambda: optimizers.SGD(momentum=0.9, nesterov=True), "KerasMomentum"),
        (lambda: optimizers.Adam(), "Adam"),
        (lambda: optimizers.Adam(amsgrad=True), "AdamWithAmsgrad"),
        (lambda: optimizers.AdamW(), "Adam"),
        (lambda: optimizers.Adamax(), "AdaMax"),
        (lambda: optimizers.RMSprop(), "RMSProp"),
        (lambda: optimizers.RMSprop(centered=True), "CenteredRMSProp"),
        (lambda: optimizers.Adadelta(), "Adadelta"),
        (lambda: optimizers.Ftrl(), "FtrlV2"),
        (lambda: optimizers.Adam(clipnorm=1.0, use_ema=True), "Adam"),
        (lambda: optimizers.Adam(gradient_accumulation_steps=2), "Adam"),
        (lambda: optimizers.LossScaleOptimizer(optimizers.Adam()), "Adam"),
        (lambda: tf1.TF1Momentum(), "Momentum"),
    ],
)
def test_the_op_of_an_optimizer(make, op):
    assert ops(mlp(make())) == {f"ResourceApply{op}": 4}


@pytest.mark.parametrize("name", ["Adagrad", "Nadam", "Lion", "Lamb", "Adafactor"])
def test_others_are_traced_as_they_are(name):
    assert not ops(mlp(getattr(optimizers, name)()))


def test_a_subclass_is_traced_as_it_is():
    class Mine(optimizers.Adam):
        def update_step(self, gradient, variable, learning_rate):
            super().update_step(2 * gradient, variable, learning_rate)

    model = mlp(Mine())
    assert not ops(model)
    assert "derived" not in names(model).values()


def test_an_embedding_of_keras_is_traced_and_the_rest_fused():
    model = keras.Sequential(
        [keras.Input((3,)), layers.Embedding(9, 4), layers.Flatten(), layers.Dense(2)]
    )
    model.compile("adam", "mse")
    model.train_on_batch(np.array([[0, 1, 1]]), np.zeros((1, 2)))
    assert ops(model) == {"ResourceApplyAdam": 2}


@pytest.mark.parametrize(
    ("make", "expected"),
    [
        (lambda: optimizers.Adam(), {"beta1_power", "beta2_power"}),
        (lambda: optimizers.Adamax(), {"beta1_power"}),
        (
            lambda: optimizers.RMSprop(),
            {
                f"dense{n}/{kind}/RMSProp_1"
                for n in ("", "_1")
                for kind in ("kernel", "bias")
            },
        ),
        (lambda: optimizers.RMSprop(momentum=0.5), set()),
        (lambda: optimizers.SGD(momentum=0.5), set()),
        # It keeps its powers itself.
        (lambda: tf1.TF1Adam(), set()),
    ],
)
def test_what_tensorflow_1_keeps_besides(make, expected):
    model = mlp(make())
    assert {
        name for name, role in names(model).items() if role == "derived"
    } == expected
    assert expected <= set(variable_values(model))


def test_two_optimizers_have_powers_of_their_own():
    class Two(keras.Model):
        def __init__(self):
            super().__init__()
            self.a, self.b = layers.Dense(2), layers.Dense(2)
            self.second = optimizers.Adam(beta_1=0.5, name="second")

        def call(self, x):
            return self.b(self.a(x))

        def train_step(self, data):
            x, y = data
            with tf.GradientTape(persistent=True) as tape:
                loss = keras.ops.mean((self(x) - y) ** 2)
            for optimizer, layer in ((self.optimizer, self.a), (self.second, self.b)):
                weights = layer.trainable_variables
                optimizer.apply(tape.gradient(loss, weights), weights)
            return {"loss": loss}

    model = Two()
    model(X)
    model.second.build(model.b.trainable_variables)
    model.compile("adam")
    model.optimizer.build(model.a.trainable_variables)
    labels = tf.TensorSpec([None, 2])
    assert ops(model, labels=labels) == {"ResourceApplyAdam": 4}
    values = variable_values(model)
    assert float(values["beta1_power"]) == pytest.approx(0.9)
    assert float(values["beta1_power_1"]) == pytest.approx(0.5)


def test_copies_on_replicas_are_traced_as_they_are():
    with tf.distribute.MirroredStrategy(["/cpu:0"]).scope():
        model = keras.Sequential([keras.Input((3,)), layers.Dense(2)])
        model.compile("adam", "mse")
        model.optimizer.build(model.trainable_variables)
    assert fused_step(model.optimizer, {}) is None


def test_the_optimizer_is_as_it_was_afterwards():
    model = mlp("adam")
    before = dict(vars(model.optimizer))
    weights = {v.name: v.variable for v in named_variables(model) if v.role == "weight"}
    during = {}

    def failing():
        with fused_steps([model.optimizer], weights):
            during.update(vars(model.optimizer))
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        failing()
    assert set(during) - set(before) == {"apply", "update_step"}
    assert dict(vars(model.optimizer)) == before


def run(prefix, fetches, steps=0, assign=()):
    """Fetches after some steps in a session of TensorFlow."""
    with tf.Graph().as_default(), tf.compat.v1.Session() as session:
        saver = tf.compat.v1.train.import_meta_graph(f"{prefix}.meta")
        saver.restore(session, str(prefix))
        variables = {v.op.name: v for v in tf.compat.v1.global_variables()}
        for name, value in assign:
            session.run(variables[name].assign(value))
        for _ in range(steps):
            session.run("train/train_op", {"x:0": X, "labels:0": Y})
        return session.run(fetches)


def reads(model):
    return {name: f"{name}/Read/ReadVariableOp:0" for name in variable_values(model)}


@pytest.mark.parametrize("accumulated", [None, 3])
def test_powers_go_on_with_the_updates(accumulated, tmp_path):
    model = mlp(optimizers.Adam(gradient_accumulation_steps=accumulated))
    prefix = save_meta_graph(model, tmp_path / "m")
    found = run(prefix, reads(model), steps=4)
    for _ in range(4):
        model.train_on_batch(X, Y)
    for name, value in variable_values(model).items():
        np.testing.assert_allclose(found[name], value, rtol=1e-5, atol=1e-7)
    updates = 5 // (accumulated or 1)
    assert found["beta1_power"] == pytest.approx(0.9 ** (updates + 1))


def test_a_constant_rate_can_be_fetched_and_set(tmp_path):
    model = mlp(optimizers.Adam(0.125))
    prefix = save_meta_graph(model, tmp_path / "m")
    assert run(prefix, "train/learning_rate:0") == 0.125
    set_to = [("adam/learning_rate", 0.0)]
    assert run(prefix, "train/learning_rate:0", assign=set_to) == 0.0
    kernel = run(prefix, reads(model)["dense/kernel"], steps=3, assign=set_to)
    np.testing.assert_array_equal(kernel, model.weights[0])


def test_a_schedule_reads_the_global_step(tmp_path):
    schedule = optimizers.schedules.ExponentialDecay(0.5, 4, 0.25)
    model = mlp(optimizers.SGD(schedule, momentum=0.9))
    prefix = save_meta_graph(model, tmp_path / "m")
    for step in (1, 2, 100):
        rate = run(prefix, "train/learning_rate:0", assign=[("global_step", step)])
        np.testing.assert_allclose(rate, schedule(step), rtol=1e-6)
    assert run(prefix, "train/learning_rate:0", steps=2) == pytest.approx(
        float(schedule(3))
    )


@pytest.mark.parametrize(
    ("make", "expected"),
    [
        (lambda: optimizers.Adam(), {"beta1_power": 0.9, "dense/kernel/Adam": 0.0}),
        (
            lambda: tf1.TF1Adam(),
            {"beta2_power": 0.999, "global_step": 0, "dense/kernel/Adam_1": 0.0},
        ),
        (lambda: optimizers.Adagrad(), {"dense/kernel/Adagrad": 0.1}),
        (lambda: tf1.TF1RMSProp(), {"dense/kernel/RMSProp": 1.0}),
        (lambda: tf1.TF1Ftrl(), {"dense/kernel/Ftrl": 0.1, "dense/kernel/Ftrl_1": 0.0}),
    ],
)
def test_a_graph_without_checkpoint_starts_as_a_new_optimizer(make, expected):
    graph_def = export_meta_graph(mlp(make())).graph_def
    with tf.Graph().as_default(), tf.compat.v1.Session() as session:
        tf.graph_util.import_graph_def(graph_def, name="")
        session.run("init")
        for name, value in expected.items():
            found = session.run(f"{name}/Read/ReadVariableOp:0")
            np.testing.assert_allclose(found, np.full_like(found, value), rtol=1e-6)
