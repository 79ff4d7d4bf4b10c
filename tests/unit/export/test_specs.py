"""Inputs, labels and sample weights are found, and named."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers

from keras_metagraph import export_meta_graph
from keras_metagraph.errors import ExportError
from keras_metagraph.export.specs import (
    input_specs,
    label_specs,
    seen_data,
    sees_bare_data,
    step_input_specs,
    to_spec,
    watch_data,
)


class Net(keras.Model):
    """A subclassed model, that only knows what it was called on."""

    def __init__(self):
        super().__init__()
        self.body = layers.Dense(2)

    def call(self, batch):
        return self.body(batch["a"] if isinstance(batch, dict) else batch)


def flat(structure):
    return [
        (leaf.name, leaf.spec.shape.as_list(), leaf.spec.dtype.name)
        for leaf in tf.nest.flatten(structure)
        if leaf is not None
    ]


def test_inputs_have_the_names_of_keras():
    a, b = keras.Input((3,), name="a"), keras.Input((2,), dtype="int32", name="b")
    model = keras.Model(
        [a, b], layers.Concatenate()([a, layers.Embedding(4, 2)(b)[:, 0]])
    )
    assert flat(input_specs(model)) == [
        ("a", [None, 3], "float32"),
        ("b", [None, 2], "int32"),
    ]


def test_inputs_in_a_dict_have_the_names_of_its_keys():
    a, b = keras.Input((3,), name="a"), keras.Input((3,), name="b")
    model = keras.Model({"b": b, "a": a}, layers.Add()([a, b]))
    specs = input_specs(model)
    assert set(specs) == {"a", "b"}
    assert specs["b"].name == "b"


def test_unnamed_inputs_have_the_names_of_their_layers():
    x = keras.Input((3,))
    assert flat(input_specs(keras.Model(x, x)))[0][0] == "input_layer"
    model = keras.Sequential([layers.Dense(2)])
    model(np.ones((5, 3), "float32"))
    # The batch size of the first call is no property of the model.
    assert flat(input_specs(model)) == [("input_layer", [None, 3], "float32")]


def test_a_fixed_batch_size_stays_where_the_user_gave_it():
    x = keras.Input((3,), batch_size=4, name="x")
    assert flat(input_specs(keras.Model(x, x))) == [("x", [4, 3], "float32")]


def test_a_subclassed_model_tells_by_what_it_was_called_on():
    model = Net()
    with pytest.raises(ExportError, match="has never seen data"):
        input_specs(model)
    model(np.ones((2, 3), "float32"))
    assert flat(input_specs(model)) == [("batch", [None, 3], "float32")]
    given = {"a": tf.TensorSpec([None, 3], tf.int32)}
    assert flat(input_specs(model, given)) == [("a", [None, 3], "int32")]


def test_a_model_without_call_tells_by_what_its_step_saw():
    class Steps(keras.Model):
        def train_step(self, data):
            return {"loss": keras.ops.sum(data[0])}

    model = Steps()
    model.compile()
    model.train_on_batch(np.ones((2, 3), "float32"))  # builds it, without a shape
    with pytest.raises(ExportError, match="has no `call`"):
        input_specs(model)
    watch_data(model)
    model.fit(np.ones((2, 3), "float32"), verbose=0)
    assert flat(input_specs(model)) == [("inputs", [None, 3], "float32")]


@pytest.mark.parametrize(
    ("value", "shape", "dtype"),
    [
        (np.zeros((2, 3), "int32"), [2, 3], "int32"),
        (keras.InputSpec(shape=(None, 3), dtype="float32"), [None, 3], "float32"),
        (3, [], "int64"),
    ],
)
def test_specs_are_made_of_what_has_shape_and_dtype(value, shape, dtype):
    spec = to_spec(value)
    assert (spec.shape.as_list(), spec.dtype.name) == (shape, dtype)


def test_sparse_and_ragged_tensors_have_their_own_specs():
    sparse = tf.sparse.from_dense([[0, 1]])
    ragged = tf.ragged.constant([[1], [2, 3]])
    assert isinstance(to_spec(sparse), tf.SparseTensorSpec)
    assert isinstance(to_spec(ragged), tf.RaggedTensorSpec)
    assert isinstance(to_spec(keras.Input((3,), sparse=True)), tf.SparseTensorSpec)


def test_what_has_no_shape_is_refused():
    with pytest.raises(ExportError, match="shape and a dtype"):
        to_spec(object())


@pytest.mark.parametrize(
    ("loss", "shape", "dtype"),
    [
        ("mse", [None, 4], "float32"),
        ("sparse_categorical_crossentropy", [None], "int64"),
        (keras.losses.SparseCategoricalCrossentropy(), [None], "int64"),
        (keras.losses.sparse_categorical_crossentropy, [None], "int64"),
        (lambda y, p: keras.ops.mean(y - p), [None, 4], "float32"),
    ],
)
def test_labels_follow_from_the_loss(loss, shape, dtype):
    model = keras.Sequential([keras.Input((3,)), layers.Dense(4)])
    model.compile("sgd", loss)
    outputs = tf.TensorSpec([None, 4], tf.float16)
    labels, weights = label_specs(model, "train_step", outputs)
    assert flat(labels) == [("labels", shape, dtype)]
    assert weights is None


def test_labels_of_several_outputs_are_named_after_them():
    x = keras.Input((3,))
    model = keras.Model(x, [layers.Dense(2, name="p")(x), layers.Dense(1, name="q")(x)])
    model.compile("sgd", {"p": "sparse_categorical_crossentropy", "q": "mse"})
    outputs = [tf.TensorSpec([None, 2]), tf.TensorSpec([None, 1])]
    labels, _ = label_specs(model, "train_step", outputs)
    assert flat(labels) == [
        ("labels/p", [None], "int64"),
        ("labels/q", [None, 1], "float32"),
    ]


def test_an_output_without_loss_has_no_label():
    x = keras.Input((3,))
    model = keras.Model(x, [layers.Dense(2, name="p")(x), layers.Dense(1, name="q")(x)])
    model.compile("sgd", [None, "mse"])
    outputs = [tf.TensorSpec([None, 2]), tf.TensorSpec([None, 1])]
    labels, _ = label_specs(model, "train_step", outputs)
    assert labels[0] is None
    assert labels[1].name == "labels/q"


def test_what_fit_saw_comes_before_what_the_loss_says():
    model = keras.Sequential([keras.Input((3,)), layers.Dense(1)])
    model.compile("sgd", "mse")
    watch_data(model)
    model.fit(np.ones((4, 3)), np.ones(4, "int32"), sample_weight=np.ones(4), verbose=0)
    labels, weights = label_specs(model, "train_step", tf.TensorSpec([None, 1]))
    assert flat(labels) == [("labels", [None], "int32")]
    assert flat(weights) == [("sample_weight", [None], "float32")]
    # What `evaluate` takes has the same labels, and no weights that it never saw.
    labels, weights = label_specs(model, "test_step", tf.TensorSpec([None, 1]))
    assert flat(labels) == [("labels", [None], "int32")]
    assert weights is None


def test_arguments_come_before_what_fit_saw():
    model = keras.Sequential([keras.Input((3,)), layers.Dense(1)])
    model.compile("sgd", "mse")
    watch_data(model)
    model.fit(np.ones((4, 3)), np.ones(4), sample_weight=np.ones(4), verbose=0)
    labels, weights = label_specs(
        model,
        "train_step",
        tf.TensorSpec([None, 1]),
        tf.TensorSpec([None, 1], tf.float64),
        False,
    )
    assert flat(labels) == [("labels", [None, 1], "float64")]
    assert weights is None
    _, weights = label_specs(model, "test_step", None, labels.spec, True)
    assert flat(weights) == [("sample_weight", [None], "float32")]


def test_watching_changes_nothing_but_the_next_trace():
    model = keras.Sequential([keras.Input((3,)), layers.Dense(1)])
    model.compile("sgd", "mse")
    model.fit(np.ones((4, 3)), np.ones(4), verbose=0)
    assert seen_data(model, "train_step") is None
    watch_data(model)
    model.fit(np.ones((4, 3)), np.ones(4), verbose=0)
    assert seen_data(model, "train_step") is not None
    assert "train_step" not in vars(model)
    function = model.train_function
    watch_data(model)
    assert model.train_function is function


def test_a_step_may_take_other_data_than_the_call():
    class Pretraining(Net):
        def train_step(self, data):
            x = data[0] if isinstance(data, tuple) else data
            return {"loss": keras.ops.mean(self(x[:, :3])) * 0}

    model = Pretraining()
    model(np.ones((2, 3), "float32"))
    model.compile("sgd")
    watch_data(model)
    model.fit(np.ones((4, 7), "float32"), verbose=0)
    inputs = input_specs(model)
    assert flat(inputs) == [("batch", [None, 3], "float32")]
    assert flat(step_input_specs(model, "train_step", inputs)) == [
        ("train_step_input", [None, 7], "float32")
    ]
    assert step_input_specs(model, "test_step", inputs) is inputs


def test_a_step_on_a_dataset_without_labels_takes_its_inputs_bare():
    class Steps(keras.Model):
        def train_step(self, images):
            return {"loss": keras.ops.sum(images.shape[-1] * images)}

    x = np.ones((2, 3), "float32")
    model, spec = Steps(), tf.TensorSpec([None, 3])
    model.compile()
    train = {"graphs": ("train",), "inputs": spec}
    assert sees_bare_data(model, "train_step") is None
    signatures = export_meta_graph(model, **train).signature_def  # finds it out
    assert list(signatures["train"].inputs) == ["inputs"]
    watch_data(model)
    model.fit(tf.data.Dataset.from_tensors(x), shuffle=False, verbose=0)
    assert sees_bare_data(model, "train_step") is True
    assert list(export_meta_graph(model, **train).signature_def) == ["train"]
    watched = Net()
    watch_data(watched)
    watched.compile("sgd", "mse")
    watched.fit(x, np.ones((2, 2)), verbose=0)
    assert sees_bare_data(watched, "train_step") is False


def test_a_call_may_take_all_parts_of_a_batch():
    class Triplets(keras.Model):
        def __init__(self):
            super().__init__()
            self.body = layers.Dense(2)

        def call(self, inputs):
            return sum(self.body(each) for each in inputs)

        def train_step(self, data):
            return {"loss": keras.ops.sum(self(data))}

    model, x = Triplets(), np.ones((2, 3), "float32")
    model((x, x, x))
    model.compile("sgd")
    watch_data(model)
    triplets = tf.data.Dataset.from_tensors((x, x, x[:, :3]))
    model.fit(triplets, shuffle=False, verbose=0)
    signatures = export_meta_graph(model).signature_def
    assert len(signatures["serving_default"].inputs) == 3
    assert len(signatures["train"].inputs) == 3


def test_a_dataset_of_dicts_feeds_a_list_of_inputs():
    a, b = keras.Input((3,), name="a"), keras.Input((3,), name="b")
    hidden = layers.Dense(2, activity_regularizer="l2")(layers.Add()([a, b]))
    model = keras.Model([a, b], hidden)
    model.compile("sgd")
    watch_data(model)
    x = np.ones((2, 3), "float32")
    dicts = tf.data.Dataset.from_tensors({"a": x, "b": x})
    model.fit(dicts, shuffle=False, verbose=0)
    signatures = export_meta_graph(model).signature_def
    assert set(signatures["train"].inputs) == {"a", "b"}
