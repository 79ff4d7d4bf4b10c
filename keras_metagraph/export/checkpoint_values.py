"""Values for an export from a checkpoint instead of from the model itself.

Checkpoints of TensorFlow are read tensor by tensor. Files of Keras are loaded by Keras,
which alone knows their layout; the model gets its own values back at once.
"""

import contextlib
import os
import warnings
from collections.abc import Container, Iterator, Mapping, Sequence
from typing import Any

import tensorflow as tf
from google.protobuf.message import DecodeError
from tensorflow.core.protobuf.trackable_object_graph_pb2 import TrackableObjectGraph

from keras_metagraph.checkpoint.restore import TensorReader, open_checkpoint
from keras_metagraph.checkpoint.snapshot import take_snapshot
from keras_metagraph.errors import (
    CheckpointError,
    MissingVariableError,
    ShapeMismatchError,
    nearest,
)
from keras_metagraph.export.names import NamedVariable
from keras_metagraph.export.object_graph import OBJECT_GRAPH_KEY, find_variables
from keras_metagraph.export.weight_files import file_differences

_KERAS_FILES = (".keras", ".h5", ".hdf5", ".weights.json")
_CHECKPOINT_PARTS = (".index", ".meta")


def checkpoint_values(
    model: Any, variables: Sequence[NamedVariable], checkpoint: str | os.PathLike[str]
) -> dict[str, Any]:
    """Reads the values of a model's variables from a checkpoint.

    Args:
        model: The model; it keeps the values that it has.
        variables: The variables wanted, with their names in TensorFlow 1.
        checkpoint: Prefix of a name-based or object-based checkpoint, a directory with
            a state file, or a `.keras`, `.weights.h5` or older `.h5` file.

    Returns:
        Values by name. What a checkpoint of weights only does not hold, optimizer and
        random seeds, has the model's present values.

    Raises:
        CheckpointError: If it cannot be read.
        MissingVariableError: If it lacks variables; lists all of them.
        ShapeMismatchError: If variables differ in shape or dtype; lists all of them.
    """
    path = os.fspath(checkpoint)
    if path.endswith(_KERAS_FILES):
        return _keras_values(model, variables, path)
    reader = open_checkpoint(_prefix(path))
    if OBJECT_GRAPH_KEY in reader:
        keys = _object_keys(model, variables, reader)
    else:
        keys = _name_keys(variables, reader)
    return _read(variables, keys, reader)


def _prefix(path: str) -> str:
    """The checkpoint prefix that a path means."""
    if os.path.isdir(path):
        newest = tf.train.latest_checkpoint(path)
        if newest is None:
            raise CheckpointError(
                f"The directory {path!r} has no state file that names a checkpoint.",
                fix="pass the prefix of a checkpoint, such as 'run/model-120'.",
            )
        return str(newest)
    for ending in _CHECKPOINT_PARTS:
        path = path.removesuffix(ending)
    return path


def _name_keys(
    variables: Sequence[NamedVariable], reader: TensorReader
) -> dict[str, str]:
    """Keys of a name-based checkpoint by name of the variable."""
    keys = {}
    for variable in variables:
        for key in (variable.name, f"{variable.name}:0", variable.path):
            if key in reader:
                keys[variable.name] = key
                break
    return keys


def _object_keys(
    model: Any, variables: Sequence[NamedVariable], reader: TensorReader
) -> dict[str, str]:
    """Keys of an object-based checkpoint by name of the variable."""
    object_graph = TrackableObjectGraph()
    try:
        object_graph.ParseFromString(reader.read(OBJECT_GRAPH_KEY).item())
    except DecodeError as error:
        raise CheckpointError(
            f"The object graph of the checkpoint {reader.prefix!r} is damaged: {error}",
            fix="take another checkpoint.",
        ) from error
    roots = [model, *([model.optimizer] if getattr(model, "optimizer", None) else [])]
    live = {id(_tf_variable(v.variable)): v.name for v in variables}
    names = {v.path: v.name for v in variables} | {v.name: v.name for v in variables}
    return find_variables(object_graph, roots, live, names)


def _tf_variable(variable: Any) -> Any:
    held = getattr(variable, "value", variable)
    return variable if callable(held) else held


def _read(
    variables: Sequence[NamedVariable], keys: Mapping[str, str], reader: TensorReader
) -> dict[str, Any]:
    """Reads all variables, or says what stands in the way."""
    missing = _missing(variables, keys)
    if missing:
        known = [key for key in sorted(reader.keys()) if key != OBJECT_GRAPH_KEY]
        raise MissingVariableError(
            f"The checkpoint {reader.prefix!r} lacks variables of the model:",
            findings=[
                f"{v.name} {tuple(v.variable.shape)}{nearest(v.name, known)}"
                for v in missing
            ],
            fix="pass a checkpoint of this model, or rename the layers.",
        )
    conflicts = []
    for variable in variables:
        key = keys.get(variable.name)
        if key is None:
            continue
        wanted = (tuple(variable.variable.shape), tf.as_dtype(variable.variable.dtype))
        stored = (tuple(reader.shape(key)), reader.dtype(key))
        if wanted != stored:
            conflicts.append(
                f"{variable.name}: {wanted[1].name} {wanted[0]} in the model, "
                f"{stored[1].name} {stored[0]} in the checkpoint, as {key!r}"
            )
    if conflicts:
        raise ShapeMismatchError(
            f"Variables differ between the model and the checkpoint {reader.prefix!r}:",
            findings=conflicts,
            fix="pass a checkpoint of this model.",
        )
    kept = take_snapshot({v.name: v.variable for v in variables if v.name not in keys})
    read = {name: reader.read(key) for name, key in keys.items()}
    values = {
        v.name: read[v.name] if v.name in read else kept[v.name] for v in variables
    }
    return values | _derived_values(variables, values, read)


def _derived_values(
    variables: Sequence[NamedVariable],
    values: Mapping[str, Any],
    read: Container[str],
) -> dict[str, Any]:
    """What follows from the steps in the checkpoint, unless it holds that itself."""
    by_variable = {id(v.variable): values[v.name] for v in variables}
    derived = [v for v in variables if v.role == "derived" and v.name not in read]
    return {
        v.name: v.variable.at(int(by_variable[id(v.variable.iterations)]))
        for v in derived
        if v.variable.base is not None
    }


def _missing(
    variables: Sequence[NamedVariable], keys: Mapping[str, str]
) -> list[NamedVariable]:
    """Variables that must be there: weights, and the optimizer's if any of it is."""
    roles = {v.role for v in variables if v.name in keys} | {"weight"}
    if "optimizer" not in roles and any(v.role == "optimizer" for v in variables):
        warnings.warn(
            "The checkpoint holds no state of the optimizer: the export has that of "
            "the model.",
            stacklevel=5,
        )
    needed = roles & {"weight", "optimizer"}
    return [v for v in variables if v.role in needed and v.name not in keys]


def _keras_values(
    model: Any, variables: Sequence[NamedVariable], path: str
) -> dict[str, Any]:
    """Loads a file of Keras into the model, and gives the model its values back."""
    if not os.path.exists(path):
        raise CheckpointError(
            f"There is no file {path!r}.", fix="pass the path of a weights file."
        )
    own = {v.name: v.variable for v in variables}
    kept = {v.name: v.variable for v in variables if v.role != "derived"}
    with _undone(model, kept):
        try:
            model.load_weights(path)
        except Exception as error:  # Keras raises what h5py and NumPy raise, too.
            raise ShapeMismatchError(
                f"The weights in {path!r} are not those of the model: {error}",
                findings=file_differences(model, path),
                fix="pass a file that was saved from this model.",
            ) from error
        return take_snapshot(own)


@contextlib.contextmanager
def _undone(model: Any, variables: Mapping[str, Any]) -> Iterator[None]:
    """Gives variables their values back at the end, whatever happens."""
    held = dict(variables) | {str(id(v)): v for v in model.variables}
    before = take_snapshot(held)
    try:
        yield
    finally:
        for name, value in before.items():
            held[name].assign(value)
