"""Takes the hidden layers of an old graph, and trains a new head on them.

`meta_graph.fetch` makes a Keras model of any tensor in the graph; that model is a layer
like any other, frozen here at first and tuned afterwards.
"""

import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import tempfile
from pathlib import Path

import keras
import numpy as np

import keras_metagraph as kmg

EXPORT = Path(__file__).parents[1] / "tests/fixtures/zoo/mlp_adam/model-20.meta"

keras.utils.set_random_seed(7)
x = np.random.default_rng(7).normal(size=(512, 12)).astype("float32")
y = (x[:, 0] * x[:, 1] > 0).astype("float32")

body = kmg.load_from_meta_graph(EXPORT).meta_graph.fetch("dense/Relu:0")
body.trainable = False
model = keras.Sequential(
    [
        keras.Input((12,), name="x"),
        body,
        keras.layers.Dense(16, activation="relu"),
        keras.layers.Dense(1, activation="sigmoid"),
    ]
)
model.summary()


def fit(rate: float, epochs: int) -> float:
    """Trains what is not frozen; returns the accuracy."""
    kernel = body.weights[0]
    before = keras.ops.convert_to_numpy(kernel)
    model.compile(
        keras.optimizers.Adam(rate), "binary_crossentropy", metrics=["accuracy"]
    )
    accuracy = model.fit(x, y, epochs=epochs, verbose=0).history["accuracy"][-1]
    moved = np.abs(keras.ops.convert_to_numpy(kernel) - before).max()
    print(f"accuracy {accuracy:.0%}; {kernel.path} moved by {moved:.4f}")
    assert (moved > 0) == body.trainable
    return accuracy


frozen = fit(0.01, epochs=15)
body.trainable = True
tuned = fit(0.003, epochs=15)

with tempfile.TemporaryDirectory() as folder:
    model.save(f"{folder}/model.keras")
    again = keras.saving.load_model(f"{folder}/model.keras")
    predictions = again.predict(x, verbose=0)

assert tuned > frozen
np.testing.assert_array_equal(predictions, model.predict(x, verbose=0))
