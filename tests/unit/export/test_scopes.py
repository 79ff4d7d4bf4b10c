"""Node names are those of layers."""

import keras
import numpy as np
import tensorflow as tf
from keras import layers

from keras_metagraph.export.scopes import MarkedNames, layer_of, plain_names


def trace_names(function):
    """Node names of a function that is traced with marked names."""

    @tf.function(autograph=False)
    def traced(x):
        MarkedNames(tf.compat.v1.get_default_graph())
        return function(x)

    graph = traced.get_concrete_function(tf.TensorSpec([None, 3])).graph
    return [op.name for op in graph.get_operations() if "/" in op.name]


def test_a_layer_called_twice_and_a_numbered_layer_stay_apart():
    first, second = layers.Dense(3, name="dense"), layers.Dense(3, name="dense_1")
    first.build((None, 3))
    second.build((None, 3))
    names = trace_names(lambda x: second(first(first(x))))
    products = [name for name in names if name.endswith("MatMul")]
    assert [layer_of(name, "") for name in products] == ["dense", "dense", "dense_1"]
    renamed = plain_names(products, "net", "", set())
    assert list(renamed.values()) == [
        "dense/MatMul",
        "dense/MatMul_1",
        "dense_1/MatMul",
    ]


def test_names_in_a_marked_graph_are_unique():
    def body(x):
        for _ in range(3):
            with tf.name_scope("Scope"), tf.name_scope("scope"):
                x = tf.identity(x, name="y") + tf.identity(x, name="Y")
        return x

    names = trace_names(body)
    assert len({name.lower() for name in names}) == len(names)


def test_asking_for_a_free_name_does_not_take_it():
    graph = tf.Graph()
    unique = MarkedNames(graph)
    assert unique("a", mark_as_used=False) == "a"
    assert unique("a") == "a"
    assert unique("a", mark_as_used=False) == "a>1"
    assert unique("a") == "a>1"


def test_the_scope_of_the_model_is_cut_off_also_behind_gradients():
    names = ["net>1/dense>1/MatMul", "gradient_tape/net>1/dense>1/MatMul/MatMul"]
    assert plain_names(names, "net", "train/", set()) == {
        names[0]: "train/dense/MatMul",
        names[1]: "train/gradient_tape/dense/MatMul/MatMul",
    }


def test_taken_names_are_not_given_again():
    taken = {"dense/kernel"}
    assert plain_names(["dense/Kernel"], "net", "", taken) == {
        "dense/Kernel": "dense/Kernel_1"
    }
    assert "dense/kernel_1" in taken


def test_a_model_traced_under_its_own_name_loses_it():
    model = keras.Sequential([keras.Input((3,)), layers.Dense(2)], name="net")
    model(np.ones((1, 3), "float32"))
    names = trace_names(model)
    assert plain_names(names, "net", "", set())[names[-1]].startswith("dense/")
