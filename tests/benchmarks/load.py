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
from benchmarks.subjects import subjects

_OURS = "load_from_meta_graph"
_KERAS = "keras.saving.load_model"
_SESSION = "import_meta_graph and restore"

# A way to load returns what predicts with what it loaded.
Predict = Callable[[], np.ndarray]
Loader = Callable[[Any], Predict]


def save_own(name: str, quick: bool, folder: Path) -> None:
    """Saves a model as we and as Keras do, and the batch that it was trained on."""
    (subject,) = subjects(quick, name)
    model, x, _ = subject.trained()
    kmg.save_meta_graph(model, folder / "model")
    model.save(folder / "model.keras")
    np.save(folder / "x.npy", x)
    report.flush(folder)


def load_own(folder: Path, load: Callable[[Path], Any], name: str) -> Predict:
    """Loads what `save_own` saved."""
    model, x = load(folder / name), np.load(folder / "x.npy")
    return lambda: model.predict(x, verbose=0)


def load_legacy(file: LegacyFile) -> Predict:
    """Loads a file of TensorFlow 1 as a Keras model."""
    model = kmg.load_from_meta_graph(
        file.prefix,
        inputs=file.inputs,
        outputs={"output": file.output},
        feeds=file.constants,
    )
    return lambda: model.predict(file.arrays, verbose=0)["output"]


def load_in_a_session(file: LegacyFile) -> Predict:
    """Loads a file of TensorFlow 1 as TensorFlow does."""
    with tf.Graph().as_default() as graph:
        session = tf.compat.v1.Session(graph=graph)
        saver = tf.compat.v1.train.import_meta_graph(f"{file.prefix}.meta")
        saver.restore(session, file.prefix)
    feeds = {name: file.arrays[key] for key, name in file.inputs.items()}
    return lambda: session.run(file.output, feeds | file.constants)


OWN: dict[str, Loader] = {
    _OURS: lambda folder: load_own(folder, kmg.load_from_meta_graph, "model"),
    _KERAS: lambda folder: load_own(folder, keras.saving.load_model, "model.keras"),
}
LEGACY: dict[str, Loader] = {_OURS: load_legacy, _SESSION: load_in_a_session}


def load_once(
    is_own: bool, way: str, small: Any, source: Any
) -> tuple[float, float, np.ndarray]:
    """Loads and predicts, after what a process does once was done on a small one.

    Returns:
        The seconds of loading and of predicting, and the predictions.
    """
    load = (OWN if is_own else LEGACY)[way]
    load(small)()
    loading, predict = report.timed(lambda: load(source))
    predicting, found = report.timed(predict)
    return loading, predicting, found


def measure(title: str, is_own: bool, small: Any, source: Any, rounds: int) -> None:
    """Loads in each way, again and again, and prints what it took."""
    ways = list(OWN if is_own else LEGACY)
    loads = {way: report.Series() for way in ways}
    predictions = {way: report.Series() for way in ways}
    expected = None
    for _ in range(rounds):
        for way in ways:
            loading, predicting, found = report.isolated(
                load_once, is_own, way, small, source
            )
            loads[way].seconds.append(loading)
            predictions[way].seconds.append(predicting)
            expected = found if expected is None else expected
            np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-5)
    report.table(
        title,
        ["", "load", "first prediction"],
        [[way, str(loads[way]), str(predictions[way])] for way in ways],
    )
    ours, peer = ways
    columns = {"load": loads, "first prediction": predictions}
    report.ratios(title, [(ours, peer)], columns)


def main() -> None:
    """See above."""
    given = report.arguments(__doc__.splitlines()[0])
    report.say_where()
    with report.scratch(given.directory) as folder:
        small = folder / "small"
        small.mkdir()
        report.isolated(save_own, subjects(quick=True)[0].name, True, small)
        for subject in subjects(given.quick, given.only):
            with report.scratch(str(folder)) as own:
                report.isolated(save_own, subject.name, given.quick, own)
                title = f"{subject.name}, compiled with Adam"
                measure(title, True, small, own, given.rounds)
        files = [] if given.only else legacy_files(folder, given.quick)
        for file in files:
            title = f"TensorFlow 1: {file.name}"
            measure(title, False, files[0], file, given.rounds)


if __name__ == "__main__":
    main()
