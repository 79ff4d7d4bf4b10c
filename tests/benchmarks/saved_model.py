"""Time and size of writing a SavedModel, against `model.export`.

Both write the graph that predicts. `export` traces functions and writes the weights
under the names of objects and of a signature's captures; `save_saved_model` writes a
flat graph, and each weight once. A row has the graphs of training and evaluation too.
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

import keras_metagraph as kmg
from benchmarks import report
from benchmarks.subjects import served, subjects

_EXPORT, _SERVE = "model.export", "save_saved_model"
_ALL = "save_saved_model, serve, train, eval"
_FLOOR = "write and fsync of as many bytes"
_PAIRS = [(_SERVE, _EXPORT), (_ALL, _EXPORT), (_SERVE, _FLOOR)]


@dataclasses.dataclass
class Measured:
    """What one way of writing took.

    Attributes:
        seconds: Until the call returns.
        on_disk: The same, until the disk has everything.
        megabytes: The files.
    """

    seconds: report.Series = dataclasses.field(default_factory=report.Series)
    on_disk: report.Series = dataclasses.field(default_factory=report.Series)
    megabytes: float = 0.0

    def add(self, other: "Measured") -> None:
        """Adds another round."""
        self.seconds.seconds += other.seconds.seconds
        self.on_disk.seconds += other.on_disk.seconds
        self.megabytes = other.megabytes


WAYS: dict[str, Callable[[Any, Path], Any]] = {
    _EXPORT: lambda model, path: model.export(path, verbose=False),
    _SERVE: lambda model, path: kmg.save_saved_model(path, model),
    _ALL: lambda model, path: kmg.save_saved_model(
        path, dict.fromkeys(("serve", "train", "eval"), model)
    ),
}


def measure(name: str, quick: bool, way: str, parent: Path) -> Measured:
    """Writes a new model once."""
    (subject,) = served(quick, name)
    model, _, _ = subject.trained()
    with report.scratch(str(parent)) as folder:
        taken, _ = report.timed(lambda: WAYS[way](model, folder / "1"))
        flushed = taken + report.flush(folder)
        return Measured(
            report.Series([taken]),
            report.Series([flushed]),
            report.megabytes(folder),
        )


def measure_warm(name: str, quick: bool, way: str, parent: Path) -> Measured:
    """Measures after what a process does once, such as reading op tables."""
    measure(subjects(quick=True)[0].name, True, way, parent)
    return measure(name, quick, way, parent)


def main() -> None:
    """See above."""
    given = report.arguments(__doc__.splitlines()[0])
    report.say_where()
    with report.scratch(given.directory) as parent:
        for subject in served(given.quick, given.only):
            results = {way: Measured() for way in [*WAYS, _FLOOR]}
            for _ in range(given.rounds):
                for way in WAYS:
                    results[way].add(
                        report.isolated(
                            measure_warm, subject.name, given.quick, way, parent
                        )
                    )
                size = results[_SERVE].megabytes
                taken = report.time_of_writing(size, parent)
                results[_FLOOR].add(Measured(taken, taken, size))
            report.table(
                f"SavedModels of {subject.name}, compiled with Adam",
                ["", "first", "first, on disk", "MB"],
                [
                    [way, str(m.seconds), str(m.on_disk), f"{m.megabytes:.1f}"]
                    for way, m in results.items()
                ],
            )
            report.ratios(
                subject.name,
                _PAIRS,
                {
                    "first": {way: m.seconds for way, m in results.items()},
                    "first, on disk": {way: m.on_disk for way, m in results.items()},
                },
            )


if __name__ == "__main__":
    main()
