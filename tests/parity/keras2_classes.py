"""The classes of `tests/fixtures/make_keras2_saved_models.py`, in Keras 3."""

import keras
from keras import layers


class Gate(keras.layers.Layer):
    """Has weights of its own, and layers in a list and in a dict."""

    def __init__(self, units, **kwargs):
        super().__init__(**kwargs)
        self.units = units
        self.steps = [layers.Dense(units, activation="relu") for _ in range(2)]
        self.ways = {
            "in": layers.Dense(units),
            "out": layers.Dense(units, use_bias=False),
        }
        self.tail = keras.Sequential([layers.Dense(units), layers.LayerNormalization()])

    def build(self, input_shape):
        self.scale = self.add_weight(
            shape=(self.units,), initializer="ones", name="scale"
        )

    def call(self, inputs):
        x = self.ways["in"](inputs)
        for step in self.steps:
            x = x + step(x)
        return self.tail(self.ways["out"](x)) * self.scale

    def get_config(self):
        return {**super().get_config(), "units": self.units}


class Net(keras.Model):
    """A model without inputs of its own."""

    def __init__(self, units=4, **kwargs):
        super().__init__(**kwargs)
        self.units = units
        self.gate = Gate(units)
        self.norm = layers.BatchNormalization()
        self.head = layers.Dense(2)

    def call(self, inputs, training=None):
        return self.head(self.norm(self.gate(inputs), training=training))

    def get_config(self):
        return {"units": self.units}


CUSTOM_OBJECTS = {"Gate": Gate, "Net": Net, "twice": lambda t: t * 2.0 + 1.0}
