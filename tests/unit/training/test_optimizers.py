"""The optimizers as Keras uses them. Their arithmetic: `parity/test_optimizers.py`."""

import subprocess
import sys

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_metagraph.errors import MetaGraphError
from keras_metagraph.training import optimizers as own
from keras_metagraph.training.rules import rule_of, slot_suffixes
from keras_metagraph.training.slots import optimizer_slots

SETTINGS = {
    "TF1GradientDescent": {},
    "TF1Momentum": {"momentum": 0.8, "use_nesterov": True},
    "TF1MomentumW": {"weight_decay": 0.1, "exclude_from_weight_decay": ["bias"]},
    "TF1AddSign": {"alpha": 0.5, "beta": 0.8},
    "TF1PowerSign": {"base": 1.5, "beta": 0.8},
    "TF1Adam": {"beta1": 0.8, "beta2": 0.9, "epsilon": 0.1},
    "TF1LazyAdam": {"beta1": 0.8, "beta2": 0.9, "epsilon": 0.1},
    "TF1AdamW": {"weight_decay": 0.1, "beta1": 0.8, "beta2": 0.9},
    "TF1Nadam": {"beta1": 0.8, "beta2": 0.9, "epsilon": 0.1},
    "TF1AdaMax": {"beta1": 0.8, "beta2": 0.9, "epsilon": 0.1},
    "TF1RMSProp": {"decay": 0.8, "momentum": 0.5, "epsilon": 0.1, "centered": True},
    "TF1Adagrad": {"initial_accumulator_value": 0.5},
    "TF1AdagradDA": {
        "initial_gradient_squared_accumulator_value": 0.5,
        "l1_regularization_strength": 0.01,
        "l2_regularization_strength": 0.02,
    },
    "TF1Adadelta": {"rho": 0.8, "epsilon": 0.1},
    "TF1Ftrl": {
        "learning_rate_power": -0.4,
        "initial_accumulator_value": 0.5,
        "l1_regularization_strength": 0.01,
        "l2_regularization_strength": 0.02,
        "l2_shrinkage_regularization_strength": 0.03,
    },
    "TF1ProximalGradientDescent": {
        "l1_regularization_strength": 0.01,
        "l2_regularization_strength": 0.02,
    },
    "TF1ProximalAdagrad": {
        "initial_accumulator_value": 0.5,
        "l1_regularization_strength": 0.01,
        "l2_regularization_strength": 0.02,
    },
    "BertAdamW": {
        "weight_decay_rate": 0.1,
        "beta_1": 0.8,
        "beta_2": 0.9,
        "epsilon": 0.1,
        "exclude_from_weight_decay": ["bias"],
    },
    "BertLAMB": {
        "weight_decay_rate": 0.1,
        "exclude_from_layer_adaptation": ["bias"],
    },
    "TFKerasSGD": {"momentum": 0.8, "nesterov": True},
    "TFKerasAdam": {"beta_1": 0.8, "beta_2": 0.9, "epsilon": 0.1, "amsgrad": True},
    "TFKerasRMSprop": {"rho": 0.8, "epsilon": 0.1, "centered": True},
    "TFKerasAdagrad": {"initial_accumulator_value": 0.5, "epsilon": 0.1},
    "TFKerasNadam": {"beta_1": 0.8, "beta_2": 0.9, "schedule_decay": 0.01},
}
# A sparse gradient moves nothing but the rows that it names.
LAZY = [
    "TF1Momentum",
    "TF1MomentumW",
    "TF1LazyAdam",
    "TF1AdaMax",
    "TF1RMSProp",
    "TF1Adagrad",
    "TF1AdagradDA",
    "TF1Adadelta",
    "TF1Ftrl",
    "TF1ProximalGradientDescent",
    "TF1ProximalAdagrad",
    "TFKerasSGD",
    "TFKerasAdagrad",
]
# Dtypes for which TensorFlow cannot run the op.
WITHOUT_KERNEL = {
    "TF1AdaMax": ["bfloat16"],
    "TF1AdagradDA": ["float16", "bfloat16"],
    "TF1ProximalGradientDescent": ["float16", "bfloat16"],
    "TF1ProximalAdagrad": ["float16", "bfloat16"],
}
# A sparse gradient is zero in the rows that it does not name.
NOT_LAZY = [
    "TF1GradientDescent",
    "TF1AddSign",
    "TF1PowerSign",
    "TF1Adam",
    "BertAdamW",
    "BertLAMB",
    "TFKerasAdam",
    "TFKerasRMSprop",
]


def make(kind, rate=0.1, **settings):
    return getattr(own, kind)(learning_rate=rate, **{**SETTINGS[kind], **settings})


def weight(dtype="float32"):
    start = np.linspace(-1, 1, 15).reshape(5, 3)
    return keras.Variable(start, dtype=dtype, name="kernel")


def gradients(count=6, dtype="float32"):
    values = np.random.default_rng(3).normal(size=(count, 5, 3))
    return [tf.constant(value, dtype) for value in values]


def state(optimizer, variables):
    return [np.array(v) for v in (*variables, *optimizer.variables)]


def trained(optimizer, steps, dtype="float32"):
    variable = weight(dtype)
    for gradient in steps:
        optimizer.apply([gradient], [variable])
    return state(optimizer, [variable])


def assert_same(found, expected):
    assert len(found) == len(expected)
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_array_equal(one, other)


def small_model(optimizer):
    model = keras.Sequential(
        [
            keras.Input((4,), dtype="int32"),
            keras.layers.Embedding(7, 3),
            keras.layers.Flatten(),
            keras.layers.Dense(2),
        ]
    )
    model.compile(optimizer, "mse", run_eagerly=True)
    return model


def batches(count=8):
    rng = np.random.default_rng(1)
    return rng.integers(0, 5, (count, 4)), rng.normal(size=(count, 2))


def test_every_optimizer_is_tested():
    assert SETTINGS.keys() | {"OptimizerGroup"} == set(own.__all__)


@pytest.mark.parametrize("name", SETTINGS)
def test_settings_survive_serialization(name):
    optimizer = make(name, clipnorm=0.5, name="mine")
    assert SETTINGS[name].items() <= optimizer.get_config().items()

    config = keras.saving.serialize_keras_object(optimizer)
    copy = keras.saving.deserialize_keras_object(config)

    assert config["registered_name"] == f"keras_metagraph>{name}"
    assert type(copy) is type(optimizer)
    assert copy.get_config() == optimizer.get_config()
    assert_same(trained(copy, gradients()), trained(optimizer, gradients()))


@pytest.mark.parametrize("name", SETTINGS)
def test_training_goes_on_from_a_keras_file(name, tmp_path):
    x, y = batches()
    model = small_model(make(name))
    model.fit(x, y, batch_size=2, epochs=2, shuffle=False, verbose=0)
    model.save(tmp_path / "model.keras")

    copy = keras.saving.load_model(tmp_path / "model.keras")

    assert_same(
        state(copy.optimizer, copy.weights), state(model.optimizer, model.weights)
    )
    for each in (model, copy):
        each.fit(x, y, batch_size=2, shuffle=False, verbose=0)
    assert_same(
        state(copy.optimizer, copy.weights), state(model.optimizer, model.weights)
    )


@pytest.mark.parametrize("name", SETTINGS)
def test_a_schedule_gives_the_rate_of_each_step(name):
    schedule = keras.optimizers.schedules.PiecewiseConstantDecay([2], [0.1, 0.05])
    expected = make(name)
    variable = weight()
    for step, gradient in enumerate(gradients()):
        expected.learning_rate = 0.1 if step <= 2 else 0.05
        expected.apply([gradient], [variable])

    scheduled = make(name, schedule)
    found = trained(scheduled, gradients())

    np.testing.assert_allclose(found[0], np.array(variable), rtol=1e-6)
    copy = keras.saving.deserialize_keras_object(
        keras.saving.serialize_keras_object(scheduled)
    )
    assert copy.get_config() == scheduled.get_config()


@pytest.mark.parametrize(
    ("name", "dtype"),
    [
        (name, dtype)
        for name in SETTINGS
        for dtype in ("float16", "bfloat16", "float64")
        if dtype not in WITHOUT_KERNEL.get(name, ())
    ],
)
def test_variables_of_other_dtypes(name, dtype):
    expected = trained(make(name), gradients(3))[0]

    found = trained(make(name), gradients(3, dtype), dtype)[0]

    assert found.dtype == dtype
    exact = {"float16": 0.01, "bfloat16": 0.06, "float64": 1e-5}[dtype]
    np.testing.assert_allclose(found.astype("float32"), expected, atol=exact)


@pytest.mark.parametrize("name", SETTINGS)
def test_rows_of_one_index_are_added(name):
    rows = tf.constant(np.random.default_rng(2).normal(size=(3, 3)), "float32")
    twice = tf.IndexedSlices(rows, tf.constant([1, 3, 1]), tf.constant([5, 3]))
    added = tf.stack([rows[0] + rows[2], rows[1]])
    once = tf.IndexedSlices(added, tf.constant([1, 3]), tf.constant([5, 3]))

    found = trained(make(name), [twice] * 3)

    for one, other in zip(found, trained(make(name), [once] * 3), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("name", LAZY)
def test_rows_without_gradient_stay(name):
    optimizer, variable = make(name), weight()
    optimizer.apply([gradients()[0]], [variable])
    kept = [np.array(variable), *map(np.array, slots_of(optimizer, variable))]
    rows = tf.IndexedSlices(tf.ones((2, 3)), tf.constant([1, 3]), tf.constant([5, 3]))

    optimizer.apply([rows], [variable])

    now = [np.array(variable), *map(np.array, slots_of(optimizer, variable))]
    for before, after in zip(kept, now, strict=True):
        np.testing.assert_array_equal(after[[0, 2, 4]], before[[0, 2, 4]])
        # RMSProp's mean may come out where it was.
        assert (after[[1, 3]] != before[[1, 3]]).any()


@pytest.mark.parametrize("name", NOT_LAZY)
def test_rows_without_gradient_have_zero(name):
    start = gradients(1)
    rows = tf.IndexedSlices(tf.ones((2, 3)), tf.constant([1, 3]), tf.constant([5, 3]))

    found = trained(make(name), [*start, rows])

    expected = trained(make(name), [*start, tf.convert_to_tensor(rows)])
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-6)


def slots_of(optimizer, variable):
    (slots,) = optimizer_slots(optimizer, [variable])
    return slots.values()


@pytest.mark.parametrize("name", SETTINGS)
def test_slots_are_named_as_in_tf1_or_not_at_all(name):
    optimizer, variable = make(name), weight()
    optimizer.build([variable])
    (slots,) = optimizer_slots(optimizer, [variable])

    suffixes = slot_suffixes(optimizer)

    if name.startswith("TFKeras"):
        assert suffixes.keys() == {"average"}
    else:
        assert suffixes.keys() - {"average"} == slots.keys()


SPARSE = tf.IndexedSlices(
    tf.constant([[3.0, 4.0, 0.0], [0.0, 0.0, 12.0]]),
    tf.constant([1, 1]),
    tf.constant([5, 3]),
)


@pytest.mark.parametrize("gradient", [gradients(1)[0], SPARSE], ids=["dense", "sparse"])
@pytest.mark.parametrize(
    ("settings", "clip"),
    [
        ({"clipnorm": 0.5}, lambda g: tf.clip_by_norm(g, 0.5)),
        ({"clipvalue": 0.5}, lambda g: tf.clip_by_value(g, -0.5, 0.5)),
        ({"global_clipnorm": 0.5}, lambda g: tf.clip_by_global_norm([g], 0.5)[0][0]),
        ({"loss_scale_factor": 4.0}, lambda g: tf.math.scalar_mul(0.25, g)),
        (
            {"loss_scale_factor": 4.0, "clipnorm": 0.5},
            lambda g: tf.clip_by_norm(tf.math.scalar_mul(0.25, g), 0.5),
        ),
    ],
    ids=lambda each: ", ".join(each) if isinstance(each, dict) else "",
)
def test_gradients_are_clipped_and_unscaled_as_in_tf1(settings, clip, gradient):
    optimizer = make("TF1Momentum", **settings)

    found = trained(optimizer, [gradient] * 2)

    expected = trained(make("TF1Momentum"), [clip(gradient)] * 2)
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-6)
    assert settings.items() <= optimizer.get_config().items()


def test_the_moving_average_of_keras_works():
    optimizer, variable = make("TF1Adam", use_ema=True, ema_momentum=0.5), weight()
    average = None
    for gradient in gradients():
        optimizer.apply([gradient], [variable])
        now = np.array(variable)
        average = now if average is None else 0.5 * average + 0.5 * now

    (slots,) = optimizer_slots(optimizer, [variable])

    np.testing.assert_allclose(np.array(slots["average"]), average, rtol=1e-5)


@pytest.mark.parametrize("name", ["TF1Adam", "TF1AdaMax", "TFKerasNadam", "BertAdamW"])
def test_accumulated_gradients_are_one_step(name):
    pairs = gradients()
    optimizer = make(name, gradient_accumulation_steps=2)

    found = trained(optimizer, pairs)

    means = [(a + b) / 2 for a, b in zip(pairs[::2], pairs[1::2], strict=True)]
    expected = trained(make(name), means)
    np.testing.assert_allclose(found[0], expected[0], rtol=1e-6)
    # The last of the state: the powers, which TensorFlow 1 keeps.
    np.testing.assert_allclose(found[-1], expected[-1], rtol=1e-6)


def test_loss_scaling_works():
    x, y = batches()
    scaled = small_model(keras.optimizers.LossScaleOptimizer(make("TF1Adam")))
    plain = small_model(make("TF1Adam"))
    plain.set_weights(scaled.get_weights())

    for model in (scaled, plain):
        model.fit(x, y, batch_size=2, shuffle=False, verbose=0)

    for one, other in zip(scaled.weights, plain.weights, strict=True):
        np.testing.assert_allclose(np.array(one), np.array(other), rtol=1e-5, atol=1e-6)


def test_the_powers_of_adam_are_its_own():
    optimizer, variable = make("TF1Adam"), weight()
    optimizer.build([variable])
    optimizer.iterations.assign(1000)  # another step than that of the powers

    optimizer.apply(gradients(1), [variable])

    assert float(optimizer.beta1_power) == np.float32(0.8) ** 2
    np.testing.assert_allclose(
        np.array(variable), trained(make("TF1Adam"), gradients(1))[0]
    )


def test_a_sign_decay_is_a_schedule():
    decay = keras.optimizers.schedules.PolynomialDecay(1.0, 10, 0.0)
    optimizer = make("TF1AddSign", sign_decay_fn=decay)
    config = keras.saving.serialize_keras_object(optimizer)

    copy = keras.saving.deserialize_keras_object(config)

    assert copy.sign_decay_fn.get_config() == decay.get_config()
    assert_same(trained(copy, gradients()), trained(optimizer, gradients()))
    constant = trained(make("TF1AddSign"), gradients())
    decayed = trained(make("TF1AddSign", sign_decay_fn=decay), gradients())
    assert not np.array_equal(constant[0], decayed[0])


@pytest.mark.parametrize("name", ["TF1AdamW", "TF1MomentumW", "BertAdamW", "BertLAMB"])
def test_excluded_weights_are_not_decayed(name):
    def one_step(**settings):
        variable = weight()
        optimizer = make(name, **{"exclude_from_weight_decay": [], **settings})
        optimizer.apply(gradients(1), [variable])
        return np.array(variable)

    by_argument = one_step(exclude_from_weight_decay=["^ker"])
    optimizer, variable = make(name, exclude_from_weight_decay=[]), weight()
    optimizer.exclude_from_weight_decay(var_list=[variable])
    optimizer.apply(gradients(1), [variable])

    decay = "weight_decay_rate" if name.startswith("Bert") else "weight_decay"
    if name != "BertLAMB":  # whose trust is 1 then, too
        np.testing.assert_array_equal(by_argument, one_step(**{decay: 0.0}))
    np.testing.assert_array_equal(by_argument, np.array(variable))
    assert not np.array_equal(by_argument, one_step())
    assert optimizer.get_config()["exclude_from_weight_decay"] == ["^kernel$"]


def test_a_subclass_has_no_rule_but_a_step():
    kind = type("Mine", (own.TF1Momentum,), {})

    assert rule_of(kind(0.1)) is None
    assert_same(
        trained(kind(0.1), gradients()), trained(own.TF1Momentum(0.1), gradients())
    )


@pytest.mark.parametrize("name", ["TF1AdamW", "TF1MomentumW"])
def test_an_op_that_leaves_out_the_decay_is_no_rule(name):
    assert rule_of(make(name)) is None


REPLICAS = """
import keras
import numpy as np
import tensorflow as tf

(cpu,) = tf.config.list_physical_devices("CPU")
two = [tf.config.LogicalDeviceConfiguration()] * 2
tf.config.set_logical_device_configuration(cpu, two)

from keras_metagraph.training import optimizers as own

x = np.arange(32).reshape(8, 4) % 5
y = np.linspace(-1, 1, 16).reshape(8, 2)


def train(name, weights=None):
    layers = [keras.layers.Embedding(7, 3), keras.layers.Flatten()]
    model = keras.Sequential([keras.Input((4,)), *layers, keras.layers.Dense(2)])
    model.compile(getattr(own, name)(learning_rate=0.1), "mse")
    if weights is not None:
        model.set_weights(weights)
    start = model.get_weights()
    model.fit(x, y, batch_size=4, shuffle=False, verbose=0)
    return start, model.get_weights()


strategy = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])
for name in ("TF1Adam", "TF1LazyAdam", "TF1RMSProp", "TF1Ftrl", "BertLAMB"):
    with strategy.scope():
        start, spread = train(name)
    for one, other in zip(spread, train(name, start)[1]):
        np.testing.assert_allclose(one, other, atol=1e-6, err_msg=name)
"""


def test_replicas_take_one_step():
    done = subprocess.run(
        [sys.executable, "-c", REPLICAS], capture_output=True, text=True, check=False
    )

    assert done.returncode == 0, done.stderr[-3000:]


# OptimizerGroup


def wide_and_deep(optimizer):
    inputs = keras.Input((4,), dtype="int32")
    wide = keras.layers.Embedding(7, 2, name="wide")(inputs)
    deep = keras.layers.Dense(2, name="deep")(keras.ops.cast(inputs, "float32"))
    outputs = keras.ops.sum(wide, 1) + deep
    model = keras.Model(inputs, outputs)
    model.compile(optimizer, "mse")
    return model


ASSIGNMENTS = {"wide/embeddings": 0, "deep/kernel": 1, "deep/bias": 1}


def group(**assignments):
    return own.OptimizerGroup(
        [make("TF1Ftrl"), make("TF1Adagrad")], {**ASSIGNMENTS, **assignments}
    )


def test_each_variable_has_its_own_optimizer():
    x, y = batches()
    model = wide_and_deep(group())
    alone = {
        0: wide_and_deep(make("TF1Ftrl")),
        1: wide_and_deep(make("TF1Adagrad")),
    }
    start = model.get_weights()

    model.train_on_batch(x, y)

    for index, other in alone.items():
        other.set_weights(start)
        other.train_on_batch(x, y)
        for variable, expected in zip(model.weights, other.weights, strict=True):
            if ASSIGNMENTS[variable.path] == index:
                np.testing.assert_array_equal(np.array(variable), np.array(expected))


def test_a_group_goes_on_from_a_keras_file(tmp_path):
    x, y = batches()
    model = wide_and_deep(group())
    model.fit(x, y, batch_size=2, epochs=2, shuffle=False, verbose=0)
    model.save(tmp_path / "model.keras")

    copy = keras.saving.load_model(tmp_path / "model.keras")

    assert int(copy.optimizer.iterations) == 8
    assert [int(each.iterations) for each in copy.optimizer.optimizers] == [8, 8]
    for each in (model, copy):
        each.fit(x, y, batch_size=2, shuffle=False, verbose=0)
    assert_same(
        state(copy.optimizer, copy.weights), state(model.optimizer, model.weights)
    )


def test_the_variables_of_a_group_are_its_state():
    x, y = batches()
    model = wide_and_deep(group())
    model.train_on_batch(x, y)
    other = wide_and_deep(group())
    other.optimizer.build(other.trainable_variables)

    other.optimizer.set_weights([np.array(v) for v in model.optimizer.variables])

    other.set_weights(model.get_weights())
    for each in (model, other):
        each.train_on_batch(x, y)
    assert_same(
        state(other.optimizer, other.weights), state(model.optimizer, model.weights)
    )


def test_the_rate_of_a_group_is_that_of_the_first():
    optimizer = own.OptimizerGroup([make("TF1Ftrl", 0.2), make("TF1Adagrad", 0.3)], {})

    assert float(optimizer.learning_rate) == np.float32(0.2)
    with pytest.raises(MetaGraphError, match=r"optimizers\[i\]"):
        optimizer.learning_rate = 0.1


def test_a_group_finds_every_fault_at_once():
    with pytest.raises(MetaGraphError) as caught:
        own.OptimizerGroup(
            [make("TF1Ftrl", loss_scale_factor=2.0), make("TF1Adagrad")],
            {"a": 0, "b": 2, "c": -1},
        )
    assert [finding.split(":")[0] for finding in caught.value.findings] == [
        "b",
        "c",
        "loss_scale_factor",
    ]
    with pytest.raises(MetaGraphError, match="at least one"):
        own.OptimizerGroup([], {})


def test_variables_without_optimizer_are_named():
    model = wide_and_deep(own.OptimizerGroup([make("TF1Ftrl")], {"wide/embedding": 0}))

    with pytest.raises(MetaGraphError) as caught:
        model.train_on_batch(*batches())

    assert caught.value.findings[0] == "wide/embeddings; nearest: wide/embedding"
    assert {finding.split(";")[0] for finding in caught.value.findings} == {
        *ASSIGNMENTS
    }


def test_optimizers_of_a_group_may_take_turns():
    paths = [variable.path for variable in wide_and_deep("sgd").trainable_variables]
    turns = group(**{paths[0]: [0, 1]})
    model = wide_and_deep(turns)
    first = model.trainable_variables[0]
    gradient = np.ones(first.shape, "float32")

    assert turns.takes_turns
    assert not group().takes_turns
    turns.build(model.trainable_variables)
    with pytest.raises(MetaGraphError, match="in turn") as caught:
        turns.apply([np.ones(v.shape, "float32") for v in model.trainable_variables])
    assert caught.value.findings == (paths[0],)
    for index, name in enumerate(["TF1Ftrl", "TF1Adagrad"]):
        alone = keras.Variable(first.numpy())
        make(name).apply([gradient], [alone])
        turns.optimizers[index].apply([gradient], [first])
        np.testing.assert_allclose(first.numpy(), alone.numpy(), rtol=1e-6)
    again = keras.saving.deserialize_keras_object(
        keras.saving.serialize_keras_object(turns)
    )
    assert again.takes_turns


def test_a_group_may_leave_variables_alone():
    model = wide_and_deep("sgd")
    known = {p: i for p, i in ASSIGNMENTS.items() if "deep" in p}
    optimizer = own.OptimizerGroup([make("TF1Ftrl"), make("TF1Adagrad")], known)
    optimizer.build([v for v in model.trainable_variables if v.path in known])

    optimizer.finalize_variable_values(model.trainable_variables)


def test_a_group_scales_the_loss_once():
    def one_step(factor):
        inputs = keras.Input((4,))
        model = keras.Model(inputs, keras.layers.Dense(2, name="deep")(inputs))
        names = ["TF1Ftrl", "TF1Adagrad"]
        optimizers = [make(each, loss_scale_factor=factor) for each in names]
        model.compile(
            own.OptimizerGroup(optimizers, {"deep/kernel": 0, "deep/bias": 1}), "mse"
        )
        model.set_weights([np.ones((4, 2)), np.ones(2)])
        model.train_on_batch(*batches())
        return model.get_weights()

    for scaled, plain in zip(one_step(8.0), one_step(None), strict=True):
        np.testing.assert_allclose(scaled, plain, rtol=1e-6)
