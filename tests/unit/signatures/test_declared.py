"""Decorated methods are endpoints of every model of the class."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers

import keras_metagraph as kmg
from keras_metagraph.errors import SignatureError
from keras_metagraph.signatures.declared import declared_signatures
from oracle.tf_examples import example

SPEC = tf.TensorSpec([None, 3], tf.float32, name="x")
X = np.ones((2, 3), "float32")


class Base(keras.Model):
    """Endpoints of all kinds."""

    def __init__(self):
        super().__init__()
        self.dense = layers.Dense(2)

    def call(self, x):
        return self.dense(x)

    @kmg.signature(SPEC, name="embed")
    def embedding(self, x):
        """Embeds."""
        return {"code": 2.0 * self.dense(x)}

    @kmg.signature([SPEC], method="classify", labels=["no", "yes"])
    def kind(self, x):
        return tf.nn.softmax(self(x))

    @kmg.signature(SPEC, method="my/own/method", outputs=["answer"])
    def ask(self, x):
        return self(x)


class Derived(Base):
    """Overrides one method, replaces the default signature."""

    def embedding(self, x):
        return {"code": -self.dense(x)}

    @kmg.signature(name="serving_default")
    @tf.function(input_signature=[SPEC])
    def serve(self, x):
        return {"score": tf.reduce_max(self(x), axis=1)}


class Mixed(kmg.MetaGraphMixin, Derived):
    """With the mixin."""

    def meta_graph_signatures(self):
        return {"ask": kmg.predict_signature(self.embedding, SPEC)}


def built(kind):
    model = kind()
    model(X)
    return model


def test_a_decorated_method_stays_as_it_is():
    model = built(Base)
    assert Base.embedding.__doc__ == "Embeds."
    np.testing.assert_array_equal(model.embedding(X)["code"], 2 * model(X))


def test_signatures_of_a_class():
    found = declared_signatures(built(Base))
    assert {key: value.method_name for key, value in found.items()} == {
        "embed": "tensorflow/serving/predict",
        "kind": "tensorflow/serving/classify",
        "ask": "my/own/method",
    }
    assert {key: value.name for key, value in found.items()} == {k: k for k in found}
    assert set(found["ask"](X)) == {"answer"}
    values = found["kind"]([example(x=X[0])])
    assert values["classes"].tolist() == [[b"no", b"yes"]]


@pytest.mark.parametrize("kind", [Derived, Mixed])
def test_inherited_and_overridden_methods(kind):
    model = built(kind)
    signature_defs = kmg.export_meta_graph(model).signature_def

    assert set(signature_defs) == {"serving_default", "embed", "kind", "ask"}
    default = signature_defs["serving_default"]
    assert set(default.outputs) == {"score"}
    assert set(default.inputs) == {"x"}
    embedded = declared_signatures(model)["embed"](X)["code"]
    np.testing.assert_array_equal(embedded, -model(X))
    ask = signature_defs["ask"]
    assert set(ask.outputs) == ({"code"} if kind is Mixed else {"answer"})


def test_what_the_caller_passes_wins():
    model = built(Derived)
    signatures = {"serving_default": kmg.predict_signature(model)}
    default = kmg.export_meta_graph(model, signatures=signatures).signature_def
    assert set(default["serving_default"].outputs) == {"output"}


def test_an_export_is_kept_while_the_signatures_are_the_same():
    model = built(Derived)
    first, second = declared_signatures(model), declared_signatures(model)
    assert all(first[key] is second[key] for key in first)
    assert declared_signatures(built(Derived))["ask"] is not first["ask"]


def test_two_methods_with_one_key():
    class Twice(Base):
        """Declares a name again."""

        @kmg.signature(SPEC, name="embed")
        def again(self, x):
            return x

    with pytest.raises(SignatureError, match="'embedding' and 'again' both declare "):
        declared_signatures(built(Twice))


def test_a_method_that_does_not_fit():
    class Wrong(Base):
        """A regressor with two numbers, and what does not say what it takes."""

        @kmg.signature(SPEC, method="regress")
        def wide(self, x):
            return self(x)

        @kmg.signature()
        def silent(self, x):
            return self(x)

    with pytest.raises(SignatureError, match="model 'wrong' cannot be") as info:
        kmg.export_meta_graph(built(Wrong))

    assert info.value.findings == (
        "wide: output 'output' has the shape (None, 2), expected (batch,) or "
        "(batch, 1)",
        "silent: The function 'silent' does not say what it takes.",
    )


def test_one_method_may_be_several_endpoints():
    class Several(keras.Model):
        """A method on tensors and on examples; a static one; one without brackets."""

        def call(self, x):
            return x

        @kmg.signature(SPEC)
        @kmg.signature(SPEC, name="examples", examples=True)
        def double(self, x):
            return 2 * x

        @staticmethod
        @kmg.signature(SPEC)
        def triple(x):
            return 3 * x

        @kmg.signature
        @tf.function(input_signature=[SPEC])
        def half(self, x):
            return x / 2

    signatures = declared_signatures(built(Several))

    serialized = [example(x=row) for row in X]
    found = {
        key: signature(serialized if key == "examples" else X)["output"].tolist()
        for key, signature in signatures.items()
    }
    expected = {"double": 2 * X, "examples": 2 * X, "triple": 3 * X, "half": X / 2}
    assert found == {key: value.tolist() for key, value in expected.items()}


def test_arguments_that_no_model_can_use():
    with pytest.raises(SignatureError, match="no arguments of a signature") as info:
        kmg.signature("rank", method="clasify", lables=["a"])

    assert info.value.findings == (
        "inputs='rank' is a text: its key is name=",
        "method='clasify' is none of ['predict', 'classify', 'regress'], and no full "
        "name; nearest: classify",
        "lables= is not known to predict_signature; nearest: examples",
    )


def test_an_empty_key_is_refused():
    class Empty(Base):
        """Has an endpoint that cannot be called."""

        @kmg.signature(SPEC, name="")
        def nameless(self, x):
            return x

    with pytest.raises(SignatureError, match="empty key"):
        kmg.export_meta_graph(built(Empty))
