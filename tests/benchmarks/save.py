"""Time and size of saves, against `model.export` and `ModelCheckpoint`.

The first save of a model traces its graphs, later ones need not. Peers return before
their bytes are on the disk and keras_metagraph does not, so there is also a column of
later saves in which all wait for the disk.
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

import keras_metagraph as kmg
from benchmarks import report
from benchmarks.subjects import subjects

_LATER = 3
_CALLBACK, _SAVE = "MetaGraphCheckpoint", "save_meta_graph"
_SAVE_PREDICT = "save_meta_graph, predict graph"
_EXPORT = "model.export"
_KERAS, _WEIGHTS = "ModelCheckpoint, .keras", "ModelCheckpoint, .weights.h5"
_FLOOR = "write and fsync of as many bytes"
_PAIRS = [
    (_SAVE, _EXPORT),
    (_SAVE_PREDICT, _EXPORT),
    (_CALLBACK, _KERAS),
    (_CALLBACK, _WEIGHTS),
    (_CALLBACK, _FLOOR),
]


@dataclasses.dataclass
class Measured:
    """What one way of saving took.

    Attributes:
        first: The first save of a model.
        later: Saves after that, until the call returns.
        on_disk: The same, until the disk has everything.
        megabytes: The files of one save.
    """

    first: report.Series = dataclasses.field(default_factory=report.Series)
    later: report.Series = dataclasses.field(default_factory=report.Series)
    on_disk: report.Series = dataclasses.field(default_factory=report.Series)
    megabytes: float = 0.0

    def add(self, other: "Measured") -> None:
        """Adds another round."""
        self.first.seconds += other.first.seconds
        self.later.seconds += other.later.seconds
        self.on_disk.seconds += other.on_disk.seconds
        self.megabytes = other.megabytes


Saver = Callable[[Path], None]


def save_meta_graph(model: Any, **options: Any) -> Saver:
    """Saves under the step, as a training loop of one's own would."""
    return lambda folder: kmg.save_meta_graph(
        model, folder / "model", model.optimizer.iterations, **options
    )


def export(model: Any) -> Saver:
    """Writes a SavedModel."""
    return lambda folder: model.export(
        folder / f"export-{int(model.optimizer.iterations)}", verbose=False
    )


def callback(model: Any, made: Callable[[Path], keras.callbacks.Callback]) -> Saver:
    """Saves as a callback does at the end of an epoch."""
    callbacks: dict[Path, keras.callbacks.Callback] = {}

    def save(folder: Path) -> None:
        if folder not in callbacks:
            callbacks[folder] = made(folder)
            callbacks[folder].set_model(model)
            callbacks[folder].set_params({"epochs": 1, "steps": 1})
            callbacks[folder].on_train_begin()
        callbacks[folder].on_epoch_end(int(model.optimizer.iterations), {})

    return save


WAYS: dict[str, Callable[[Any], Saver]] = {
    _CALLBACK: lambda model: callback(
        model, lambda folder: kmg.MetaGraphCheckpoint(folder / "model", max_to_keep=1)
    ),
    _SAVE: save_meta_graph,
    _SAVE_PREDICT: lambda model: save_meta_graph(model, graphs=("predict",)),
    _EXPORT: export,
    _KERAS: lambda model: callback(
        model, lambda folder: keras.callbacks.ModelCheckpoint(folder / "model.keras")
    ),
    _WEIGHTS: lambda model: callback(
        model,
        lambda folder: keras.callbacks.ModelCheckpoint(
            folder / "model.weights.h5", save_weights_only=True
        ),
    ),
}


def measure(
    name: str, quick: bool, way: Callable[[Any], Saver], parent: Path
) -> Measured:
    """Saves a new model several times, with a training step after each save."""
    (subject,) = subjects(quick, name)
    model, x, y = subject.trained()
    save = way(model)
    measured = Measured()
    with report.scratch(str(parent)) as folder:
        measured.first.seconds.append(report.timed(lambda: save(folder))[0])
        measured.megabytes = report.megabytes(folder)
        report.flush(folder)
        for _ in range(_LATER):
            model.train_on_batch(x, y)
            taken, _ = report.timed(lambda: save(folder))
            measured.later.seconds.append(taken)
            measured.on_disk.seconds.append(taken + report.flush(folder))
    return measured


def measure_warm(name: str, quick: bool, way: str, parent: Path) -> Measured:
    """Measures after what a process does once, such as reading op tables."""
    measure(subjects(quick=True)[0].name, True, WAYS[way], parent)
    return measure(name, quick, WAYS[way], parent)


def measure_floor(megabytes: float, parent: Path) -> Measured:
    """Writes as many bytes with nothing around it."""
    taken = report.time_of_writing(megabytes, parent)
    return Measured(taken, taken, taken, megabytes)


def show(name: str, results: dict[str, Measured]) -> None:
    """Prints the results of one model."""
    report.table(
        f"Saves of {name}, compiled with Adam",
        ["", "first", "later", "later, on disk", "MB"],
        [
            [way, *map(str, (m.first, m.later, m.on_disk)), f"{m.megabytes:.1f}"]
            for way, m in results.items()
        ],
    )
    report.ratios(
        name,
        _PAIRS,
        {
            "first": {way: m.first for way, m in results.items()},
            "later": {way: m.later for way, m in results.items()},
            "later, on disk": {way: m.on_disk for way, m in results.items()},
        },
    )


def main() -> None:
    """See above."""
    given = report.arguments(__doc__.splitlines()[0])
    report.say_where()
    with report.scratch(given.directory) as parent:
        for subject in subjects(given.quick, given.only):
            results = {way: Measured() for way in [*WAYS, _FLOOR]}
            for _ in range(given.rounds):
                for way in WAYS:
                    results[way].add(
                        report.isolated(
                            measure_warm, subject.name, given.quick, way, parent
                        )
                    )
                size = results[_CALLBACK].megabytes
                results[_FLOOR].add(measure_floor(size, parent))
            show(subject.name, results)


if __name__ == "__main__":
    main()
