"""Time of loads, against `keras.saving.load_model` and TensorFlow's own importer.

Our own files hold what a `.keras` file holds. For legacy files the peer is what a
program without Keras would do: `import_meta_graph` and `restore` in a session.
"""

import dataclasses
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

# Before TensorFlow is imported.
os.environ["CUDA_VISIBLE_DEVICES"] = ""
os.environ["KERAS_BACKEND"] = "tensorflow"
os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"

import keras
import numpy as np
import report
import tensorflow as tf
from legacy import write_residual_net
from subjects import Subject, subjects

import keras_metagraph as kmg

_ZOO = Path(__file__).parents[1] / "fixtures" / "zoo"
_FIXTURES = {
    "zoo/mlp_adam": ("x:0", "probabilities:0"),
}


def own_files(subject: Subject, rounds: int, parent: Path) -> None:
    """Loads what we and what Keras saved of one model."""
    ours, peer = "load_from_meta_graph", "keras.saving.load_model"
    model, x, _ = subject.trained()
    expected = model.predict(x, verbose=0)
    with report.scratch(str(parent)) as folder:
        prefix = kmg.save_meta_graph(model, folder / "model", 1)
        model.save(folder / "model.keras")
        del model
        loaders: dict[str, Callable[[], Any]] = {
            ours: lambda: kmg.load_from_meta_graph(prefix),
            peer: lambda: keras.saving.load_model(folder / "model.keras"),
        }
        seconds = {name: report.Series() for name in loaders}
        for _ in range(rounds):
            for name, load in loaders.items():
                loaded = []
                taken = report.seconds_of(lambda: loaded.append(load()))  # noqa: B023
                seconds[name].seconds.append(taken)
                np.testing.assert_allclose(
                    loaded.pop().predict(x, verbose=0), expected, atol=1e-5
                )
    report.table(
        f"Loads of {subject.name}, compiled with Adam",
        ["", "seconds"],
        [[name, str(series)] for name, series in seconds.items()],
    )
    report.ratios(subject.name, [(ours, peer)], seconds)
