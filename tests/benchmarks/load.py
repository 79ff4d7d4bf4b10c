"""Time of loads, against `keras.saving.load_model` and TensorFlow's own importer.

Our own files hold what a `.keras` file holds. For files of TensorFlow 1 the peer is
what there is without us: `import_meta_graph` and `restore` in a session. Predictions
are compared, so that both have really loaded.
"""

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
import tensorflow as tf

import keras_metagraph as kmg
from benchmarks import report
from benchmarks.legacy_files import LegacyFile, legacy_files
from benchmarks.subjects import Subject, subjects

_OURS = "load_from_meta_graph"
_KERAS = "keras.saving.load_model"
_SESSION = "import_meta_graph and restore"

# A way to load returns what predicts with what it loaded.
Predict = Callable[[], np.ndarray]


def own_file_loaders(
    subject: Subject, folder: Path
) -> tuple[dict[str, Callable[[], Predict]], np.ndarray]:
    """The ways to load one model, as we and as Keras saved it."""
    model, x, _ = subject.trained()
    expected = model.predict(x, verbose=0)
    prefix = kmg.save_meta_graph(model, folder / "model", model.optimizer.iterations)
    model.save(folder / "model.keras")
    report.flush(folder)

    def predicting(loaded: Any) -> Predict:
        return lambda: loaded.predict(x, verbose=0)

    return {
        _OURS: lambda: predicting(kmg.load_from_meta_graph(prefix)),
        _KERAS: lambda: predicting(keras.saving.load_model(folder / "model.keras")),
    }, expected


def legacy_file_loaders(
    file: LegacyFile,
) -> tuple[dict[str, Callable[[], Predict]], np.ndarray]:
    """The ways to load a file of TensorFlow 1."""

    def by_us() -> Predict:
        model = kmg.load_from_meta_graph(
            file.prefix,
            inputs=file.inputs,
            outputs={"output": file.output},
            feeds=file.constants,
        )
        return lambda: model.predict(file.arrays, verbose=0)["output"]

    def in_a_session() -> Predict:
        with tf.Graph().as_default() as graph:
            session = tf.compat.v1.Session(graph=graph)
            saver = tf.compat.v1.train.import_meta_graph(f"{file.prefix}.meta")
            saver.restore(session, file.prefix)
        feeds = {name: file.arrays[key] for key, name in file.inputs.items()}
        return lambda: session.run(file.output, feeds | file.constants)

    return {_OURS: by_us, _SESSION: in_a_session}, in_a_session()()


def measure(
    title: str,
    loaders: dict[str, Callable[[], Predict]],
    expected: np.ndarray,
    rounds: int,
) -> None:
    """Loads in each way, again and again, and prints what it took."""
    loads = {name: report.Series() for name in loaders}
    predictions = {name: report.Series() for name in loaders}
    for _ in range(rounds):
        for name, load in loaders.items():
            taken, predict = report.timed(load)
            loads[name].seconds.append(taken)
            taken, found = report.timed(predict)
            predictions[name].seconds.append(taken)
            np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-5)
            del predict
    report.table(
        title,
        ["", "load", "first prediction"],
        [[name, str(loads[name]), str(predictions[name])] for name in loaders],
    )
    ours, peer = loaders
    columns = {"load": loads, "first prediction": predictions}
    report.ratios(title, [(ours, peer)], columns)


def _warm_up(parent: Path) -> None:
    """Does what a process does once, which is no part of a load."""
    with report.scratch(str(parent)) as folder:
        for loaders, _ in (
            own_file_loaders(subjects(quick=True)[0], folder),
            legacy_file_loaders(legacy_files(folder, quick=True)[0]),
        ):
            for load in loaders.values():
                load()()


def main() -> None:
    """See above."""
    given = report.arguments(__doc__.splitlines()[0])
    report.say_where()
    with report.scratch(given.directory) as folder:
        _warm_up(folder)
        for subject in subjects(given.quick, given.only):
            with report.scratch(str(folder)) as own:
                loaders, expected = own_file_loaders(subject, own)
                title = f"{subject.name}, compiled with Adam"
                measure(title, loaders, expected, given.rounds)
        for file in legacy_files(folder, given.quick) if not given.only else ():
            loaders, expected = legacy_file_loaders(file)
            measure(f"TensorFlow 1: {file.name}", loaders, expected, given.rounds)


if __name__ == "__main__":
    main()
