"""What a trace captures from outside becomes nodes that hold it."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers

from keras_metagraph.errors import ExportError
from keras_metagraph.export.captures import bind_captures, further_variables
from keras_metagraph.export.names import handles_of, named_variables
from keras_metagraph.export.trace import trace_predict
from keras_metagraph.export.variables import add_variable
from keras_metagraph.graph.ir import Graph

X = tf.TensorSpec([None, 3], tf.float32)


class Calls(layers.Layer):
    """A layer that calls a function."""

    def __init__(self, function, **arguments):
        super().__init__(**arguments)
        self.function = function

    def call(self, x):
        return self.function(x)


def bound(function, spec=X):
    """The flat graph of a model that calls a function, and what it captured."""
    inputs = keras.Input(spec.shape[1:], dtype=spec.dtype.name)
    model = keras.Model(inputs, Calls(function, name="own")(inputs), name="net")
    trace = trace_predict(model, spec)
    others = further_variables([trace], named_variables(model))
    variables = named_variables(model, others)
    graph = Graph()
    for variable in variables:
        add_variable(graph, variable)
    return graph, bind_captures(graph, [trace], variables, "net"), trace, variables


def test_a_variable_that_no_layer_owns_is_found():
    weight = tf.Variable(2.0, name="alone")
    graph, captured, trace, variables = bound(lambda x: x * weight)
    assert [(v.name, v.role) for v in variables] == [("alone", "other")]
    assert [str(t) for t in captured.of(trace).values()] == ["alone:0"]
    assert "alone/Assign" in graph.nodes


def test_a_small_tensor_is_a_constant_and_a_large_one_a_variable():
    small, large = tf.constant([1.0, 2.0, 3.0]), tf.ones((200_000, 3))
    _, captured, trace, variables = bound(lambda x: x * small + tf.gather(large, [0]))
    assert sorted(str(t) for t in captured.of(trace).values()) == [
        "captured/tensor_0:0",
        "own/mul/Const:0",
    ]
    (found,) = variables
    assert (found.role, found.trainable) == ("other", False)
    assert np.asarray(found.variable).shape == (200_000, 3)


def test_a_table_is_filled_by_its_initializer():
    table = tf.lookup.StaticHashTable(
        tf.lookup.KeyValueTensorInitializer(["a", "b"], [3, 4]), -1
    )
    spec = tf.TensorSpec([None, 2], tf.string)
    graph, captured, _, _ = bound(table.lookup, spec)
    (table,) = captured.tables
    assert table.initializer == "own/table/LookupTableImportV2"
    assert table.file is None
    assert graph.nodes["own/table"].op == "HashTableV2"
    keys = tf.make_ndarray(graph.nodes["own/table/keys"].attrs["value"].tensor)
    assert sorted(keys.tolist()) == [b"a", b"b"]


def test_a_table_that_is_used_inside_of_a_branch_is_found():
    table = tf.lookup.StaticHashTable(
        tf.lookup.KeyValueTensorInitializer([1, 2], [3, 4]), -1
    )
    spec = tf.TensorSpec([None], tf.int32)
    _, captured, _, _ = bound(
        lambda x: tf.cond(tf.size(x) > 1, lambda: table.lookup(x), lambda: x), spec
    )
    assert len(captured.tables) == 1


def test_a_table_that_the_graph_changes_is_mutable():
    table = tf.lookup.experimental.MutableHashTable(tf.int32, tf.int32, -1)
    table.insert(tf.constant([1]), tf.constant([5]))

    def remember(x):
        table.insert(x, x)
        return tf.ensure_shape(table.lookup(x), [None])

    graph, _, _, _ = bound(remember, tf.TensorSpec([None], tf.int32))
    assert graph.nodes["own/table"].op == "MutableHashTableV2"


def test_what_a_graph_cannot_hold_is_named_with_its_layer():
    iterator = iter(tf.data.Dataset.range(3).repeat())
    with pytest.raises(
        ExportError, match="neither variables nor lookup tables"
    ) as info:
        bound(lambda x: x + tf.cast(next(iterator), tf.float32))
    assert info.value.findings[0].startswith("in own")


def test_handles_of_both_kinds_of_variables():
    variable = keras.Variable(1.0)
    assert list(handles_of(variable)) == [variable.value.handle]
    assert list(handles_of(variable.value)) == [variable.value.handle]
