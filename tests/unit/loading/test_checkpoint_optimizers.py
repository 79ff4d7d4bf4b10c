import numpy as np
import pytest
import tensorflow as tf

from keras_metagraph.loading.infer.checkpoint_optimizers import describe_checkpoint
from oracle.references import FIXTURES

v1 = tf.compat.v1


def variables(build):
    """The shapes of the variables of a graph, as its Saver would name them."""
    with tf.Graph().as_default():
        build()
        return {v.op.name: tuple(v.shape.as_list()) for v in v1.global_variables()}


def minimized(*optimizers, steps=True):
    def build():
        w = v1.get_variable("net/w", [3, 2])
        b = v1.get_variable("net/b", [2])
        step = v1.train.get_or_create_global_step() if steps else None
        for optimizer in optimizers:
            optimizer.minimize(tf.reduce_mean((w + b) ** 2), step)

    return build


@pytest.mark.parametrize(
    ("optimizer", "name", "slots"),
    [
        (v1.train.AdamOptimizer(), "Adam", {"m": "Adam", "v": "Adam_1"}),
        (v1.train.MomentumOptimizer(0.1, 0.9), "Momentum", {"accum": "Momentum"}),
        (
            v1.train.RMSPropOptimizer(0.1),
            "RMSProp",
            {"ms": "RMSProp", "mom": "RMSProp_1"},
        ),
        (
            v1.train.RMSPropOptimizer(0.1, centered=True),
            "RMSProp",
            {"ms": "RMSProp", "mg": "RMSProp_1", "mom": "RMSProp_2"},
        ),
        (v1.train.AdagradOptimizer(0.1), "Adagrad", {"accum": "Adagrad"}),
        (
            v1.train.AdadeltaOptimizer(),
            "Adadelta",
            {"accum": "Adadelta", "accum_update": "Adadelta_1"},
        ),
        (v1.train.FtrlOptimizer(0.1), "Ftrl", {"accum": "Ftrl", "linear": "Ftrl_1"}),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_knows_the_slots_of_tf_train(optimizer, name, slots):
    (found,) = describe_checkpoint(variables(minimized(optimizer)))

    assert found.name == name
    assert found.slots == {
        variable: {role: f"{variable}/{slot}" for role, slot in slots.items()}
        for variable in ("net/b", "net/w")
    }
    assert found.step == "global_step"


def test_keeps_two_optimizers_of_one_variable_apart():
    shapes = variables(minimized(v1.train.AdamOptimizer(), v1.train.AdamOptimizer()))

    first, second = describe_checkpoint(shapes)

    assert first.slots["net/w"] == {"m": "net/w/Adam", "v": "net/w/Adam_1"}
    assert first.powers["beta2_power"] == "beta2_power"
    assert second.slots["net/w"] == {"m": "net/w/Adam_2", "v": "net/w/Adam_3"}
    assert second.powers["beta2_power"] == "beta2_power_1"


def test_finds_slots_behind_a_variable_scope():
    def build():
        w = v1.get_variable("net/w", [3, 2])
        with v1.variable_scope("opt"):
            v1.train.AdamOptimizer().minimize(tf.reduce_mean(w**2))

    (found,) = describe_checkpoint(variables(build))

    assert found.slots == {"net/w": {"m": "opt/net/w/Adam", "v": "opt/net/w/Adam_1"}}
    assert found.powers["beta1_power"] == "opt/beta1_power"


def test_knows_adam_by_another_name():
    (found,) = describe_checkpoint(
        variables(minimized(v1.train.AdamOptimizer(name="Generator")))
    )

    assert found.name == "Adam"
    assert found.slots["net/w"]["v"] == "net/w/Generator_1"
    assert "'Generator'" in found.notes[0]


@pytest.mark.parametrize(
    ("checkpoint", "name", "slot", "step"),
    [
        (
            "zoo/keras115_saver/model-20",
            "Adam",
            ("dense/kernel", "v", "training/Adam/dense/kernel/v"),
            "training/Adam/iter",
        ),
        (
            "zoo/keras115_saver/tf_weights/w",
            "Adam",
            (
                "layer_with_weights-0/bias/.ATTRIBUTES/VARIABLE_VALUE",
                "m",
                "layer_with_weights-0/bias/.OPTIMIZER_SLOT/optimizer/m/"
                ".ATTRIBUTES/VARIABLE_VALUE",
            ),
            "optimizer/iter/.ATTRIBUTES/VARIABLE_VALUE",
        ),
        (
            "zoo/transformer_adamw/model-20",
            "BertAdamW",
            ("output_bias", "m", "output_bias/adam_m"),
            "global_step",
        ),
        (
            "zoo/estimator_dnn/model_dir/model.ckpt-20",
            "Adagrad",
            (
                "dnn/logits/bias",
                "accum",
                "dnn/logits/bias/t_0/Adagrad",
            ),
            "global_step",
        ),
    ],
    ids=["tf.keras", "objects", "bert", "estimator"],
)
def test_reads_checkpoints_of_tensorflow_115(checkpoint, name, slot, step):
    reader = tf.train.load_checkpoint(str(FIXTURES / checkpoint))

    (found,) = describe_checkpoint(reader.get_variable_to_shape_map())

    variable, role, key = slot
    assert found.name == name
    assert found.slots[variable][role] == key
    assert found.step == step
    assert found.steps({step: reader.get_tensor(step)}) == 20


def test_reads_the_slots_of_keras_2_in_the_order_of_the_variables():
    shapes = {"a/kernel": (3, 2), "a/bias": (2,), "training/Adam/iterations": ()}
    shapes |= {"training/Adam/Variable": (3, 2), "training/Adam/Variable_1": (2,)}
    shapes |= {"training/Adam/Variable_2": (3, 2), "training/Adam/Variable_3": (2,)}
    shapes |= {"training/Adam/Variable_4": (1,), "training/Adam/Variable_5": (1,)}

    (found,) = describe_checkpoint(shapes, ["a/kernel", "a/bias"])

    assert found.slots == {
        "a/kernel": {
            "m": "training/Adam/Variable",
            "v": "training/Adam/Variable_2",
        },
        "a/bias": {"m": "training/Adam/Variable_1", "v": "training/Adam/Variable_3"},
    }
    (unknown,) = describe_checkpoint(shapes)
    assert unknown.slots == {}
    assert "do not follow the order" in unknown.notes[-1]


def test_takes_the_step_from_powers_that_agree():
    (found,) = describe_checkpoint(
        variables(minimized(v1.train.AdamOptimizer(), steps=False))
    )
    powers = {"beta1_power": np.float32(0.9**6), "beta2_power": np.float32(0.999**6)}

    assert found.steps(powers) == 5
    assert found.steps(powers | {"beta1_power": np.float32(0.8**6)}) is None


def test_a_checkpoint_without_slots_has_no_optimizer():
    assert describe_checkpoint({"w": (2,), "global_step": ()}) == []
