"""The callback that writes MetaGraphs while a model is fitted."""

import math
import os
import re
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import keras

from keras_metagraph.checkpoint import names
from keras_metagraph.checkpoint.retention import Retention
from keras_metagraph.checkpoint.snapshot import read_value
from keras_metagraph.checkpoint.write import write_checkpoint
from keras_metagraph.errors import CheckpointError, MetaGraphError
from keras_metagraph.export.specs import watch_data
from keras_metagraph.saving import export_meta_graph, variable_values

# Parts of the names of metrics, and of their classes, by which way is better.
_LOWER = re.compile(
    "crossentropy|divergence|error|false|hinge|logcosh|loss|mae|mape|mse|msle"
    "|perplexity|poisson"
)
_HIGHER = re.compile(
    "acc|auc|cosine|f1|fbeta|iou|precision|r2|recall|sensitivity|specificity|true"
)


class MetaGraphCheckpoint(keras.callbacks.Callback):
    """Writes a TensorFlow 1 MetaGraph and a checkpoint during `fit`.

    Each save is `<filepath>-<step>` with the endings `.meta`, `.index`,
    `.data-00000-of-00001` and `.manifest`, the step being the number of steps that the
    optimizer has taken; and the file `checkpoint` of the directory names the newest
    one. TensorFlow 1 imports it, predicts and trains on, and
    `keras_metagraph.load_from_meta_graph` gives the model back.

    The graph is traced at the first save of each `fit`; later saves write values only.
    A save is finished before the training goes on. Under a `tf.distribute` strategy
    the chief writes.

    Args:
        filepath: Directory and base name of the checkpoints.
        monitor: Name of the metric that `save_best_only` looks at.
        verbose: 1 prints a line at every save.
        save_best_only: Whether to save only when `monitor` has improved.
        mode: `"min"`, `"max"`, or `"auto"`: by the name and class of the metric.
        save_freq: `"epoch"`, or the number of batches between two saves.
        initial_value_threshold: What `monitor` must be better than at the first save.
        max_to_keep: Number of checkpoints that are kept; None or 0 keeps all. Only
            checkpoints of this base name are counted and removed.
        keep_checkpoint_every_n_hours: Keeps one checkpoint in so many hours for ever.
        save_secs: Seconds between two saves, and a last one at the end of training,
            instead of every epoch.
        signatures: Further signatures, as `export_meta_graph` takes them.
        collections: Further collections, as `export_meta_graph` takes them.
        graphs: Which graphs are written: `"predict"`, `"eval"`, `"train"`.
        on_error: What a save that fails does: `"raise"` stops the training, `"warn"`
            goes on. Earlier checkpoints stay as they are.

    Raises:
        CheckpointError: If an argument has a value that is not in this list.

    Example:
        ```python
        model.fit(x, y, callbacks=[MetaGraphCheckpoint("run/model", max_to_keep=3)])
        model = load_from_meta_graph("run")
        ```
    """

    def __init__(
        self,
        filepath: str | os.PathLike[str] = "meta_graphs/model",
        monitor: str = "val_loss",
        verbose: int = 0,
        save_best_only: bool = False,
        mode: str = "auto",
        save_freq: str | int = "epoch",
        initial_value_threshold: float | None = None,
        *,
        max_to_keep: int | None = 5,
        keep_checkpoint_every_n_hours: float | None = None,
        save_secs: float | None = None,
        signatures: Any = None,
        collections: Mapping[str, Any] | None = None,
        graphs: Sequence[str] = ("predict", "eval", "train"),
        on_error: str = "raise",
    ) -> None:
        super().__init__()
        self.filepath = names.check_filepath(filepath)
        if on_error not in ("raise", "warn"):
            raise CheckpointError(
                f'on_error is "raise" or "warn". Received: on_error={on_error!r}',
                fix='leave it at "raise".',
            )
        self.verbose = verbose
        self.on_error = on_error
        self._target = self.filepath
        self._retention = Retention(max_to_keep, keep_checkpoint_every_n_hours)
        self._export_arguments = {
            "signatures": signatures,
            "collections": collections,
            "graphs": tuple(graphs),
        }
        self._cadence = _Cadence(save_freq, save_secs)
        self.save_best_only = save_best_only
        self._best = _Best(monitor, mode, initial_value_threshold)
        self._epoch = 0
        self._batches = 0  # of all fits
        self._fit_batches = 0
        self._counts_batches = False
        self._first_step = 0
        self._saved_step: int | None = None
        self._meta_graph: bytes | None = None

    def set_model(self, model: Any) -> None:
        """Takes the model, and notes what data its steps are about to see.

        Args:
            model: The model that is fitted.
        """
        super().set_model(model)
        watch_data(model)

    def on_train_begin(self, logs: Mapping[str, Any] | None = None) -> None:
        """Forgets the graph of an earlier `fit`, since the model may have changed."""
        # Whoever changes the working directory meanwhile does not part the files.
        self._target = os.path.join(os.getcwd(), self.filepath)
        self._meta_graph = None
        self._saved_step = None
        self._fit_batches = 0
        self._first_step = _iterations(self.model)
        if self._is_chief():
            self._handled(self._refuse_other_training)
        self._cadence.start()

    def on_epoch_begin(self, epoch: int, logs: Mapping[str, Any] | None = None) -> None:
        """Notes the epoch."""
        self._epoch = epoch

    def on_train_batch_end(
        self, batch: int, logs: Mapping[str, Any] | None = None
    ) -> None:
        """Saves, if the batches or the seconds are up."""
        steps = (self.params or {}).get("steps")
        if steps:  # Keras counts a last execution of fewer steps as a full one.
            batch = min(batch, steps - 1)
        new_batches = self._cadence.count(batch)
        self._batches += new_batches
        self._fit_batches += new_batches
        if self._cadence.is_due():
            self._save(batch, logs)

    def on_epoch_end(self, epoch: int, logs: Mapping[str, Any] | None = None) -> None:
        """Saves, unless batches or seconds are counted."""
        if self._cadence.per_epoch:
            self._save(None, logs)

    def on_train_end(self, logs: Mapping[str, Any] | None = None) -> None:
        """Saves what came after the last save, if seconds are counted."""
        if self._cadence.seconds is not None and self._fit_batches:
            self._save(None, logs)

    def _save(self, batch: int | None, logs: Mapping[str, Any] | None) -> None:
        """Saves if the model has changed, and is better where that is asked for."""
        step = self._step()
        if step == self._saved_step:
            return
        logs = _plain(logs or {})
        if self.save_best_only and not self._best.improves(logs, self.model):
            return
        saved = not self._is_chief() or self._handled(
            lambda: self._write(step, batch, logs)
        )
        if saved:
            self._best.accept(logs)
            self._saved_step = step
        self._cadence.start()

    def _write(self, step: int, batch: int | None, logs: dict[str, float]) -> None:
        """Writes one checkpoint."""
        if self._meta_graph is None:
            exported = export_meta_graph(self.model, **self._export_arguments)
            self._meta_graph = exported.SerializeToString(deterministic=True)
        write_checkpoint(
            names.step_prefix(self._target, step),
            variable_values(self.model),
            self._meta_graph,
            {"epoch": self._epoch, "batch": batch, "logs": _json_numbers(logs)},
            retention=self._retention,
        )
        if self.verbose:
            shown = names.step_prefix(self.filepath, step)
            print(f"\nEpoch {self._epoch + 1}: saved the model to {shown}")

    def _step(self) -> int:
        """The optimizer's steps; the batches seen, where it takes none.

        A train step of the user's own may use other optimizers.
        """
        step = _iterations(self.model)
        optimizer = getattr(self.model, "optimizer", None)
        may_wait = isinstance(optimizer, keras.optimizers.LossScaleOptimizer) or (
            (getattr(optimizer, "gradient_accumulation_steps", 0) or 0)
            > self._fit_batches
        )
        self._counts_batches = step == self._first_step and not may_wait
        return self._batches if self._counts_batches else step

    def _refuse_other_training(self) -> None:
        """Refuses a directory in which another training went further than this one.

        Its names would be met later, and never written over; and it would be taken for
        the newest state of this one.

        Raises:
            CheckpointError: If there are later steps than the model's.
        """
        directory, base = os.path.split(self._target)
        current = self._batches if self._counts_batches else self._first_step
        ahead = set()
        for name in os.listdir(directory) if os.path.isdir(directory) else ():
            prefix = names.prefix_of(name)
            found, step = names.split_step(prefix)
            if prefix != name and found == base and (step or 0) > current:
                ahead.add(step)
        if ahead:
            raise CheckpointError(
                f"{self.filepath!r} has checkpoints of another training, up to step "
                f"{max(step or 0 for step in ahead)}, and the optimizer of this one is "
                f"at step {current}. Checkpoints are never written over.",
                fix="choose another filepath; or load the newest checkpoint with "
                f"load_from_meta_graph({os.path.dirname(self.filepath) or '.'!r}) and "
                "fit that; or remove the old ones.",
            )

    def _is_chief(self) -> bool:
        """Whether this process writes; others of a cluster do not."""
        strategy = self.model.distribute_strategy
        return bool(getattr(strategy.extended, "should_checkpoint", True))

    def _handled(self, action: Callable[[], None]) -> bool:
        """Runs a part of a save; does with its error what the user chose."""
        try:
            action()
        except MetaGraphError as error:
            if self.on_error == "raise":
                raise
            warnings.warn(f"No checkpoint was written. {error}", stacklevel=4)
            return False
        return True


class _Cadence:
    """Says when a save is due: after epochs, batches or seconds."""

    def __init__(self, save_freq: str | int, save_secs: float | None) -> None:
        counted = isinstance(save_freq, int) and not isinstance(save_freq, bool)
        if not (save_freq == "epoch" or (counted and int(save_freq) > 0)):
            raise CheckpointError(
                'save_freq is "epoch" or a number of batches above 0. '
                f"Received: save_freq={save_freq!r}",
                fix='leave it at "epoch", or pass a number.',
            )
        if save_secs is not None and (counted or save_secs < 0):
            raise CheckpointError(
                "save_secs is a number of seconds, and takes the place of save_freq. "
                f"Received: save_secs={save_secs!r}, save_freq={save_freq!r}",
                fix="pass one of the two.",
            )
        self.batches = int(save_freq) if counted else None
        self.seconds = save_secs
        self.per_epoch = not counted and save_secs is None
        self._last_batch = -1
        self._batches_since = 0
        self._started = 0.0

    def start(self) -> None:
        """Starts to count the seconds again."""
        self._started = time.monotonic()

    def count(self, batch: int) -> int:
        """Counts the batches up to this one; several where steps run in one go."""
        if batch <= self._last_batch:  # a new epoch
            self._last_batch = -1
        new = batch - self._last_batch
        self._last_batch = batch
        self._batches_since += new
        return new

    def is_due(self) -> bool:
        """Whether the batches or the seconds are up; then batches start again."""
        if self.batches is not None and self._batches_since >= self.batches:
            self._batches_since = 0
            return True
        return (
            self.seconds is not None
            and time.monotonic() - self._started >= self.seconds
        )


class _Best:
    """Keeps the best value of a metric."""

    def __init__(self, monitor: str, mode: str, best: float | None) -> None:
        if mode not in ("auto", "min", "max"):
            raise CheckpointError(
                f'mode is "auto", "min" or "max". Received: mode={mode!r}',
                fix='leave it at "auto".',
            )
        self.monitor = monitor
        self.mode = mode
        self.best = best

    def improves(self, logs: Mapping[str, float], model: Any) -> bool:
        """Whether the new value is better; without a value the model is saved."""
        current = logs.get(self.monitor)
        if current is None:
            warnings.warn(
                f"save_best_only looks at {self.monitor!r}, which is not among the "
                f"metrics {sorted(logs)}. The model is saved each time.",
                stacklevel=5,
            )
            return True
        wants_more = self._direction(model) == "max"
        if math.isnan(current):
            return False
        if self.best is None:
            return True
        return current > self.best if wants_more else current < self.best

    def accept(self, logs: Mapping[str, float]) -> None:
        """Takes the value of a model that was saved."""
        self.best = logs.get(self.monitor, self.best)

    def _direction(self, model: Any) -> str:
        """Says whether more of the metric is better, or less."""
        if self.mode != "auto":
            return self.mode
        name = self.monitor.removeprefix("val_")
        kinds = [
            type(metric).__name__
            for group in getattr(model, "metrics", ())
            for metric in getattr(group, "metrics", (group,))
            if metric.name == name
        ]
        for text in (*kinds, name):
            for mode, pattern in (("min", _LOWER), ("max", _HIGHER)):
                if pattern.search(text.lower().replace("_", "")):
                    return mode
        raise CheckpointError(
            f"Whether more of {self.monitor!r} is better, or less, cannot be told by "
            "its name.",
            fix='pass mode="max" or mode="min".',
        )


def _iterations(model: Any) -> int:
    """The steps that the optimizer of a model has taken."""
    optimizer = getattr(model, "optimizer", None)
    return 0 if optimizer is None else int(read_value(optimizer.iterations))


def _plain(logs: Mapping[str, Any]) -> dict[str, float]:
    """The logs that are single numbers, as Python has them."""
    plain = {}
    for name, value in logs.items():
        number = keras.ops.convert_to_numpy(value)
        if number.ndim == 0:
            plain[name] = float(number)
    return plain


def _json_numbers(logs: Mapping[str, float]) -> dict[str, float | str]:
    """The logs for JSON, which has no infinity and no NaN: as text."""
    return {
        name: value if math.isfinite(value) else str(value)
        for name, value in logs.items()
    }
