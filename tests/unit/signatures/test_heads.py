"""Classifiers and regressors are told from their graphs; what does not fit is said."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers

import keras_metagraph as kmg
from keras_metagraph.errors import SignatureError
from keras_metagraph.signatures.heads import read_labels
from oracle.tf_examples import example

X = np.random.default_rng(0).normal(size=(4, 3)).astype("float32")
SERIALIZED = [example(x=row) for row in X]


class Own(keras.Model):
    """A subclass, of which nobody knows the last layer."""

    def __init__(self, units, activation):
        super().__init__()
        self.head = layers.Dense(units, activation)
        self.wide = layers.Dense(8)

    def call(self, x):
        return self.head(self.wide(x))


def functional(units, activation=None, dtype=None):
    x = keras.Input((3,), name="x")
    hidden = layers.Dense(units, name="head")(x)
    return keras.Model(x, layers.Activation(activation, dtype=dtype)(hidden))


def scores(model, **arguments):
    return kmg.classify_signature(model, **arguments)(SERIALIZED)["scores"]


@pytest.mark.parametrize("activation", ["softmax", "sigmoid", None, "log_softmax"])
@pytest.mark.parametrize("kind", [functional, Own])
def test_the_activation_is_found(kind, activation):
    model = kind(3, activation)
    values = model(X)

    if activation in (None, "log_softmax"):
        values = keras.ops.softmax(values)
    np.testing.assert_allclose(scores(model), values, rtol=1e-5)


@pytest.mark.parametrize(
    ("loss", "expected"),
    [
        ("sparse_categorical_crossentropy", lambda x: x),
        (keras.losses.BinaryCrossentropy(from_logits=True), keras.ops.sigmoid),
        (keras.losses.CategoricalCrossentropy(from_logits=True), keras.ops.softmax),
        (
            {"head": keras.losses.BinaryCrossentropy(from_logits=True)},
            keras.ops.sigmoid,
        ),
    ],
)
def test_the_loss_tells_where_the_graph_does_not(loss, expected):
    x = keras.Input((3,), name="x")
    model = keras.Model(x, layers.Activation("relu", name="head")(layers.Dense(2)(x)))
    with pytest.raises(SignatureError, match=r"comes from Relu.*pass from_logits="):
        kmg.classify_signature(model)

    model.compile(loss=loss)

    np.testing.assert_allclose(scores(model), expected(model(X)), rtol=1e-5)


def test_the_argument_wins():
    model = functional(3, "softmax")
    np.testing.assert_allclose(
        scores(model, from_logits=True), keras.ops.softmax(model(X)), rtol=1e-5
    )
    np.testing.assert_allclose(scores(functional(3), from_logits=False).shape, (4, 3))


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float64"])
def test_scores_are_32_bit_floats(dtype):
    model = functional(1, "sigmoid", dtype)
    found = scores(model)
    regressed = kmg.regress_signature(model)(SERIALIZED)["outputs"]

    assert (found.dtype, regressed.dtype) == (np.float32, np.float32)
    p = tf.cast(model(X), tf.float32)
    np.testing.assert_array_equal(found, tf.concat([1 - p, p], 1))
    np.testing.assert_array_equal(regressed, p)


def test_one_of_several_outputs():
    x = keras.Input((3,), name="x")
    kind = layers.Dense(2, activation="softmax", name="kind")(x)
    model = keras.Model(x, [kind, layers.Dense(1, name="price")(x)])

    np.testing.assert_allclose(scores(model, output="kind"), model(X)[0], rtol=1e-5)
    price = kmg.regress_signature(model, output="price")(SERIALIZED)["outputs"]
    np.testing.assert_allclose(price, model(X)[1], rtol=1e-5)
    with pytest.raises(SignatureError, match="several outputs") as info:
        kmg.classify_signature(model)
    assert info.value.findings == ("there is 'kind'", "there is 'price'")
    with pytest.raises(SignatureError, match="no output 'prices'; nearest: price"):
        kmg.regress_signature(model, output="prices")


def test_classes_of_the_function_itself():
    def classify(x):
        p = tf.nn.softmax(tf.cast(x, tf.float64))
        return {"classes": tf.strings.as_string(tf.argsort(p)), "scores": p}

    spec = tf.TensorSpec([None, 3])
    values = kmg.classify_signature(classify, spec)(SERIALIZED)

    assert values["classes"].tolist() == np.argsort(X).astype("S").tolist()
    assert values["scores"].dtype == np.float32
    only = kmg.classify_signature(classify, spec, outputs="classes")
    assert set(only(SERIALIZED)) == {"classes"}
    with pytest.raises(SignatureError, match="top_k=2 was passed"):
        kmg.classify_signature(classify, spec, top_k=2)
    with pytest.raises(SignatureError) as info:
        kmg.classify_signature(
            lambda x: {"classes": x, "scores": x[0], "more": x}, spec
        )
    assert len(info.value.findings) == 3


def test_all_that_does_not_fit_a_classifier_is_listed():
    x = keras.Input((3,), name="x")
    model = keras.Model(x, layers.Activation("relu", name="r")(x))
    with pytest.raises(SignatureError) as info:
        kmg.classify_signature(
            model, outputs=["scores", "best"], labels=["a", "b"], top_k=4
        )

    assert info.value.findings == (
        "outputs names classes, scores or both. Received: ('scores', 'best')",
        "there are 3 classes and 2 labels",
        "top_k is 4, and there are 3 classes",
        "output 'r' comes from Relu, which does not tell whether it is probabilities "
        "or logits: pass from_logits=",
    )


@pytest.mark.parametrize(
    ("function", "finding"),
    [
        (lambda x: x, r"has the shape \(None, 3\), expected \(batch,\) or"),
        (lambda x: tf.reduce_sum(x), r"has the shape \(\), expected"),
        (lambda x: tf.strings.as_string(x[:, 0]), "expected numbers"),
    ],
)
def test_what_is_no_regressor(function, finding):
    with pytest.raises(SignatureError, match=finding):
        kmg.regress_signature(function, {"x": tf.TensorSpec([None, 3])})


def test_labels():
    lookup = layers.StringLookup(vocabulary=["a", "b"], mask_token="-")
    numbers = layers.IntegerLookup(vocabulary=[7, 8], num_oov_indices=0)

    assert read_labels(None, 2) is None
    assert read_labels(["a", b"\xff", 3], 3) == (b"a", b"\xff", b"3")
    assert read_labels(np.array(["a", "é"]), 2) == (b"a", "é".encode())
    assert read_labels(lookup, 2) == (b"a", b"b")
    assert read_labels(lookup, 4) == (b"-", b"[UNK]", b"a", b"b")
    assert read_labels(numbers, None) == (b"7", b"8")
    for wrong in ("ab", 3, {"a": 1}):
        with pytest.raises(SignatureError, match="labels are a list of texts"):
            read_labels(wrong, 2)


def test_an_adapted_vocabulary():
    lookup = layers.StringLookup(num_oov_indices=0)
    lookup.adapt(["x", "y", "x"])

    signature = kmg.classify_signature(functional(2, "softmax"), labels=lookup, top_k=2)

    best = np.argmax(signature(SERIALIZED)["scores"], axis=1)
    assert best.tolist() == [0] * 4
    assert set(signature(SERIALIZED)["classes"].ravel()) == {b"x", b"y"}


def test_labels_tell_how_many_classes_there_are():
    def scores(x):
        return tf.reshape(x, [-1, tf.shape(x)[1]])

    spec = tf.TensorSpec([None, None], tf.float32, name="x")
    signature = kmg.classify_signature(
        scores, spec, labels=["a", "b"], from_logits=False
    )

    assert signature([example(x=[0.25, 0.75])])["scores"].tolist() == [[0.25, 0.75]]
    with pytest.raises(SignatureError, match="'scores' failed"):
        signature([example(x=[0.25, 0.25, 0.5])])


def test_each_output_has_its_own_loss():
    x = keras.Input((3,), name="x")
    outputs = [layers.Dense(2, name=name)(x) + 1.0 for name in ("a", "b")]
    model = keras.Model(x, outputs)
    losses = keras.losses.CategoricalCrossentropy, keras.losses.BinaryCrossentropy
    model.compile(loss=[loss(from_logits=True) for loss in losses])
    first, second = kmg.predict_signature(model)(np.ones((1, 3)))
    raw = model(np.ones((1, 3)))

    serialized = [example(x=[1.0, 1.0, 1.0])]
    for key, value, activation in zip(
        (first, second), raw, (tf.nn.softmax, tf.nn.sigmoid), strict=True
    ):
        found = kmg.classify_signature(model, output=key)(serialized)["scores"]
        np.testing.assert_allclose(found, activation(value), rtol=1e-6)


@pytest.mark.parametrize("top_k", [0, 3, "1", 1.5])
def test_top_k_counts_classes(top_k):
    with pytest.raises(SignatureError, match=f"top_k is {top_k!r}, and there are 2"):
        kmg.classify_signature(functional(2, "softmax"), top_k=top_k)
