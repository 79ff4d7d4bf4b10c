"""SavedModels of a training: when one is exported, and which ones are kept.

The policies are those of the exporters of TensorFlow 1's `tf.estimator`
(`LatestExporter`, `BestExporter`, `FinalExporter`): each SavedModel is a directory of
one base directory, and its name is the second in which it was written, as TF Serving
has it.
"""

import dataclasses
import hashlib
import inspect
import json
import os
import re
import warnings
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from keras_metagraph.callbacks.cadence import Best
from keras_metagraph.checkpoint.background import BackgroundWork
from keras_metagraph.checkpoint.durable import read_regular_file
from keras_metagraph.errors import CheckpointError
from keras_metagraph.resuming.callback_state import checksum
from keras_metagraph.saved_model.directory import next_version, remove_directory
from keras_metagraph.saved_model.prepared import prepare_saved_model

POLICIES = ("latest", "best", "final")

# Moments at which one may be due: before a checkpoint is written, at the end of an
# epoch, and at that of training.
SAVE, EPOCH_END, END = "save", "end of an epoch", "end"

# In `assets.extra/`, which servers pass over.
_RECORD = "keras_metagraph.json"
_MOST_BYTES = 1 << 16
_VERSION = re.compile("[0-9]{10,}")


@dataclasses.dataclass(frozen=True, slots=True)
class Record:
    """What an exported SavedModel says of itself.

    Attributes:
        step: The step of the training.
        values: Checksums of all values in one text, or None.
    """

    step: int
    values: str | None


class SavedModelExporter:
    """Exports the SavedModels of one training after another.

    Args:
        directory: The base directory, or None: it exports nothing.
        policy: One of `POLICIES`.
        best: Compares the values of the metric that `"best"` looks at.
        max_to_keep: How many are kept, None or 0 for all; only its own are counted.
        signatures: Signatures, as `save_saved_model` takes them.
        options: Further arguments of `save_saved_model`.

    Raises:
        CheckpointError: If the policy or an option has no such name.
    """

    def __init__(
        self,
        directory: str | os.PathLike[str] | None,
        policy: str,
        best: Best,
        max_to_keep: int | None,
        signatures: Any,
        options: Mapping[str, Any],
    ) -> None:
        _check(directory, policy, options)
        self._directory = "" if directory is None else os.fspath(directory)
        self._target = self._directory
        self._policy = policy
        self._best = best
        self._max_to_keep = max_to_keep
        self._arguments = {"signatures": signatures, **options}
        self._work = BackgroundWork()
        self._model: Any = None
        self._replays = False
        self._missed = False  # whether it was said that the metric is not there
        self._step: int | None = None  # of the newest one in this `fit`
        self._tried: int | None = None
        self._before: tuple[float | None, int | None] = (best.best, None)

    @property
    def is_on(self) -> bool:
        """Whether it exports anything."""
        return bool(self._directory)

    def begin(self, model: Any, *, replays: bool) -> None:
        """Begins a `fit`.

        Args:
            model: The model.
            replays: Whether the training may have been here before, in a process that
                was killed: a SavedModel that it left is not written twice.
        """
        # Whoever changes the working directory meanwhile does not part the files.
        self._target = os.path.join(os.getcwd(), self._directory)
        self._model = model
        self._replays = replays
        self._missed = False
        self._step = self._tried = None

    def has(self, step: int) -> bool:
        """Whether this step was exported, is being exported, or failed to be."""
        return step in (self._step, self._tried)

    def is_due(self, moment: str, logs: Mapping[str, float]) -> bool:
        """Whether the policy wants a SavedModel.

        Args:
            moment: `SAVE`, `EPOCH_END` or `END`.
            logs: Values of the metrics.

        Returns:
            Whether `export` is to be called.
        """
        if self._policy != "best":
            return moment == {"latest": SAVE, "final": END}[self._policy]
        if moment == END:  # That of its last epoch was before.
            return False
        if self._best.monitor in logs:
            return self._best.improves(logs, self._model)
        if moment == EPOCH_END and not self._missed:
            self._missed = True
            warnings.warn(
                f'saved_model_policy="best" looks at {self._best.monitor!r}, which is '
                f"not among the metrics {sorted(logs)}. No SavedModel is written while "
                "that is so.",
                stacklevel=5,
            )
        return False

    def export(
        self,
        step: int,
        logs: Mapping[str, float],
        asynchronous: bool,
        report: Callable[[str], None],
    ) -> None:
        """Exports the values of the moment.

        Args:
            step: The step of the training.
            logs: Values of the metrics.
            asynchronous: Whether to write in the background.
            report: Is told the path of what was written.

        Raises:
            MetaGraphError: If the model cannot be exported.
        """
        self._before = (self._best.best, self._step)
        # A checkpoint that is written meanwhile knows of this one.
        self._best.accept(logs)
        self._step = self._tried = step
        prepared = prepare_saved_model(self._model, **self._arguments)
        shown, target, replays = self._directory, self._target, self._replays
        max_to_keep = self._max_to_keep

        def write() -> None:
            values = prepared.contents.values.values()
            record = Record(step, checksums(values) if replays else None)
            if replays and record in records(target).values():
                return
            path = next_version(target)
            text = json.dumps(dataclasses.asdict(record))
            prepared.write(path, {_RECORD: text.encode()})
            if max_to_keep:
                remove_oldest(target, max_to_keep)
            report(os.path.join(shown, os.path.basename(path)))

        if asynchronous:
            self._work.start(write)
        else:
            write()

    def settle(self) -> bool:
        """Waits until nothing is being written; says whether the last one came off."""
        return self._work.settle()

    def finish(self) -> None:
        """Waits until nothing is being written.

        Raises:
            MetaGraphError: If the last one could not be written.
        """
        self._work.wait()

    def undo(self) -> None:
        """Forgets the last one, which could not be written."""
        self._best.best, self._step = self._before

    def get_state(self) -> dict[str, Any]:
        """Says what a resumed run is to remember."""
        return {"best": self._best.best, "step": self._step, "before": self._before}

    def set_state(self, state: Mapping[str, Any]) -> None:
        """Remembers what an earlier run knew; of its last export, if that came off."""
        self._best.best, self._step = state["best"], state["step"]
        self._before = tuple(state["before"])
        steps = [record.step for record in records(self._target).values()]
        if self._step is not None and max(steps, default=-1) < self._step:
            self.undo()


def records(directory: str) -> dict[int, Record]:
    """Finds the SavedModels in a directory that this callback wrote.

    Args:
        directory: The base directory.

    Returns:
        Their records by version, the oldest first.
    """
    found = {}
    for name in os.listdir(directory) if os.path.isdir(directory) else ():
        path = os.path.join(directory, name)
        if _VERSION.fullmatch(name) and not os.path.islink(path):
            record = _read_record(os.path.join(path, "assets.extra", _RECORD))
            if record is not None:
                found[int(name)] = record
    return dict(sorted(found.items()))


def _read_record(path: str) -> Record | None:
    """Reads a record; anything else is another program's."""
    try:
        fields = json.loads(read_regular_file(path, _MOST_BYTES))
        step, values = fields["step"], fields["values"]
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return None
    return Record(step, values) if type(step) is int else None


def checksums(values: Iterable[Any]) -> str:
    """One checksum of many values, in their order."""
    text = json.dumps([checksum(value) for value in values])
    return hashlib.sha256(text.encode()).hexdigest()


def remove_oldest(directory: str, max_to_keep: int) -> None:
    """Removes what is too old; what cannot be removed costs a warning, no more.

    Args:
        directory: The base directory.
        max_to_keep: How many SavedModels of this callback are kept.
    """
    for version in list(records(directory))[:-max_to_keep]:
        path = os.path.join(directory, str(version))
        try:
            remove_directory(path)
        except OSError as error:
            warnings.warn(
                f"The old SavedModel {path!r} could not be removed: {error}",
                stacklevel=2,
            )


def _check(
    directory: str | os.PathLike[str] | None, policy: str, options: Mapping[str, Any]
) -> None:
    """Refuses what is known to be wrong before any training.

    Raises:
        CheckpointError: If there is something; lists all of it.
    """
    taken = inspect.signature(prepare_saved_model).parameters.keys()
    known = sorted(taken - {"graphs", "signatures", "checkpoint"})
    findings = [
        f"saved_model_options: {name!r}" for name in options if name not in known
    ]
    if policy not in POLICIES:
        findings.append(f"saved_model_policy={policy!r}")
    if directory is None and (options or policy != "latest"):
        findings.append("saved_model_dir=None, with options or a policy")
    if findings:
        raise CheckpointError(
            f"saved_model_policy is one of {POLICIES}, saved_model_options are some of "
            f"{known}, and both are for SavedModels in saved_model_dir. Received:",
            findings=sorted(findings),
            fix="leave them out, or pass saved_model_dir and what is in these lists.",
        )
