"""Signatures of an own file, on the Keras model that it was rebuilt into."""

import keras
import numpy as np
import pytest

import keras_metagraph as kmg

OPTIMIZERS = {
    "adam": lambda: keras.optimizers.Adam(0.05),
    "rmsprop": lambda: keras.optimizers.RMSprop(0.01),
    "schedule": lambda: keras.optimizers.SGD(
        keras.optimizers.schedules.ExponentialDecay(0.1, 2, 0.5), momentum=0.9
    ),
}
rng = np.random.default_rng(3)
X = rng.normal(size=(16, 4)).astype("float32")
Y = rng.normal(size=(16, 1)).astype("float32")


@pytest.fixture(params=OPTIMIZERS, name="pair")
def make_pair(request, tmp_path):
    """A model that was trained for two steps, and what is loaded of it."""
    keras.utils.set_random_seed(1)
    model = keras.Sequential(
        [
            keras.Input((4,), name="x"),
            keras.layers.Dense(3, "tanh"),
            keras.layers.Dense(1),
        ]
    )
    model.compile(OPTIMIZERS[request.param](), "mse", metrics=["mae"])
    model.fit(X, Y, batch_size=8, epochs=1, shuffle=False, verbose=0)
    prefix = kmg.save_meta_graph(model, tmp_path / "model")
    return model, kmg.load_from_meta_graph(prefix)


def test_train_signature_takes_the_steps_of_keras(pair):
    model, loaded = pair
    train = loaded.meta_graph.signatures["train"]

    for _ in range(3):
        model.reset_metrics()
        expected = model.train_on_batch(X, Y, return_dict=True)
        found = train(x=X, labels=Y)
        np.testing.assert_allclose(found["loss"], expected["loss"], rtol=1e-6)
    # Keras in between: what it does not keep follows its iterations.
    model.fit(X, Y, batch_size=8, shuffle=False, verbose=0)
    loaded.fit(X, Y, batch_size=8, shuffle=False, verbose=0)
    model.train_on_batch(X, Y)
    train(x=X, labels=Y)

    assert int(loaded.optimizer.iterations) == int(model.optimizer.iterations) == 8
    for found, expected in zip(loaded.weights, model.weights, strict=True):
        np.testing.assert_allclose(found, expected, rtol=1e-6, atol=1e-7)


def test_eval_signature_accumulates_its_own_metrics(pair):
    model, loaded = pair
    evaluate = loaded.meta_graph.signatures["eval"]
    expected = model.evaluate(X, Y, batch_size=8, return_dict=True, verbose=0)

    evaluate(x=X[:8], labels=Y[:8])
    found = evaluate(x=X[8:], labels=Y[8:])

    np.testing.assert_allclose(found["mae"], expected["mae"], rtol=1e-6)
    before = [variable.numpy() for variable in loaded.metrics_variables]
    evaluate(x=X, labels=Y)
    after = [variable.numpy() for variable in loaded.metrics_variables]
    np.testing.assert_equal(after, before)


def test_predict_signature_sees_what_keras_trained(pair):
    _, loaded = pair
    loaded.fit(X, Y, verbose=0)

    found = loaded.meta_graph.signatures["serving_default"](x=X)

    (output,) = found.values()
    np.testing.assert_allclose(output, loaded.predict(X, verbose=0), atol=1e-6)
