"""Steps are traced as they are, and nothing of the model changes by it."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers

from keras_metagraph.errors import ExportError
from keras_metagraph.export.trace import trace_function, trace_predict, trace_step

X = tf.TensorSpec([None, 3], tf.float32)
Y = tf.TensorSpec([None, 2], tf.float32)


def compiled(*inner, **arguments):
    model = keras.Sequential([keras.Input((3,)), *inner, layers.Dense(2)])
    model.compile("adam", "mse", **arguments)
    model.optimizer.build(model.trainable_variables)
    return model


def values_of(model):
    held = [*model.variables, *model.optimizer.variables, *model.metrics_variables]
    return [v.numpy() for v in held]


def test_predict_returns_the_tensor_of_the_last_layer():
    model = compiled(layers.Dense(4, activation="relu"))
    trace = trace_predict(model, X)
    (output,) = trace.outputs
    assert output.path == ()
    assert output.tensors[0].endswith("dense_1>1/BiasAdd:0")
    assert output.spec.shape.as_list() == [None, 2]
    assert len(trace.arguments) == 1
    assert {id(h) for _, h in trace.captures} == {
        id(v.value.handle) for v in model.weights
    }


def test_tracing_changes_no_variable():
    model = compiled(layers.BatchNormalization(), layers.Dropout(0.5), metrics=["mae"])
    model.fit(np.ones((4, 3)), np.ones((4, 2)), verbose=0)
    before = values_of(model)
    function = model.train_function
    trace_predict(model, X)
    trace_step(model, "train_step", (X, Y, None))
    trace_step(model, "test_step", (X, Y, tf.TensorSpec([None], tf.float32)))
    for old, new in zip(before, values_of(model), strict=True):
        np.testing.assert_array_equal(old, new)
    assert model.train_function is function
    assert "compute_loss" not in vars(model)
    assert all("update_state" not in vars(metric) for metric in model.metrics)


def test_the_loss_is_that_of_the_batch_with_regularization():
    model = compiled(layers.Dense(4, kernel_regularizer="l2"))
    trace = trace_step(model, "train_step", (X, Y, None))
    logged = {output.path[0]: output.tensors for output in trace.outputs}
    assert set(logged) == {"loss"}
    assert trace.loss.tensors != logged["loss"]
    assert trace.loss.spec.shape.rank == 0
    ops = {trace.graph.nodes[name].op for name in trace.effects}
    assert "ResourceApplyAdam" in ops


@pytest.mark.parametrize("name", ["loss", "total_loss"])
def test_the_loss_of_an_own_train_step_is_what_its_metric_is_fed(name):
    class Own(keras.Model):
        def __init__(self):
            super().__init__()
            self.body = layers.Dense(2)
            self.other = keras.metrics.Mean(name="other")
            self.mean = keras.metrics.Mean(name=name)

        def call(self, x):
            return self.body(x)

        def train_step(self, data):
            x, y = data
            losses = keras.ops.mean((self(x) - y) ** 2, axis=-1)
            self.mean.update_state(losses)
            self.other.update_state(keras.ops.sum(losses))
            return {"loss": self.mean.result(), "other": self.other.result()}

    model = Own()
    model(np.ones((1, 3), "float32"))
    model.compile("sgd")
    trace = trace_step(model, "train_step", (X, Y))
    assert trace.graph.nodes[trace.loss.tensors[0].split(":")[0]].op == "Mean"


def test_without_a_metric_the_log_is_the_loss():
    class Own(keras.Model):
        def call(self, x):
            return x

        def train_step(self, data):
            return {"loss": keras.ops.sum(data[0]), "other": 3.0}

    model = Own()
    model.compile("sgd")
    trace = trace_step(model, "train_step", (X,))
    logged = {output.path[0]: output.tensors for output in trace.outputs}
    assert trace.loss.tensors == logged["loss"]
    assert set(logged) == {"loss", "other"}


def test_what_does_not_run_in_a_graph_is_named():
    class Eager(keras.Model):
        def call(self, x):
            return x * float(x[0, 0])

    with pytest.raises(ExportError, match="Tracing the call of model 'eager'") as info:
        trace_predict(Eager(), X)
    assert info.value.__cause__ is not None
    assert "inputs=tf.TensorSpec" in info.value.fix
    assert len(info.value.findings) == 1  # the spec that was taken for its input


def test_a_tf_function_that_does_not_run_is_named():
    function = tf.function(lambda x: x.numpy(), input_signature=[X])
    with pytest.raises(ExportError, match="Tracing signature 'raw' failed"):
        trace_function(function, "raw")


def test_text_that_was_taken_for_numbers_is_named():
    class Words(keras.Model):
        def __init__(self):
            super().__init__()
            self.lookup = layers.StringLookup(vocabulary=["a"])

        def call(self, x):
            return self.lookup(x)

    model = Words()

    with pytest.raises(ExportError, match="text and numbers") as caught:
        trace_predict(model, tf.TensorSpec([None, 1], tf.float32))
    trace_predict(model, tf.TensorSpec([None, 1], tf.string))

    assert any("string_lookup" in finding for finding in caught.value.findings)


def test_a_model_whose_call_takes_no_training_is_traced():
    class Plain(keras.Model):
        def call(self, x):
            return {"twice": 2 * x, "same": x}

    trace = trace_predict(Plain(), X)
    assert [output.path for output in trace.outputs] == [("same",), ("twice",)]
    assert trace.outputs[0].tensors[0].split(":")[0] in trace.arguments


def test_a_signature_function_brings_the_names_of_its_arguments():
    weight = tf.Variable(2.0)

    @tf.function(input_signature=[tf.TensorSpec([None], name="value")])
    def double(value):
        return {"doubled": weight * value}

    specs, trace = trace_function(double, "double")
    assert list(specs) == ["value"]
    assert [output.path for output in trace.outputs] == [("doubled",)]
    # The call is inlined.
    assert all("PartitionedCall" not in n.op for n in trace.graph.nodes.values())


@pytest.mark.parametrize("function", [tf.function(lambda x: x), len])
def test_a_function_that_does_not_say_what_it_takes_is_refused(function):
    with pytest.raises(ExportError, match="To fix"):
        trace_function(function, "f")
