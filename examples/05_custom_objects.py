"""Saves and loads what Keras does not know: own layers, losses and model classes.

The file holds configs, not Python: whoever loads it gives the classes. All names that
are missing come in one error; without them the graph itself still predicts.
"""

import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import tempfile
import warnings

import keras
import numpy as np
from rich import print

import keras_metagraph as kmg


class Scale(keras.layers.Layer):
    """Multiplies by a learnt factor that starts at `start`."""

    def __init__(self, start: float = 1.0, **kwargs) -> None:
        super().__init__(**kwargs)
        self.start = start
        self.factor = self.add_weight(
            (), keras.initializers.Constant(start), name="factor"
        )

    def call(self, x):
        """Scales the inputs."""
        return x * self.factor

    def get_config(self):
        """What `__init__` takes; the file keeps it."""
        return {**super().get_config(), "start": self.start}


class Regressor(keras.Model):
    """Two dense layers around a `Scale`."""

    def __init__(self, **kwargs) -> None:
        super().__init__(**kwargs)
        self.hidden = keras.layers.Dense(16, activation="relu")
        self.scale = Scale(2.0)
        self.score = keras.layers.Dense(1)

    def call(self, x):
        """Predicts one number."""
        return self.score(self.scale(self.hidden(x)))


def scaled_error(y_true, y_pred):
    """A loss of one's own."""
    return keras.ops.mean(keras.ops.abs(y_true - y_pred) ** 1.5, axis=-1)


x = np.random.default_rng(7).normal(size=(128, 4)).astype("float32")
model = Regressor()
model.compile("adam", scaled_error)
model.fit(x, x[:, :1], epochs=2, verbose=2)

with tempfile.TemporaryDirectory() as folder:
    prefix = kmg.save_meta_graph(model, f"{folder}/model", model.optimizer.iterations)
    try:
        kmg.load_from_meta_graph(prefix, rebuild="config")
    except kmg.errors.CustomObjectError as error:
        print("[bold]without the classes:[/bold]", error)
    objects = {item.__name__: item for item in (Regressor, Scale, scaled_error)}
    again = kmg.load_from_meta_graph(prefix, objects)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it says that it took the graph
        graph = kmg.load_from_meta_graph(prefix)

print("[bold]with them:[/bold]", again, again.loss.__name__, again.optimizer.name)
print("[bold]as a graph:[/bold]", graph)
assert type(again) is Regressor
np.testing.assert_array_equal(again.predict(x, verbose=0), model.predict(x, verbose=0))
