"""One `fit` that can be resumed: what it notes at a save, and how it finds back.

A resumed `fit` begins with the interrupted epoch. Its first batches, those that were
trained on before the save, pass without training and without any callback being told;
then the data, the variables, the random generators and the callbacks are put where they
stood at the save, and the callbacks that come after the one that saved are told of the
batch or epoch that had just ended. From there on Keras goes on as it would have.
"""

import warnings
from collections.abc import Mapping
from typing import Any

import keras

from keras_metagraph.checkpoint.commit import Manifest
from keras_metagraph.checkpoint.reader import TensorReader
from keras_metagraph.errors import CheckpointError, ProtocolVersionError
from keras_metagraph.resuming.callback_state import (
    CallbackStates,
    continue_logs,
    log_sizes,
)
from keras_metagraph.resuming.data import DataPosition, check_data
from keras_metagraph.resuming.encoding import Encoder, decode
from keras_metagraph.resuming.fit_call import FitCall
from keras_metagraph.resuming.random_state import random_state, set_random_state
from keras_metagraph.resuming.variables import (
    PREFIX,
    TrainingVariables,
    describe_training,
    differences,
)

# Raise this number when a reader of this one would misread the record of a run.
PROTOCOL = 1

# What has just ended where a run stands. At the end of training all callbacks were
# told of the last epoch.
BATCH, EPOCH, TRAINING = "batch", "epoch", "training"


class ResumableRun:
    """Follows one `fit`, and puts it where an earlier one stood.

    Args:
        fit: The call of `fit`.
        owner: The callback that saves; it has `get_state` and `set_state`.
        prefix: The checkpoint to go on from, or None.
        manifest: Its manifest.

    Raises:
        CheckpointError: If the data or the checkpoint does not allow it.
    """

    def __init__(
        self, fit: FitCall, owner: Any, prefix: str | None, manifest: Manifest | None
    ) -> None:
        check_data(fit)
        _check_callbacks(fit, owner)
        self._fit = fit
        self._owner = owner
        self._reader: Any = None if prefix is None else TensorReader(prefix)
        self._record = {} if manifest is None else _record(manifest)
        self._skipping = bool(self._record)
        self._others = [each for each in fit.callbacks if each is not owner]
        place = next(i for i, each in enumerate(fit.callbacks) if each is owner)
        self._followers = list(fit.callbacks[place + 1 :])
        self._bars = [c for c in self._others if isinstance(c, _Bar)]
        self._description = describe_training(fit.model)
        self._executions = 0  # of this epoch
        self._logs: Any = None
        self._variables: Any = None  # TrainingVariables, once a batch has come
        self._begun: int | None = None  # the first epoch, in whatever process
        if self._record:
            self._begun = self._record["begun"]
            self._check()
            continue_logs(fit.callbacks, self._record["csv"])
        # After all others, so that what they forget at the beginning is forgotten.
        fit.call_last(owner)

    @property
    def skips(self) -> bool:
        """Whether the batches that come are those of before the save."""
        return self._skipping

    def begin(self) -> None:
        """Takes the training over, when every callback has begun."""
        self._states = CallbackStates(self._others)
        self._data = DataPosition(self._fit)
        model, fit = self._fit.model, self._fit
        self._train_function = _without_run(model.train_function)
        model.train_function = self._execute
        fit.call_all()
        if self._record:
            self._data.prepare(self._record["data"], self._record["epoch"])
            fit.start_at(self._record["epoch"])
            in_epoch = self._record["ended"] == BATCH
            fit.call_only([self._owner, *(self._bars if in_epoch else ())])

    def begin_epoch(self, epoch: int) -> None:
        """Notes the beginning of an epoch."""
        self._fit.start_as_usual()
        self._executions = 0
        if not self._skipping:
            if self._begun is None:
                self._begun = epoch
            self._data.begin_epoch()
            return
        self._data.restore_begin(self._record["data"], self._read)
        if self._record["ended"] != BATCH:
            # It was validated; only the callbacks are to hear of it.
            self._test_function = self._fit.model.test_function
            self._fit.model.test_function = self._skip_validation

    def end_batch(self) -> bool:
        """Ends a batch; returns whether it passed without training."""
        if not self._skipping:
            return False
        done = self._executions >= self._record["executions"]
        if done and self._record["ended"] == BATCH:
            self._go_on()
        return True

    def end_epoch(self) -> bool:
        """Ends an epoch; returns whether it was one of before the save."""
        if not self._skipping:
            return False
        self._fit.model.test_function = self._test_function
        self._data.restore_end(self._record["data"], self._read)
        self._go_on()
        return True

    def end(self) -> None:
        """Gives the training back to Keras."""
        if self._fit.model.train_function == self._execute:
            self._fit.model.train_function = self._train_function

    def record(
        self,
        names: Mapping[int, str],
        ended: str,
        epoch: int,
        batch: int | None,
        logs: Any,
    ) -> tuple[dict[str, Any], dict[str, Any]]:
        """Writes down where the run stands.

        Args:
            names: Names of the variables that the checkpoint holds anyway, by id.
            ended: What has just ended: `BATCH`, `EPOCH` or `TRAINING`.
            epoch: The epoch.
            batch: The batch that ended, or None.
            logs: The logs that the callback was called with.

        Returns:
            A record for JSON, and the tensors that it names.

        Raises:
            CheckpointError: If no batch was trained on yet.
        """
        encoder = Encoder(PREFIX)
        variables = self._variables
        if variables is None:
            raise CheckpointError(
                "Nothing was trained, so there is no place to resume from.",
                fix="see that the data has batches.",
            )
        record = {
            "protocol": PROTOCOL,
            "ended": ended,
            "begun": self._begun,
            "epoch": epoch,
            "batch": batch,
            "executions": self._executions,
            "steps": (self._owner.params or {}).get("steps"),
            "steps_per_execution": self._fit.model.steps_per_execution,
            "stop_training": bool(self._fit.model.stop_training),
            "description": encoder.encode(self._description),
            "variables": variables.place(names),
            "train_logs": encoder.encode(self._logs),
            "logs": encoder.encode(dict(logs or {})),
            "random": encoder.encode(random_state()),
            "data": self._data.encode(encoder),
            "callbacks": self._states.encode(encoder),
            "csv": log_sizes(self._others),
            "owner": encoder.encode(self._owner.get_state()),
        }
        return record, {**variables.extra_values(names), **encoder.tensors}

    def _check(self) -> None:
        """Refuses to go on with another training than that of the checkpoint.

        Raises:
            CheckpointError: If it is another one; lists all differences.
        """
        before = decode(self._record["description"], self._read)
        findings = differences(before, self._description)
        steps = self._fit.model.steps_per_execution
        if self._record["steps_per_execution"] != steps:
            was = self._record["steps_per_execution"]
            findings.append(f"steps_per_execution: {was} before, {steps} now")
        if findings:
            raise CheckpointError(
                f"The checkpoint {self._reader.prefix!r} is that of another training:",
                findings=findings,
                fix="run the script that wrote it, or choose another filepath.",
            )

    def _execute(self, iterator: Any) -> Any:
        """Trains one execution, or lets it pass; Keras's `train_function`."""
        if self._variables is None:
            self._begin_variables(iterator.element_spec)
        if self._skipping:
            return self._skip(iterator)
        self._logs = self._train_function(self._data.train_from(iterator))
        self._executions += 1
        return self._logs

    def _begin_variables(self, element_spec: Any) -> None:
        """Finds every variable; compares them with those of the checkpoint."""
        before = random_state()
        self._variables = TrainingVariables(self._fit.model, element_spec)
        if self._record:
            self._variables.check(self._record["variables"], self._reader.prefix)
            if self._record["epoch"] > self._begun:
                # Tracing draws seeds of new generators. In the run that is resumed it
                # did so in an earlier epoch.
                set_random_state(before)

    def _skip(self, iterator: Any) -> Any:
        """Lets an execution of before the save pass."""
        wanted = self._record["executions"]
        if self._executions >= wanted:
            raise StopIteration  # The epoch was over here.
        self._executions += 1
        if self._executions == wanted:
            at_end = self._record["ended"] != BATCH
            data = self._record["data"]
            self._data.restore(iterator, data, self._read, at_end=at_end)
            self._logs = decode(self._record["train_logs"], self._read)
        return self._logs or {}

    def _skip_validation(self, iterator: Any) -> Any:
        """Lets a validation of before the save pass; Keras's `test_function`."""
        self._fit.model.stop_evaluating = True
        return {}

    def _go_on(self) -> None:
        """Puts all where it stood, and tells the callbacks that are still to hear."""
        record, model = self._record, self._fit.model
        if record["ended"] == BATCH:  # The bars saw the batches pass.
            again = [each for each in self._others if each not in self._bars]
            waiting = [each for each in again if each in self._followers]
        else:
            waiting = self._followers if record["ended"] == EPOCH else []
            again = waiting
        self._variables.restore(record["variables"], self._reader)
        # They set up what lasts for an epoch; what they count is put right below.
        for callback in again:
            callback.on_epoch_begin(record["epoch"])
        unused = self._states.restore(record["callbacks"], self._read)
        self._variables.restore(record["variables"], self._reader)
        state = decode(record["random"], self._read)
        set_random_state({k: v for k, v in state.items() if k not in self._data.drew()})
        self._owner.set_state(decode(record["owner"], self._read))
        model.stop_training = record["stop_training"]
        logs = decode(record["logs"], self._read)
        self._skipping = False
        self._record, self._reader = {}, None
        self._fit.call_all()
        for callback in waiting:
            if record["ended"] == BATCH:
                callback.on_train_batch_end(record["batch"], logs)
            else:
                callback.on_epoch_end(record["epoch"], logs)
        if unused:
            warnings.warn(
                "Callbacks of the run that is resumed are not there: "
                f"{', '.join(unused)}. What they remembered is not used.",
                stacklevel=2,
            )

    def _read(self, name: str) -> Any:
        return self._reader.read(name)


def _check_callbacks(fit: FitCall, owner: Any) -> None:
    """Refuses a second callback that would resume the same run.

    Raises:
        CheckpointError: If there is one.
    """
    rivals = [
        type(each).__name__
        for each in fit.callbacks
        if each is not owner
        and (
            isinstance(each, keras.callbacks.BackupAndRestore)
            or (isinstance(each, type(owner)) and each.resume)
        )
    ]
    if rivals:
        raise CheckpointError(
            "One callback resumes a run. Others would resume it too:",
            findings=rivals,
            fix="leave resume=True to one of them, and leave out BackupAndRestore.",
        )


def _without_run(train_function: Any) -> Any:
    """The train function of Keras, under that of a run that was broken off."""
    owner = getattr(train_function, "__self__", None)
    return owner._train_function if isinstance(owner, ResumableRun) else train_function


def _record(manifest: Manifest) -> dict[str, Any]:
    """The record of a run in a manifest.

    Raises:
        CheckpointError: If there is none.
        ProtocolVersionError: If a newer version of this package wrote it.
    """
    record = manifest.progress.get("resume")
    if not isinstance(record, dict):
        raise CheckpointError(
            f"The newest checkpoint, {manifest.prefix!r}, does not say where its "
            "training stood: it was written without resume=True.",
            fix="go on from its model: load_from_meta_graph(...), and fit that with "
            "another filepath.",
        )
    if record["protocol"] > PROTOCOL:
        raise ProtocolVersionError(
            f"The checkpoint {manifest.prefix!r} has a record of protocol "
            f"{record['protocol']}, and this version of keras_metagraph reads "
            f"protocols up to {PROTOCOL}.",
            fix="install a newer keras_metagraph.",
        )
    return record


_Bar = keras.callbacks.ProgbarLogger
