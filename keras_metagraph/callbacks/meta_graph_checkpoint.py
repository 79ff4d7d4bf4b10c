"""The callback that writes MetaGraphs while a model is fitted."""

import math
import os
import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import keras

from keras_metagraph.callbacks.cadence import Best, Cadence
from keras_metagraph.callbacks.exporters import (
    END,
    EPOCH_END,
    SAVE,
    SavedModelExporter,
)
from keras_metagraph.checkpoint import names
from keras_metagraph.checkpoint.background import BackgroundWork, wait_for_all
from keras_metagraph.checkpoint.retention import Retention
from keras_metagraph.checkpoint.snapshot import read_value, take_snapshot
from keras_metagraph.checkpoint.write import clear_leftovers, write_checkpoint
from keras_metagraph.errors import CheckpointError, MetaGraphError
from keras_metagraph.export.specs import watch_data
from keras_metagraph.resuming.fit_call import find_fit
from keras_metagraph.resuming.run import BATCH, EPOCH, TRAINING, ResumableRun
from keras_metagraph.resuming.search import find_checkpoint, set_aside
from keras_metagraph.saving import checkpoint_variables, export_meta_graph


class MetaGraphCheckpoint(keras.callbacks.Callback):
    """Writes a TensorFlow 1 MetaGraph and a checkpoint during `fit`.

    Each save is `<filepath>-<step>` with the endings `.meta`, `.index`,
    `.data-00000-of-00001` and `.manifest`, the step being the number of steps that the
    optimizer has taken; and the file `checkpoint` of the directory names the newest
    one. TensorFlow 1 imports it, predicts and trains on, and
    `keras_metagraph.load_from_meta_graph` gives the model back.

    The graph is traced at the first save of each `fit`; later saves write values only,
    in the background: the values are those of the moment, however training goes on. At
    most one save is under way; the next one and the end of training wait for it. Under
    a `tf.distribute` strategy the chief writes.

    With `resume=True` a `fit` that was killed, at any moment, goes on when the same
    program is started again, from the newest checkpoint that is whole; and on a CPU
    weights, optimizer, metrics, history and callbacks come out bit for bit as if it had
    not been killed. See the page "Resuming" for what data can be resumed.

    With `saved_model_dir` it exports SavedModels too, as the exporters of
    `tf.estimator` did: each in a directory called after the time, in seconds since
    1970, where TF Serving looks for versions. See the page "Serving".

    Args:
        filepath: Directory and base name of the checkpoints.
        monitor: Name of the metric that `save_best_only` looks at.
        verbose: 1 prints a line at every save.
        save_best_only: Whether to save only when `monitor` has improved.
        mode: `"min"`, `"max"`, or `"auto"`: by the name and class of the metric.
        save_freq: `"epoch"`, or the number of batches between two saves.
        initial_value_threshold: What `monitor` must be better than at the first save.
        max_to_keep: Number of checkpoints that are kept, and of SavedModels; None or 0
            keeps all. Only checkpoints of this base name, and SavedModels that this
            callback wrote, are counted and removed.
        keep_checkpoint_every_n_hours: Keeps one checkpoint in so many hours for ever.
        save_secs: Seconds between two saves, and a last one at the end of training,
            instead of every epoch.
        signatures: Further signatures, as `export_meta_graph` takes them; those of the
            SavedModels, too.
        collections: Further collections, as `export_meta_graph` takes them.
        graphs: Which graphs are written: `"predict"`, `"eval"`, `"train"`.
        on_error: What a save that fails does: `"raise"` stops the training, `"warn"`
            goes on. Earlier checkpoints stay as they are.
        resume: Whether checkpoints say where the training stands, and `fit` goes on
            from the newest one. Where there is none it begins.
        asynchronous: Whether saves are written in the background.
        saved_model_dir: Directory of the SavedModels; None writes none.
        saved_model_policy: When one is exported. `"latest"`: at every save. `"best"`:
            when `monitor` has improved, at a save or the end of an epoch. `"final"`: at
            the end of training.
        saved_model_options: Further arguments of `save_saved_model`, such as
            `{"assets_extra": {...}, "layout": "estimator"}`.

    Raises:
        CheckpointError: If an argument has a value that is not in this list. In `fit`,
            if a save fails, or if the directory has checkpoints of another training.

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
        resume: bool = False,
        asynchronous: bool = True,
        saved_model_dir: str | os.PathLike[str] | None = None,
        saved_model_policy: str = "latest",
        saved_model_options: Mapping[str, Any] | None = None,
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
        self.resume = resume
        self.asynchronous = asynchronous
        self._target = self.filepath
        self._retention = Retention(max_to_keep, keep_checkpoint_every_n_hours)
        self._export_arguments = {
            "signatures": signatures,
            "collections": collections,
            "graphs": tuple(graphs),
        }
        self._cadence = Cadence(save_freq, save_secs)
        self.save_best_only = save_best_only
        self._best = Best(monitor, mode, initial_value_threshold)
        self._exporter = SavedModelExporter(
            saved_model_dir,
            saved_model_policy,
            Best(monitor, mode, initial_value_threshold),
            max_to_keep,
            signatures,
            saved_model_options or {},
        )
        self._epoch = 0
        self._batches = 0  # of all fits
        self._fit_batches = 0
        self._counts_batches = False
        self._first_step = 0
        self._saved_step: int | None = None
        self._meta_graph: bytes | None = None
        self._work = BackgroundWork()
        self._before_save: tuple[float | None, int | None] = (None, None)
        self._run: ResumableRun | None = None
        self._resumed_step = 0
        self._repeated: set[int] = set()

    def set_model(self, model: Any) -> None:
        """Takes the model, notes what data its steps are about to see, and resumes.

        Args:
            model: The model that is fitted.

        Raises:
            CheckpointError: If the training cannot be resumed.
        """
        super().set_model(model)
        watch_data(model)
        # Whoever changes the working directory meanwhile does not part the files.
        self._target = os.path.join(os.getcwd(), self.filepath)
        self._run = self._find_run() if self.resume else None

    def on_train_begin(self, logs: Mapping[str, Any] | None = None) -> None:
        """Forgets the graph of an earlier `fit`, since the model may have changed."""
        self._finish_save()
        self._finish_export()
        self._meta_graph = None
        self._saved_step = None
        self._fit_batches = 0
        self._first_step = _iterations(self.model)
        if self._is_chief():
            self._handled(self._refuse_other_training)
        replays = self.resume or self._is_resumed_by_another()
        self._exporter.begin(self.model, replays=replays)
        self._cadence.start()
        if self._run is not None:
            self._run.begin()

    def on_epoch_begin(self, epoch: int, logs: Mapping[str, Any] | None = None) -> None:
        """Notes the epoch."""
        self._epoch = epoch
        if self._run is not None:
            self._run.begin_epoch(epoch)

    def on_train_batch_end(
        self, batch: int, logs: Mapping[str, Any] | None = None
    ) -> None:
        """Saves, if the batches or the seconds are up."""
        if self._run is not None and self._run.end_batch():
            return
        steps = (self.params or {}).get("steps")
        if steps:  # Keras counts a last execution of fewer steps as a full one.
            batch = min(batch, steps - 1)
        new_batches = self._cadence.count(batch)
        self._batches += new_batches
        self._fit_batches += new_batches
        if self._cadence.is_due():
            self._save(BATCH, batch, logs)

    def on_epoch_end(self, epoch: int, logs: Mapping[str, Any] | None = None) -> None:
        """Saves, unless batches or seconds are counted."""
        if self._run is not None and self._run.end_epoch():
            return
        self._export(EPOCH_END, logs)
        if self._cadence.per_epoch:
            self._save(EPOCH, None, logs)

    def on_train_end(self, logs: Mapping[str, Any] | None = None) -> None:
        """Saves what came after the last save, and waits for it.

        Where batches are counted only to resume: the same program does nothing then.
        """
        if self._fit_batches:
            self._export(END, logs)
        counts_seconds = self._cadence.seconds is not None
        if (counts_seconds or self.resume) and self._fit_batches:
            self._save(TRAINING, None, logs)
        self._finish_save()
        self._finish_export()
        if self._run is not None:
            self._run.end()
            self._run = None

    def get_state(self) -> dict[str, Any]:
        """Says what a resumed run is to remember.

        Returns:
            Plain values, as `set_state` takes them.
        """
        return {
            "batches": self._batches,
            "fit_batches": self._fit_batches,
            "first_step": self._first_step,
            "saved_step": self._saved_step,
            "best": self._best.best,
            "cadence": self._cadence.get_state(),
            "exporter": self._exporter.get_state(),
        }

    def set_state(self, state: Mapping[str, Any]) -> None:
        """Remembers what an earlier run knew.

        Args:
            state: What `get_state` returned.
        """
        self._batches = state["batches"]
        self._fit_batches = state["fit_batches"]
        self._first_step = state["first_step"]
        self._saved_step = state["saved_step"]
        self._best.best = state["best"]
        self._cadence.set_state(state["cadence"])
        if "exporter" in state:  # Older checkpoints have none.
            self._exporter.set_state(state["exporter"])

    def _find_run(self) -> ResumableRun:
        """Finds the checkpoint to go on from, and prepares to.

        Raises:
            CheckpointError: If there is none that fits.
        """
        fit = find_fit(self, self.model)
        if fit is None:
            raise CheckpointError(
                "A callback with resume=True has to be in a list that fit is called "
                "with.",
                fix="call model.fit(..., callbacks=[...]).",
            )
        wait_for_all()  # of a fit that was interrupted
        clear_leftovers(self._target)
        found = find_checkpoint(self._target)
        run = ResumableRun(fit, self, found.prefix, found.manifest)
        for prefix, wrong in found.damaged.items():
            moved = set_aside(prefix)
            warnings.warn(
                f"The checkpoint {prefix!r} is damaged: {'; '.join(wrong)}. It is now "
                f"called {moved!r}, and the training goes on from {found.prefix!r}.",
                stacklevel=4,
            )
        if found.prefix is not None and self.verbose:
            print(f"Resuming from {found.prefix}")
        self._resumed_step = names.split_step(found.prefix or "")[1] or 0
        return run

    def _save(
        self, ended: str, batch: int | None, logs: Mapping[str, Any] | None
    ) -> None:
        """Saves if the model has changed, and is better where that is asked for."""
        self._finish_save()
        step = self._step()
        if step == self._saved_step:
            return
        plain = _plain(logs or {})
        if self.save_best_only and not self._best.improves(plain, self.model):
            return
        best, saved_step = self._best.best, self._saved_step
        # What is written knows of itself.
        self._best.accept(plain)
        self._saved_step = step
        self._export(SAVE, logs)
        if self._is_chief() and step not in self._repeated:
            self._before_save = (best, saved_step)
            self._handled(
                lambda: self._start_save(step, ended, batch, logs), self._undo
            )
        self._cadence.start()

    def _start_save(
        self, step: int, ended: str, batch: int | None, logs: Mapping[str, Any] | None
    ) -> None:
        """Takes the values of the moment, and starts to write them."""
        if self._meta_graph is None:
            exported = export_meta_graph(self.model, **self._export_arguments)
            self._meta_graph = exported.SerializeToString(deterministic=True)
        variables = checkpoint_variables(self.model)
        values = take_snapshot(variables)
        numbers = _json_numbers(_plain(logs or {}))
        progress = {"epoch": self._epoch, "batch": batch, "logs": numbers}
        if self._run is not None:
            known = {id(variable): name for name, variable in variables.items()}
            record, tensors = self._run.record(known, ended, self._epoch, batch, logs)
            progress["resume"] = record
            values |= take_snapshot(tensors)
        prefix = names.step_prefix(self._target, step)
        shown = names.step_prefix(self.filepath, step)
        meta_graph, retention = self._meta_graph, self._retention
        message = f"\nEpoch {self._epoch + 1}: saved the model to {shown}"
        verbose, exporter = self.verbose, self._exporter
        stops = self.on_error == "raise"

        def write() -> None:
            # A run that goes on from here takes this step for exported.
            if not exporter.settle() and stops:
                return
            write_checkpoint(prefix, values, meta_graph, progress, retention=retention)
            if verbose:
                print(message)

        if self.asynchronous:
            self._work.start(write)
        else:
            write()

    def _finish_save(self) -> None:
        """Waits for the save that is under way, and for its error."""
        self._handled(self._work.wait, self._undo)

    def _export(self, moment: str, logs: Mapping[str, Any] | None) -> None:
        """Exports a SavedModel, if one is due."""
        exporter, step = self._exporter, self._step()
        if not exporter.is_on or exporter.has(step) or not self._is_chief():
            return
        self._finish_export()
        plain = _plain(logs or {})
        if exporter.is_due(moment, plain):
            epoch, verbose = self._epoch, self.verbose

            def report(path: str) -> None:
                if verbose:
                    print(f"\nEpoch {epoch + 1}: exported the model to {path}")

            self._handled(
                lambda: exporter.export(step, plain, self.asynchronous, report),
                exporter.undo,
                "SavedModel",
            )

    def _finish_export(self) -> None:
        """Waits for the SavedModel that is being written, and for its error."""
        self._handled(self._exporter.finish, self._exporter.undo, "SavedModel")

    def _undo(self) -> None:
        """Forgets a save that failed."""
        self._best.best, self._saved_step = self._before_save

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
        current = max(current, self._resumed_step)
        ahead = set()
        for name in os.listdir(directory) if os.path.isdir(directory) else ():
            prefix = names.prefix_of(name)
            found, step = names.split_step(prefix)
            if prefix != name and found == base and (step or 0) > current:
                ahead.add(step or 0)
        self._repeated = ahead if self._is_resumed_by_another() else set()
        if ahead - self._repeated:
            raise CheckpointError(
                f"{self.filepath!r} has checkpoints of another training, up to step "
                f"{max(ahead)}, and the optimizer of this one is at step {current}. "
                "Checkpoints are never written over.",
                fix="go on with that training, if it was saved with resume=True: pass "
                "resume=True; or choose another filepath; or load the newest "
                "checkpoint with "
                f"load_from_meta_graph({os.path.dirname(self.filepath) or '.'!r}) and "
                "fit that; or remove the old ones.",
            )

    def _is_resumed_by_another(self) -> bool:
        """Whether another callback goes on with the training that this one was in."""
        fit = None if self.resume else find_fit(self, self.model)
        return fit is not None and any(
            isinstance(each, MetaGraphCheckpoint) and each.resume and each._resumed_step
            for each in fit.callbacks
        )

    def _is_chief(self) -> bool:
        """Whether this process writes; others of a cluster do not."""
        strategy = self.model.distribute_strategy
        return bool(getattr(strategy.extended, "should_checkpoint", True))

    def _handled(
        self,
        action: Callable[[], None],
        undo: Callable[[], None] = lambda: None,
        what: str = "checkpoint",
    ) -> None:
        """Runs a part of a save; does with its error what the user chose."""
        try:
            action()
        except BaseException as error:
            undo()
            if self.on_error == "raise" or not isinstance(error, MetaGraphError):
                raise
            warnings.warn(f"No {what} was written. {error}", stacklevel=5)


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
