"""The state of an optimizer follows the weights, under the names of every release."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers

import keras_metagraph as kmg
from keras_metagraph.errors import MissingVariableError, SignatureError
from keras_metagraph.training import optimizers


def compiled(optimizer):
    model = keras.Sequential(
        [keras.Input((3,)), layers.Dense(2, name="new")], name="model"
    )
    model.compile(optimizer, "mse")
    return model


def weights(scope="old/"):
    return {
        f"{scope}kernel": np.ones((3, 2), "float32"),
        f"{scope}bias": np.ones(2, "float32"),
    }


def slots(form, names):
    """Slots of both weights; `form` makes a key of the weight's and the slot's name."""
    rng = np.random.default_rng(4)
    return {
        form.format(weight=f"old/{weight}", slot=slot): rng.uniform(1, 2, shape).astype(
            "float32"
        )
        for weight, shape in (("kernel", (3, 2)), ("bias", (2,)))
        for slot in names
    }


ADAM = {"momentum": "Adam", "velocity": "Adam_1"}
FORMS = {
    "TensorFlow 1": ("{weight}/{slot}", ADAM),
    "canned estimators": ("{weight}/part_0/{slot}", ADAM),
    "canned estimators, t_0": ("{weight}/t_0/{slot}", ADAM),
    "in a scope": ("opt/{weight}/{slot}", ADAM),
    "tf.keras in a graph": (
        "training/Adam/{weight}/{slot}",
        {"momentum": "m", "velocity": "v"},
    ),
    "tf.keras": ("Adam/{weight}/{slot}", {"momentum": "m", "velocity": "v"}),
    "tf.keras since 2.11": ("Adam/{slot}/{weight}", {"momentum": "m", "velocity": "v"}),
    "of another name": (
        "{weight}/Generator{slot}",
        {"momentum": "", "velocity": "_1"},
    ),
}


def powers(steps):
    return {
        "beta1_power": np.float32(0.9 ** (steps + 1)),
        "beta2_power": np.float32(0.999 ** (steps + 1)),
    }


@pytest.mark.parametrize("key", FORMS)
def test_names_of_slots(key, checkpoint):
    form, names = FORMS[key]
    values = slots(form, names.values())
    model = compiled("adam")

    kmg.warm_start(
        model,
        checkpoint(weights() | values | powers(12) | {"global_step": np.int64(12)}),
        {"old/": "new/"},
        optimizer=True,
    )

    held = {v.name: v.numpy() for v in model.optimizer.variables}
    assert held["iteration"] == 12
    for weight in ("kernel", "bias"):
        for slot, name in names.items():
            key = form.format(weight=f"old/{weight}", slot=name)
            np.testing.assert_array_equal(
                held[f"model_new_{weight}_{slot}"], values[key]
            )


@pytest.mark.parametrize("steps", [1, 50, 900, 20000])
def test_steps_without_a_counter_come_from_the_powers_of_beta(steps, checkpoint):
    values = weights() | slots("{weight}/{slot}", ADAM.values())
    values |= powers(steps)
    if steps > 827:  # TensorFlow flushes denormal numbers.
        values["beta1_power"] = np.float32(0)
    model = compiled("adam")

    kmg.warm_start(model, checkpoint(values), {"old/": "new/"}, optimizer=True)

    assert int(model.optimizer.iterations) == steps


def test_disagreeing_steps_are_named(checkpoint):
    values = weights() | slots("{weight}/{slot}", ADAM.values()) | powers(50)
    values["global_step"] = np.int64(2000)
    model = compiled("adam")

    with pytest.warns(UserWarning, match="says 2000 steps, and 'beta2_power' says 50"):
        kmg.warm_start(model, checkpoint(values), {"old/": "new/"}, optimizer=True)

    assert int(model.optimizer.iterations) == 2000


def test_slots_of_another_meaning_are_missing(checkpoint):
    """TensorFlow 1's momentum is not scaled by the learning rate, Keras's is."""
    values = weights() | slots("{weight}/{slot}", ["Momentum"])
    model = compiled(keras.optimizers.SGD(0.1, momentum=0.9))

    with pytest.raises(MissingVariableError) as caught:
        kmg.warm_start(
            model,
            checkpoint(values | {"global_step": np.int64(1)}),
            {"old/": "new/"},
            optimizer=True,
        )

    assert len(caught.value.findings) == 2


def test_without_an_optimizer(checkpoint):
    model = keras.Sequential([keras.Input((3,)), layers.Dense(2, name="new")])

    with pytest.raises(SignatureError, match="not compiled"):
        kmg.warm_start(model, checkpoint(weights("new/")), optimizer=True)


def test_slots_that_only_their_order_tells_are_noted(checkpoint):
    """Keras 2.0 to 2.2 in a graph: `training/Adam/Variable_3`."""
    shapes = [(3, 2), (2,), (3, 2), (2,)]
    rng = np.random.default_rng(6)
    values = {
        f"training/Adam/Variable{f'_{i}' if i else ''}": rng.normal(size=shape).astype(
            "float32"
        )
        for i, shape in enumerate(shapes)
    }
    model = compiled("adam")

    report = kmg.warm_start(
        model,
        checkpoint(weights() | values | {"global_step": np.int64(3)}),
        {"old/": "new/"},
        optimizer=True,
    )

    slots = {match.name: match for match in report.matched}
    velocity = slots["new/kernel/Adam_1"]
    assert velocity.source == ("training/Adam/Variable_2",)
    assert "by their order alone" in velocity.note


@pytest.mark.parametrize("kind", ["weights", "objects"])
def test_the_state_of_another_optimizer_is_not_taken(kind, tmp_path):
    """Both have as many variables, of the same shapes, and in another order."""
    source = compiled(keras.optimizers.RMSprop(0.1, momentum=0.9))
    source.optimizer.build(source.trainable_variables)
    path = str(tmp_path / "m.weights.h5")
    if kind == "weights":
        source.save_weights(path)
    else:
        path = tf.train.Checkpoint(source).write(str(tmp_path / "ckpt"))

    with pytest.raises(MissingVariableError):
        kmg.warm_start(compiled("adam"), path, optimizer=True)


def test_a_group_of_optimizers(checkpoint):
    """Wide and deep: each weight has the slots of its own optimizer."""
    model = keras.Sequential(
        [
            keras.Input((3,)),
            layers.Dense(2, name="deep", use_bias=False),
            layers.Dense(1, name="wide", use_bias=False),
        ]
    )
    parts = [optimizers.TF1Adagrad(0.1), optimizers.TF1Ftrl(0.1)]
    paths = [weight.path for weight in model.trainable_variables]
    group = optimizers.OptimizerGroup(parts, {paths[0]: 0, paths[1]: 1})
    model.compile(group, "mse")
    rng = np.random.default_rng(2)
    shapes = {
        "deep/kernel": (3, 2),
        "deep/kernel/Adagrad": (3, 2),
        "wide/kernel": (2, 1),
        "wide/kernel/Ftrl": (2, 1),
        "wide/kernel/Ftrl_1": (2, 1),
    }
    values = {k: rng.normal(size=s).astype("float32") for k, s in shapes.items()}

    kmg.warm_start(
        model, checkpoint(values | {"global_step": np.int64(8)}), optimizer=True
    )

    held = [v.numpy() for part in parts for v in part.variables if len(v.shape)]
    wanted = [values[k] for k in shapes if k.rpartition("/")[2] != "kernel"]
    for value, expected in zip(held, wanted, strict=True):
        np.testing.assert_array_equal(value, expected)
    assert [int(part.iterations) for part in parts] == [8, 8]
