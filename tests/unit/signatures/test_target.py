"""Models, methods and functions by the keys of what they take and give."""

import typing

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers

import keras_metagraph as kmg
from keras_metagraph.errors import SignatureError

X = np.ones((2, 3), "float32")
SPEC = tf.TensorSpec([None, 3], tf.float32)


class Pair(keras.Model):
    """A model with methods beside its call."""

    def __init__(self):
        super().__init__()
        self.dense = layers.Dense(2)
        self.drop = layers.Dropout(0.9)

    def call(self, features, training=False):
        return self.drop(self.dense(features), training=training)

    def encode(self, x, training=True):
        return {"code": [self.dense(x), tf.cast(training, tf.float32)]}

    def joined(self, left, right):
        return left["a"] + left["b"] + right

    @tf.function(input_signature=[tf.TensorSpec([None, 3], tf.float32, name="rows")])
    def positive(self, x):
        return self.dense(x) if tf.reduce_sum(x) > 0 else tf.zeros([1, 2])

    def many(self, *args):
        return args[0]


@pytest.fixture
def pair():
    model = Pair()
    model(X)
    return model


def test_a_model_has_the_keys_of_its_default_signature(pair):
    inputs = {"a": keras.Input((3,), name="a"), "b": keras.Input((3,), name="b")}
    named = keras.Model(inputs, {"sum": layers.Add()(list(inputs.values()))})
    models = [
        keras.Sequential([keras.Input((3,), name="x"), layers.Dense(1, name="d")]),
        named,
        keras.Model(
            list(inputs.values()), layers.Add(name="total")(list(inputs.values()))
        ),
        pair,
    ]
    for model in models:
        signature = kmg.predict_signature(model)
        default = kmg.export_meta_graph(model).signature_def["serving_default"]
        assert set(signature.inputs) == set(default.inputs)
        values = dict.fromkeys(signature.inputs, X)
        assert set(signature(values)) == set(default.outputs)


def test_a_model_predicts_and_does_not_train(pair):
    np.testing.assert_allclose(kmg.predict_signature(pair)(X)["output"], pair(X))


def test_new_keys_for_inputs_and_outputs():
    a, b = keras.Input((3,), name="a"), keras.Input((3,), name="b")
    hidden = layers.Subtract(name="hidden")([a, b])
    model = keras.Model([a, b], [layers.Dense(1, name="top")(hidden), hidden])
    by_tensor = kmg.predict_signature(
        model, {"right": b, "left": a}, {"features": hidden, "score": model.outputs[0]}
    )
    by_key = kmg.predict_signature(model, outputs={"score": "top"})
    in_order = kmg.predict_signature(model, outputs=["score", "features"])

    values = by_tensor(left=3 * X, right=X)
    np.testing.assert_array_equal(values["features"], 2 * X)
    top = model([3 * X, X])[0]
    for found in (values, by_key(a=3 * X, b=X), in_order(3 * X, X)):
        np.testing.assert_allclose(found["score"], top)


def test_keys_of_a_method(pair):
    encode = kmg.predict_signature(pair.encode, SPEC)
    joined = kmg.predict_signature(
        pair.joined, [{"a": SPEC, "b": SPEC}, tf.TensorSpec([3], tf.float32)]
    )
    keyed = kmg.predict_signature(
        pair.joined, {"right": SPEC, "left": {"a": SPEC, "b": SPEC}}
    )
    many = kmg.predict_signature(pair.many, SPEC)
    named = kmg.predict_signature(
        pair.encode, tf.TensorSpec([None, 3], tf.float32, name="given")
    )

    assert list(encode.inputs) == ["x"]
    values = encode(X)
    assert set(values) == {"code_0", "code_1"}
    assert values["code_1"] == 0.0  # not training
    assert list(joined.inputs) == ["a", "b", "right"]
    np.testing.assert_array_equal(joined(X, X, X[0])["output"], 3 * X)
    np.testing.assert_array_equal(keyed(a=X, b=X, right=X)["output"], 3 * X)
    assert list(many.inputs) == ["input"]
    assert list(named.inputs) == ["given"]


def test_a_tf_function_knows_what_it_takes(pair):
    signature = kmg.predict_signature(pair.positive)
    concrete = kmg.predict_signature(pair.positive.get_concrete_function())

    for each in (signature, concrete):
        assert list(each.inputs) == ["rows"]
        np.testing.assert_allclose(each(X)["output"], pair.dense(X), rtol=1e-6)
        assert each(-X)["output"].tolist() == [[0, 0]]


def test_what_says_nothing_is_refused(pair):
    with pytest.raises(SignatureError, match="'encode' does not say what it takes"):
        kmg.predict_signature(pair.encode)
    with pytest.raises(SignatureError, match=r"keras.Model or a function"):
        kmg.predict_signature(3, SPEC)
    named = tf.TensorSpec([3], tf.float32, name="x")
    with pytest.raises(SignatureError, match="have the same name: 'x'"):
        kmg.predict_signature(pair.joined, [named, named])


def test_outputs_that_are_not_there():
    x = keras.Input((3,))
    model = keras.Model(x, layers.Dense(1, name="score")(x))
    with pytest.raises(SignatureError, match=r"no output 'scores'; nearest: score"):
        kmg.predict_signature(model, outputs={"y": "scores"})
    with pytest.raises(SignatureError, match=r"has the outputs \['score'\]"):
        kmg.predict_signature(model, outputs=["a", "b"])


def test_outputs_with_one_key_are_refused():
    def twice(x):
        return {"a": [x], "a_0": x}

    with pytest.raises(SignatureError, match="same key: 'a_0'"):
        kmg.predict_signature(twice, SPEC)(X)


def test_an_output_may_be_an_input():
    model = keras.Sequential([keras.Input((3,)), layers.Dense(1)])
    signature = kmg.predict_signature(lambda x: {"x": x, "y": 2.0 * x}, SPEC)
    meta_graph_def = kmg.export_meta_graph(model, signatures={"same": signature})

    same = meta_graph_def.signature_def["same"]
    assert same.outputs["x"].name != same.inputs["x"].name


@pytest.mark.parametrize("kind", [keras.Sequential, keras.Model])
def test_parts_of_a_model_between_any_tensors(kind):
    x = keras.Input((3,), name="x")
    hidden, last = layers.Dense(4), layers.Dense(2)
    if kind is keras.Sequential:
        model = keras.Sequential([x, hidden, last])
    else:
        model = keras.Model(x, last(hidden(x)))
    start, end = model.inputs[0], model.outputs[0]

    whole = kmg.predict_signature(model, {"rows": start}, {"h": hidden.output})
    tail = kmg.predict_signature(model, {"h": hidden.output}, {"y": end})

    codes = whole(rows=X)["h"]
    np.testing.assert_array_equal(codes, hidden(X))
    np.testing.assert_array_equal(tail(h=codes)["y"], model(X))


@pytest.mark.parametrize(
    "arguments",
    [
        {"inputs": {"rows": SPEC}},
        {"outputs": keras.Input((2,))},
        {"outputs": [keras.Input((2,))]},
        {"outputs": {"y": keras.Input((2,))}},
        {"outputs": {"y": keras.Input((2,)), "z": "dense"}},
    ],
)
def test_what_is_not_of_the_model_is_refused(arguments):
    model = keras.Sequential([keras.Input((3,)), layers.Dense(1, name="dense")])
    with pytest.raises(SignatureError):
        kmg.predict_signature(model, **arguments)


def test_loops_of_keras_have_no_graph(pair):
    for method in (pair.predict, pair.predict_on_batch, pair.fit):
        with pytest.raises(SignatureError, match="pass the model itself"):
            kmg.predict_signature(method, SPEC)


def test_texts_are_no_specs(pair):
    with pytest.raises(SignatureError, match="no texts"):
        kmg.predict_signature(pair.encode, "x")


def test_a_layer_has_the_keys_of_its_call():
    dense = layers.Dense(2)
    signature = kmg.predict_signature(dense, {"inputs": SPEC})
    np.testing.assert_array_equal(signature(inputs=X)["output"], dense(X))


def test_fields_of_named_tuples_are_keys():
    class Scores(typing.NamedTuple):
        logits: typing.Any
        extra: typing.Any

    class Fields(keras.Model):
        """Takes and gives named tuples."""

        def call(self, x):
            return Scores(x.extra, {"deep": x.logits})

    spec = tf.TensorSpec([None], tf.float32)
    signature = kmg.predict_signature(Fields(), Scores(spec, spec))
    found = signature(logits=[1.0], extra=[2.0])
    assert {k: v.tolist() for k, v in found.items()} == {
        "logits": [2],
        "extra_deep": [1],
    }


def test_specs_name_the_inputs_of_a_model(pair):
    model = keras.Sequential([keras.Input((3,), name="x"), layers.Dense(1)])
    for target in (model, pair):
        named = tf.TensorSpec([None, 3], tf.float32, name="rows")
        assert list(kmg.predict_signature(target, named).inputs) == ["rows"]
    assert list(kmg.predict_signature(model, SPEC).inputs) == ["x"]
    assert list(kmg.predict_signature(pair, keras.Input((3,))).inputs) == ["features"]
