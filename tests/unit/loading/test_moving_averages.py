"""Moving averages are found by what a graph computes, and by names only without one."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_metagraph import load_from_meta_graph, save_meta_graph
from keras_metagraph.errors import MissingVariableError
from keras_metagraph.formats.registry import open_export
from keras_metagraph.graph.from_proto import graph_from_proto
from keras_metagraph.graph.passes import repair
from keras_metagraph.graph.variables import graph_variables
from keras_metagraph.loading.moving_averages import (
    find_moving_averages,
    shadow_key,
)

v1 = tf.compat.v1


@pytest.fixture
def exported(tmp_path):
    """`exported(...)`: a graph that trains with moving averages; returns its prefix."""

    def save(resource=False, num_updates=False, name=None, apply=True, only_w=False):
        with tf.Graph().as_default(), v1.Session() as session:
            x = v1.placeholder(tf.float32, [None, 2], "x")
            with v1.variable_scope("net", use_resource=resource):
                w = v1.get_variable("w", [2, 3])
                b = v1.get_variable("b", [3])
                mean = v1.get_variable("mean", [3], trainable=False)
            hidden = tf.matmul(x, w) + b
            y = tf.identity(hidden - mean, "y")
            with v1.variable_scope("", use_resource=resource):
                step = v1.train.get_or_create_global_step()
            train = v1.train.GradientDescentOptimizer(0.1).minimize(
                tf.reduce_mean(y**2), step
            )
            # What batch normalization does; it averages no variable.
            decayed = (mean - tf.reduce_mean(hidden, 0)) * 0.1
            with tf.control_dependencies([train, v1.assign_sub(mean, decayed)]):
                average = tf.train.ExponentialMovingAverage(
                    0.75,
                    step if num_updates else None,
                    **({"name": name} if name else {}),
                )
                if apply:
                    average.apply([w] if only_w else [w, b])
            own = [w, b, mean, step]
            session.run(v1.variables_initializer(own))
            shadows = [v for v in v1.global_variables() if all(v is not o for o in own)]
            session.run(v1.variables_initializer(shadows))
            updates = [
                op
                for op in tf.compat.v1.get_default_graph().get_operations()
                if op.type.startswith("AssignSub")
            ]
            session.run(updates, {x: np.ones((4, 2), "float32")})
            v1.train.Saver().save(session, str(tmp_path / "model"))
        return str(tmp_path / "model")

    return save


def found(prefix, repaired):
    meta = open_export(prefix).select()
    graph = graph_from_proto(meta.graph_def)
    variables = graph_variables(meta, graph)
    return find_moving_averages(repair(graph) if repaired else graph, variables)


@pytest.mark.parametrize("repaired", [False, True])
@pytest.mark.parametrize("resource", [False, True])
@pytest.mark.parametrize("num_updates", [False, True])
def test_shadows_and_decay(exported, resource, num_updates, repaired):
    averages = found(exported(resource, num_updates, "slow"), repaired)

    assert averages.shadows == {"net/w": "net/w/slow", "net/b": "net/b/slow"}
    assert averages.decay == 0.75
    assert averages.counted == num_updates


def test_a_graph_without_any(exported):
    averages = found(exported(apply=False), False)

    assert averages.shadows == {}
    assert averages.decay is None


@pytest.mark.parametrize("name", [None, "slow"])
def test_trained_variables_are_restored_from_their_shadows(exported, name):
    prefix = exported(name=name)
    reader = tf.train.load_checkpoint(prefix)

    model = load_from_meta_graph(prefix, ema=True)

    variables = model.meta_graph.variables
    suffix = name or "ExponentialMovingAverage"
    for variable in ("net/w", "net/b"):
        shadow = reader.get_tensor(f"{variable}/{suffix}")
        assert not np.array_equal(shadow, reader.get_tensor(variable))
        np.testing.assert_array_equal(variables[variable].numpy(), shadow)
    mean = reader.get_tensor("net/mean")
    np.testing.assert_array_equal(variables["net/mean"].numpy(), mean)


@pytest.mark.parametrize("only_w", [False, True])
def test_variables_without_shadows_are_named(exported, only_w):
    prefix = exported(apply=only_w, only_w=only_w)

    with pytest.raises(MissingVariableError) as caught:
        load_from_meta_graph(prefix, ema=True)

    names = [finding.partition(" ")[0] for finding in caught.value.findings]
    assert names == (["net/b"] if only_w else ["net/w", "net/b"])


def test_own_files_have_the_averages_of_use_ema(tmp_path):
    model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(2, name="d")])
    model.compile(keras.optimizers.SGD(0.1, use_ema=True, ema_momentum=0.5), "mse")
    for _ in range(3):  # `fit` would put the averages into the weights at its end.
        model.train_on_batch(np.ones((4, 3)), np.ones((4, 2)))
    prefix = save_meta_graph(model, tmp_path / "m", 0)
    reader = tf.train.load_checkpoint(prefix)

    loaded = load_from_meta_graph(prefix, ema=True)

    for weight in loaded.weights:
        name = f"{weight.path.partition('/')[2]}/ExponentialMovingAverage"
        np.testing.assert_array_equal(weight.numpy(), reader.get_tensor(name))
        assert not np.array_equal(
            weight.numpy(), reader.get_tensor(name.rpartition("/")[0])
        )


@pytest.mark.parametrize(
    ("key", "keys", "expected"),
    [
        ("w", ["w", "w/ExponentialMovingAverage"], "w/ExponentialMovingAverage"),
        ("w", ["w", "t/w/ExponentialMovingAverage"], "t/w/ExponentialMovingAverage"),
        (
            "w/ExponentialMovingAverage",
            ["w/ExponentialMovingAverage"],
            "w/ExponentialMovingAverage",
        ),
        ("w", ["w", "v/ExponentialMovingAverage"], None),
        (
            "w",
            ["a/w/ExponentialMovingAverage", "b/w/ExponentialMovingAverage"],
            None,
        ),
    ],
)
def test_names_of_shadows(key, keys, expected):
    assert shadow_key(key, keys) == expected
