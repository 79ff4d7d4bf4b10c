import warnings

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_metagraph.errors import (
    CheckpointError,
    LoweringError,
    MissingVariableError,
    ShapeMismatchError,
)
from keras_metagraph.graph.from_proto import graph_from_proto
from keras_metagraph.graph.passes import repair
from keras_metagraph.graph.variables import graph_variables
from keras_metagraph.loading.infer import Interface
from keras_metagraph.loading.optimizers import keras_optimizers

v1 = tf.compat.v1
train = v1.train


class Built:
    """A graph with values for its variables, and Keras variables for them."""

    def __init__(self, build, use_resource=False, **changed):
        with tf.Graph().as_default(), v1.variable_scope("", use_resource=use_resource):
            operations = build()
            meta = train.export_meta_graph()
            with v1.Session() as session:
                session.run(v1.global_variables_initializer())
                names = [v.op.name for v in v1.global_variables()]
                arrays = session.run(v1.global_variables())
        source = graph_from_proto(meta.graph_def)
        self.graph = repair(source)
        self.variables = graph_variables(meta, source)
        self.values = dict(zip(names, arrays, strict=True)) | changed
        self.weights = {
            n: keras.Variable(v, name=n.replace("/", ">"))
            for n, v in self.values.items()
        }
        self.interface = Interface(
            train_op=[operation.name for operation in operations]
        )

    def phases(self):
        return keras_optimizers(
            self.graph, self.variables, self.interface, self.values, self.weights
        )


def weights():
    w = v1.get_variable("w", [3, 2])
    b = v1.get_variable("b", [2])
    return tf.reduce_mean((w + b) ** 2)


def minimized(optimizer, steps=True):
    def build():
        step = train.get_or_create_global_step() if steps else None
        return [optimizer().minimize(weights(), step, name="train_op")]

    return build


def adam():
    return train.AdamOptimizer(0.1, beta2=0.99)


def test_names_all_missing_slots_in_one_error():
    built = Built(minimized(adam))
    del built.values["w/Adam"], built.values["b/Adam_1"]

    with pytest.raises(MissingVariableError) as error:
        built.phases()

    assert len(error.value.findings) == 2
    assert "w/Adam has no value (slot 'm' of w)" in str(error.value)
    assert "b/Adam_1" in str(error.value)


def test_names_all_slots_of_other_shapes():
    built = Built(minimized(adam))
    built.values["w/Adam"] = np.zeros([2, 3], np.float32)

    with pytest.raises(ShapeMismatchError, match=r"w/Adam has shape \(2, 3\)"):
        built.phases()


def test_raises_problems_of_all_kinds_together():
    built = Built(minimized(adam))
    built.values["w/Adam"] = np.zeros([2, 3], np.float32)
    del built.values["b/Adam"]

    with pytest.raises(CheckpointError) as error:
        built.phases()

    assert "w/Adam" in str(error.value)
    assert "b/Adam" in str(error.value)


def test_warns_once_of_disagreeing_steps():
    built = Built(
        minimized(adam), global_step=np.int64(30), beta2_power=np.float32(0.99**11)
    )

    with pytest.warns(UserWarning, match="global_step says that 30 .* beta2_power"):
        (phase,) = built.phases()

    assert phase.optimizer.iterations == 30
    assert float(phase.optimizer.beta2_power) == pytest.approx(0.99**11)
    assert len(phase.findings) == 1


def test_takes_the_step_from_powers_where_nothing_counts():
    power = np.float32(0.99**11)
    built = Built(minimized(adam, steps=False), beta2_power=power)

    (phase,) = built.phases()

    assert phase.optimizer.iterations == 10


def test_does_not_ask_powers_that_were_flushed_to_zero():
    built = Built(
        minimized(adam),
        global_step=np.int64(200_000),
        beta1_power=np.float32(0),
        beta2_power=np.float32(0),
    )

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        (phase,) = built.phases()

    assert phase.optimizer.iterations == 200_000


@pytest.mark.parametrize("use_resource", [False, True])
@pytest.mark.parametrize(
    "optimizer",
    [
        adam,
        lambda: train.AdamOptimizer(0.1),
        lambda: train.MomentumOptimizer(0.1, 0.9),
        lambda: train.RMSPropOptimizer(0.1, momentum=0.5, centered=True),
        lambda: train.FtrlOptimizer(0.1),
    ],
    ids=["adam", "default_adam", "momentum", "centered", "ftrl"],
)
def test_writes_back_what_it_read(optimizer, use_resource):
    built = Built(minimized(optimizer), use_resource)
    random = np.random.default_rng(0)
    for name, value in built.values.items():
        if "/" in name:  # a slot
            built.values[name] = random.uniform(0.1, 1, value.shape).astype("float32")
    (phase,) = built.phases()

    back = phase.write_back(built.weights)

    assert back.keys() == built.values.keys() - {"w", "b"}
    for name, value in back.items():
        np.testing.assert_allclose(value, built.values[name], rtol=1e-6)
        assert value.dtype == built.weights[name].dtype


def test_counts_what_the_graph_counts():
    built = Built(minimized(adam))
    (phase,) = built.phases()
    names = list(phase.variables)

    for _ in range(3):
        zeros = [keras.ops.zeros_like(built.weights[name]) for name in names]
        phase.optimizer.apply(zeros, [built.weights[name] for name in names])
    back = phase.write_back(built.weights)

    assert back["global_step"] == 3
    assert back["beta2_power"] == np.prod(np.full(4, 0.99, np.float32))


def test_says_how_to_give_a_rate_that_is_fed():
    def build():
        rate = v1.placeholder(tf.float32, [], "lr")
        return [train.GradientDescentOptimizer(rate).minimize(weights())]

    built = Built(build)

    with pytest.raises(LoweringError, match=r"lr:0 is fed.*\n.*feeds=\{'lr:0': 0.01\}"):
        built.phases()
    built.interface.training_values = {"lr:0": (0.5, 0.5)}
    (phase,) = built.phases()
    assert float(phase.optimizer.learning_rate) == 0.5


@pytest.mark.parametrize("decayed", [True, False])
def test_a_rate_may_come_from_branches(decayed):
    # Numbers inside of a branch that is not taken have no value.
    def late(step):
        if not decayed:
            return tf.constant(0.125)
        return train.exponential_decay(0.5, step - 4, 2, 0.5, staircase=True)

    def build():
        step = train.get_or_create_global_step()
        v1.disable_control_flow_v2()
        try:
            rate = v1.cond(step < 4, lambda: tf.constant(0.5), lambda: late(step))
        finally:
            v1.enable_control_flow_v2()
        rows = tf.gather(v1.get_variable("w", [3, 2]), [0, 2])
        optimizer = train.GradientDescentOptimizer(rate)
        return [optimizer.minimize(tf.reduce_mean(rows**2), step)]

    (phase,) = Built(build).phases()

    rate = phase.optimizer.learning_rate
    assert float(rate) == 0.5
    phase.optimizer.iterations.assign(8)
    assert float(phase.optimizer.learning_rate) == 0.125


def test_refuses_gradients_that_come_from_outside():
    def build():
        w = v1.get_variable("w", [3, 2])
        given = v1.placeholder(tf.float32, [3, 2], "gradient")
        return [train.AdamOptimizer(0.1).apply_gradients([(given, w)])]

    with pytest.raises(
        LoweringError, match="not the gradient of a loss of the graph: w"
    ):
        Built(build).phases()


def test_refuses_a_loss_of_copies_of_the_weights():
    def build():
        weights = v1.get_variable("global/w", [3])
        copies = v1.get_variable("worker/w", [3])
        v1.assign(copies, weights, name="pull")
        loss = tf.reduce_sum(tf.square(copies))
        gradients = tf.gradients(loss, [copies])
        optimizer = train.AdamOptimizer(0.1)
        return [optimizer.apply_gradients(zip(gradients, [weights], strict=True))]

    with pytest.raises(LoweringError, match=r"copies of the variables.*global/w"):
        Built(build).phases()


def test_refuses_two_optimizers_of_a_variable_in_one_run():
    def build():
        w = v1.get_variable("w", [3])
        losses = [tf.reduce_sum(w**2), tf.reduce_sum(w)]
        steps = [
            train.AdamOptimizer(rate).minimize(loss)
            for rate, loss in zip([0.1, 0.2], losses, strict=True)
        ]
        return [tf.group(*steps, name="both")]

    with pytest.raises(LoweringError, match=r"several optimizers .* in one run: w"):
        Built(build).phases()


def test_optimizers_with_the_same_numbers_count_for_themselves():
    def build():
        pairs = [(v1.get_variable(name, [2]), name) for name in ("one", "two")]
        steps = [
            train.AdamOptimizer(0.1).minimize(tf.reduce_sum(w**2), var_list=[w])
            for w, _ in pairs
        ]
        return [tf.group(*steps, name="both")]

    (phase,) = Built(build, use_resource=True).phases()

    assert sorted(phase.variables) == ["one", "two"]
    assert [type(each).__name__ for each in phase.optimizer.optimizers] == [
        "TF1Adam",
        "TF1Adam",
    ]
    assert {"beta1_power", "beta1_power_1"} <= {each.name for each in phase.bindings}


def test_several_train_ops_become_several_phases():
    def build():
        one = v1.get_variable("one", [2])
        two = v1.get_variable("two", [2])
        loss = tf.reduce_sum(one * two)
        return [
            train.AdamOptimizer(0.1).minimize(loss, var_list=[one], name="first"),
            train.GradientDescentOptimizer(0.2).minimize(
                -loss, var_list=[two], name="second"
            ),
        ]

    first, second = Built(build, use_resource=True).phases()

    assert (first.operations, first.variables) == (("first",), ("one",))
    assert (second.operations, second.variables) == (("second",), ("two",))
    assert first.loss != second.loss
    assert float(second.optimizer.learning_rate) == pytest.approx(0.2)
