"""The models that are saved and loaded."""

import dataclasses
from collections.abc import Callable

import keras
import numpy as np


@dataclasses.dataclass(frozen=True)
class Subject:
    """A model to measure with, and one batch for it."""

    name: str
    build: Callable[[], keras.Model]

    def trained(self) -> tuple[keras.Model, np.ndarray, np.ndarray]:
        """A new model compiled with Adam, after one step, and its batch."""
        keras.utils.set_random_seed(1)
        model = self.build()
        model.compile("adam", "sparse_categorical_crossentropy", jit_compile=False)
        x = np.random.default_rng(2).standard_normal((2, *model.input_shape[1:]))
        x, y = x.astype("float32"), np.arange(2)
        model.train_on_batch(x, y)
        return model, x, y


def subjects(quick: bool, only: str = "") -> list[Subject]:
    """The models of a run: two real ones, or two that are done in no time."""
    small = [
        Subject("MLP, small", lambda: _mlp(32)),
        Subject("conv net, small", _conv_net),
    ]
    real = [
        Subject("MLP, 600 MB", lambda: _mlp(5000)),
        Subject("ResNet50", lambda: keras.applications.ResNet50(weights=None)),
    ]
    return [each for each in (small if quick else real) if each.name.startswith(only)]


def served(quick: bool, only: str = "") -> list[Subject]:
    """The models that are written for serving: smaller than those that are saved."""
    if quick:
        return subjects(quick, only)
    models = [
        Subject("MLP, 100 MB", lambda: _mlp(2000)),
        Subject("ResNet50", lambda: keras.applications.ResNet50(weights=None)),
    ]
    return [each for each in models if each.name.startswith(only)]


def _mlp(units: int) -> keras.Model:
    hidden = [keras.layers.Dense(units, activation="relu") for _ in range(5)]
    last = keras.layers.Dense(units, activation="softmax")
    return keras.Sequential([keras.Input((units,), name="x"), *hidden, last])


def _conv_net() -> keras.Model:
    return keras.Sequential(
        [
            keras.Input((16, 16, 3), name="image"),
            keras.layers.Conv2D(8, 3, use_bias=False),
            keras.layers.BatchNormalization(),
            keras.layers.ReLU(),
            keras.layers.GlobalAveragePooling2D(),
            keras.layers.Dense(4, activation="softmax"),
        ]
    )
