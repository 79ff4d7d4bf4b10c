"""What cells of TensorFlow 1 cannot be copied to is said, not copied."""

import keras
import numpy as np
import pytest
from keras import layers

import keras_metagraph as kmg
from keras_metagraph.errors import ShapeMismatchError, SignatureError


def recurrent(layer):
    return keras.Sequential([keras.Input((5, 3)), layer])


def lstm(scope="rnn/lstm_cell/", names=("kernel", "bias")):
    """The variables of an `LSTMCell(4)` on three features."""
    rng = np.random.default_rng(1)
    return {
        scope + names[0]: rng.normal(size=(7, 16)).astype("float32"),
        scope + names[1]: rng.normal(size=16).astype("float32"),
    }


def gru(scope="rnn/gru_cell/"):
    rng = np.random.default_rng(1)
    shapes = {
        "gates/kernel": (7, 8),
        "gates/bias": (8,),
        "candidate/kernel": (7, 4),
        "candidate/bias": (4,),
    }
    return {
        scope + name: rng.normal(size=shape).astype("float32")
        for name, shape in shapes.items()
    }


def reference_lstm(values, inputs):
    """`LSTMCell` of TensorFlow 1 in NumPy: gates i, j, f, o, and 1 added to f."""
    kernel, bias = values
    state, hidden = np.zeros((len(inputs), 4)), np.zeros((len(inputs), 4))

    def sigmoid(x):
        return 1 / (1 + np.exp(-x))

    for step in range(inputs.shape[1]):
        joint = np.concatenate([inputs[:, step], hidden], 1) @ kernel + bias
        i, j, f, o = np.split(joint, 4, 1)
        state = sigmoid(f + 1) * state + sigmoid(i) * np.tanh(j)
        hidden = sigmoid(o) * np.tanh(state)
    return hidden


@pytest.mark.parametrize(
    "names",
    [("kernel", "bias"), ("weights", "biases"), ("Linear/Matrix", "Linear/Bias")],
)
def test_every_release_has_its_names(names, checkpoint):
    values = lstm(names=names)
    model = recurrent(layers.LSTM(4, name="r"))
    inputs = np.random.default_rng(2).normal(size=(2, 5, 3)).astype("float32")

    report = kmg.warm_start(
        model, checkpoint(values), {"rnn/lstm_cell/": model.get_layer("r")}
    )

    np.testing.assert_allclose(
        model(inputs), reference_lstm(values.values(), inputs), atol=1e-6
    )
    assert "forget_bias 1.0: TensorFlow's default" in report.matched[0].note


@pytest.mark.parametrize("key", ["bias", None])
def test_a_bias_is_never_copied_with_its_gates_mixed_up(key, checkpoint):
    """The biases have one shape; only the order of the gates differs."""
    model = recurrent(layers.LSTM(4, name="rnn"))
    prefix = checkpoint(lstm("rnn/lstm_cell/"))
    before = model.weights[2].numpy()
    assignment = {"rnn/lstm_cell/bias": model.weights[2]} if key else None

    with pytest.raises(ShapeMismatchError) as caught:
        kmg.warm_start(model, prefix, assignment)

    text = "\n".join(caught.value.findings)
    assert "gates in another order; say {'rnn/lstm_cell/': layer}" in text
    np.testing.assert_array_equal(model.weights[2].numpy(), before)


def test_cells_of_keras_are_copied_as_they_are(checkpoint):
    source = recurrent(layers.LSTM(4, name="r"))
    model = recurrent(layers.LSTM(4, name="r"))
    values = {f"old/{w.path.split('/', 1)[1]}": w.numpy() for w in source.weights}

    kmg.warm_start(model, checkpoint(values), {"old/r/": model.get_layer("r")})

    for weight, wanted in zip(model.weights, source.weights, strict=True):
        np.testing.assert_array_equal(weight.numpy(), wanted.numpy())


@pytest.mark.parametrize(
    ("layer", "values", "scope", "said"),
    [
        (layers.GRU(4, name="r"), gru(), "rnn/gru_cell/", "reset_after=False"),
        (
            layers.LSTM(4, use_bias=False, name="r"),
            lstm(),
            "rnn/lstm_cell/",
            "use_bias=True",
        ),
        (
            layers.LSTM(4, name="r"),
            lstm() | {"rnn/lstm_cell/w_f_diag": np.zeros(4, "float32")},
            "rnn/lstm_cell/",
            "has nothing like rnn/lstm_cell/w_f_diag",
        ),
        (layers.LSTM(5, name="r"), lstm(), "rnn/lstm_cell/", "(3, 20) in the model"),
    ],
    ids=["reset_after", "bias", "peepholes", "units"],
)
def test_cells_that_compute_something_else(layer, values, scope, said, checkpoint):
    model = recurrent(layer)

    with pytest.raises(ShapeMismatchError) as caught:
        kmg.warm_start(model, checkpoint(values), {scope: layer})

    assert said in "\n".join(caught.value.findings)


def test_a_part_of_a_cell_cannot_be_given_besides(checkpoint):
    model = recurrent(layers.LSTM(4, name="r"))
    prefix = checkpoint(lstm() | {"other": np.zeros(16, "float32")})

    with pytest.raises(SignatureError, match="r/lstm_cell/bias: by LSTM cell"):
        kmg.warm_start(
            model,
            prefix,
            {"rnn/lstm_cell/": model.get_layer("r"), "other": model.weights[2]},
        )


def test_both_directions(checkpoint):
    scopes = ("bidirectional_rnn/fw/lstm_cell/", "bidirectional_rnn/bw/lstm_cell/")
    forward, backward = (lstm(scope) for scope in scopes)
    backward = {name: value * 0.5 for name, value in backward.items()}
    layer = layers.Bidirectional(layers.LSTM(4), name="both")
    model = recurrent(layer)
    inputs = np.random.default_rng(2).normal(size=(2, 5, 3)).astype("float32")

    kmg.warm_start(
        model,
        checkpoint(forward | backward),
        {scopes[0]: layer.forward_layer, scopes[1]: layer.backward_layer},
    )

    expected = [
        reference_lstm(forward.values(), inputs),
        reference_lstm(backward.values(), inputs[:, ::-1]),
    ]
    np.testing.assert_allclose(model(inputs), np.concatenate(expected, 1), atol=1e-6)
