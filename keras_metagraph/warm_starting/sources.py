"""Opens whatever holds the values of variables, and gives its tensors names.

A source lists tensors by the name that people know them by: `dense/kernel`. That is
the key in a name-based checkpoint, what the variable was called in an object-based one,
and the name in an HDF5 file of Keras 1 and 2. Files of Keras 3 know layers by name, and
the variables of a layer by their number: `dense/0`.
"""

import dataclasses
import os
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import cached_property
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from google.protobuf.message import DecodeError
from tensorflow.core.protobuf.trackable_object_graph_pb2 import TrackableObjectGraph

from keras_metagraph.audit.structure import check_structure
from keras_metagraph.checkpoint.reader import TensorReader
from keras_metagraph.checkpoint.restore import open_checkpoint
from keras_metagraph.errors import CheckpointError, FormatError
from keras_metagraph.export.object_graph import OBJECT_GRAPH_KEY
from keras_metagraph.formats import prefixes
from keras_metagraph.formats.keras_h5 import read_keras_h5
from keras_metagraph.formats.keras_weights import ARCHIVE_FILES, KerasWeights
from keras_metagraph.formats.registry import open_export
from keras_metagraph.graph.from_proto import graph_from_proto
from keras_metagraph.graph.ir import Graph

_H5_FILES = (".h5", ".hdf5")
_SAVED_MODEL = ("saved_model.pb", "saved_model.pbtxt")
_VALUE = re.compile(r"/\.ATTRIBUTES/(?:VARIABLE_VALUE|\.?[A-Za-z_]+)$")
# A model that Keras exports has a second copy of its variables.
_COPIES = "_all_variables/"
_NUMBER = re.compile(r"_\d+$")
# Scopes of what belongs to the training, in TensorFlow 1 and in Keras.
_STATE = frozenset(
    {"loss", "metrics", "optimizer", "train", "training"}
    | {name.lower() for name in dir(keras.optimizers)}
)


@dataclasses.dataclass(frozen=True, slots=True)
class StoredTensor:
    """A tensor of a source.

    Attributes:
        name: What it is called.
        shape: Its shape.
        dtype: Its type, as TensorFlow and Keras spell it.
        aliases: What else it can be called: its key, its path through objects.
        numbered: How many variables its layer has, where it is known by a number.
    """

    name: str
    shape: tuple[int, ...]
    dtype: str
    aliases: tuple[str, ...] = ()
    numbered: int | None = None


class Source:
    """The tensors of a file.

    Args:
        path: The file, or the prefix of the checkpoint.
        kind: What it is, to be read by people.
        tensors: Its tensors.
        read: Reads the value of one of them, by name.
        reader: The checkpoint, if it is one.
        load_graph: Loads the graph that lies beside it.

    Attributes:
        path: The file, or the prefix of the checkpoint.
        kind: What it is, to be read by people.
        tensors: Its tensors by name.
        reader: The checkpoint, if it is one.
    """

    def __init__(
        self,
        path: str,
        kind: str,
        tensors: Iterable[StoredTensor],
        read: Callable[[str], Any],
        reader: TensorReader | None = None,
        load_graph: Callable[[], Graph | None] = lambda: None,
    ) -> None:
        self.path = path
        self.kind = kind
        self.tensors = {tensor.name: tensor for tensor in tensors}
        self.reader = reader
        self._read = read
        self._load_graph = load_graph
        self._aliases = {
            alias: tensor.name
            for tensor in self.tensors.values()
            for alias in tensor.aliases
        }

    def find(self, name: str, place: tuple[int, int] | None = None) -> str | None:
        """Finds a tensor.

        Args:
            name: What it may be called, `"dense/kernel"`.
            place: Which variable of how many it is in its layer, for files that know
                only numbers. A layer that has fewer or more is another one.

        Returns:
            Its name, or None.
        """
        if name in self.tensors:
            return name
        if name in self._aliases:
            return self._aliases[name]
        if place is None:
            return None
        index, count = place
        layer = name.rpartition("/")[0]
        tensor = self.tensors.get(f"{layer}/{index}" if layer else str(index))
        return tensor.name if tensor and tensor.numbered == count else None

    def read(self, name: str) -> Any:
        """Reads the value of a tensor as a NumPy array."""
        return self._read(name)

    @cached_property
    def graph(self) -> Graph | None:
        """The graph that lies beside the checkpoint, parsed and not run."""
        return self._load_graph()

    @cached_property
    def scope(self) -> str:
        """The scope that all weights have in common, `"model/"`, or nothing."""
        outer = {name.partition("/")[0] for name in self.tensors if "/" in name}
        outer = {name for name in outer if _NUMBER.sub("", name) not in _STATE}
        return f"{outer.pop()}/" if len(outer) == 1 else ""


def open_source(filepath: str | os.PathLike[str]) -> Source:
    """Opens a file that holds the values of variables.

    Args:
        filepath: A checkpoint prefix, a `.meta` or `.index` file, a directory of
            checkpoints, a SavedModel directory, a `.keras`, `.weights.h5` or older
            `.h5` file.

    Returns:
        Its tensors; they are read when they are asked for.

    Raises:
        CheckpointError: If nothing is there, or it cannot be read.
        FormatError: If a file of Keras is damaged.

    Example:
        >>> open_source("run/model-120").tensors["dense/kernel"].shape
        (12, 16)
    """
    path = os.fsdecode(os.fspath(filepath))
    if path.endswith(ARCHIVE_FILES):
        return _keras_weights(path)
    if path.endswith(_H5_FILES):
        return _keras_h5(path)
    reader = open_checkpoint(_checkpoint(path))
    if OBJECT_GRAPH_KEY in reader:
        return _object_checkpoint(reader)
    tensors = [
        StoredTensor(
            key.removesuffix(":0"), reader.shape(key), reader.dtype(key).name, (key,)
        )
        for key in _keys(reader)
    ]
    keys = {tensor.name: tensor.aliases[0] for tensor in tensors}
    return Source(
        reader.prefix,
        "checkpoint by names",
        tensors,
        lambda name: reader.read(keys[name]),
        reader,
        lambda: _graph_beside(path if _is_saved_model(path) else reader.prefix),
    )


def _checkpoint(path: str) -> str:
    """The prefix of the checkpoint that a path means."""
    if _is_saved_model(path):
        return os.path.join(path, "variables", "variables")
    if os.path.isdir(path):
        return _newest(path)
    located = prefixes.locate(prefixes.graph_prefix(path))
    if located.checkpoint is None:
        raise CheckpointError(
            f"There is no checkpoint {path!r}"
            f"{': ' + located.note if located.note else ''}.",
            fix="pass a checkpoint prefix such as 'run/model-120', a directory of "
            "checkpoints, a SavedModel, or a .keras, .weights.h5 or .h5 file.",
        )
    return located.checkpoint


def _is_saved_model(path: str) -> bool:
    return any(os.path.exists(os.path.join(path, name)) for name in _SAVED_MODEL)


def _newest(directory: str) -> str:
    """The newest checkpoint of a directory; it needs no graph."""
    try:
        found: str | None = prefixes.newest(directory)[1].checkpoint
    except FormatError:
        found = None
    found = found or tf.train.latest_checkpoint(directory)
    if found is None:
        raise CheckpointError(
            f"The directory {directory!r} has no complete checkpoint that a state file "
            "names.",
            fix="pass the prefix of a checkpoint, such as 'run/model-120'.",
        )
    return found


def _graph_beside(path: str) -> Graph | None:
    """The graph of a checkpoint; None if there is none that can be read."""
    try:
        meta_graph_def = open_export(path).meta_graphs[0]
    except FormatError:
        return None
    check_structure(meta_graph_def)
    return graph_from_proto(meta_graph_def.graph_def)


def _object_checkpoint(reader: TensorReader) -> Source:
    """Names the tensors of `tf.train.Checkpoint` as their variables were called."""
    stored = list(_stored_variables(reader))
    counts = Counter(full_name for full_name, _ in stored)
    tensors, keys = [], {}
    for full_name, key in stored:
        path = _VALUE.sub("", key)
        name = full_name if full_name and counts[full_name] == 1 else path
        keys[name] = key
        tensors.append(
            StoredTensor(name, reader.shape(key), reader.dtype(key).name, (path, key))
        )
    return Source(
        reader.prefix,
        "checkpoint by objects",
        tensors,
        lambda name: reader.read(keys[name]),
        reader,
    )


def object_graph(reader: TensorReader) -> TrackableObjectGraph:
    """Reads the graph of objects of an object-based checkpoint.

    Args:
        reader: The checkpoint.

    Returns:
        The graph.

    Raises:
        CheckpointError: If it is damaged.
    """
    try:
        return TrackableObjectGraph.FromString(reader.read(OBJECT_GRAPH_KEY).item())
    except DecodeError as error:
        raise CheckpointError(
            f"The object graph of the checkpoint {reader.prefix!r} is damaged: {error}",
            fix="take another checkpoint.",
        ) from error


def _stored_variables(reader: TensorReader) -> Iterator[tuple[str, str]]:
    """Names and keys of the variables; what is no variable has no name."""
    named: dict[str, str] = {}
    for node in object_graph(reader).nodes:
        for attribute in node.attributes:
            if attribute.checkpoint_key in reader:
                full_name = attribute.full_name.removesuffix(":0")
                named[attribute.checkpoint_key] = full_name
    for key in _keys(reader):
        if key == OBJECT_GRAPH_KEY or reader.dtype(key) == tf.string:
            continue
        if not key.startswith(_COPIES):
            yield named.get(key, ""), key


def _keys(reader: TensorReader) -> list[str]:
    """The keys of a checkpoint, which is no mapping."""
    return reader.keys()


def _keras_weights(path: str) -> Source:
    """The layers of a file of Keras 3."""
    file = KerasWeights(path)
    tensors = [
        StoredTensor(
            name,
            array.shape,
            array.dtype,
            (array.path,),
            array.count,
        )
        for name, array in file.arrays.items()
    ]
    return Source(path, "weights file of Keras 3", tensors, file.read)


def _keras_h5(path: str) -> Source:
    """The weights in a file of Keras 1 or 2."""
    content = read_keras_h5(path)
    if content.backend not in ("", "tensorflow"):
        raise FormatError(
            f"{path!r} was written with Keras's backend {content.backend!r}, which "
            "lays out the kernels of convolutions in another way.",
            fix="load it as a model, which converts them, and save that one.",
        )
    arrays = dict(_legacy_arrays(content.weights))
    optimizer = content.optimizer_weights or []
    arrays |= {name.removesuffix(":0"): value for name, value in optimizer}
    tensors = [
        StoredTensor(name, value.shape, value.dtype.name)
        for name, value in arrays.items()
    ]
    return Source(path, "H5 file of Keras 2", tensors, arrays.__getitem__)


def _legacy_arrays(
    weights: Mapping[str, Sequence[tuple[str, Any]]],
) -> Iterator[tuple[str, np.ndarray[Any, Any]]]:
    """Weights by name; with the layer's where two layers have one of the same name."""
    counts = Counter(name for own in weights.values() for name, _ in own)
    for layer, own in weights.items():
        for name, value in own:
            full = name if counts[name] == 1 else f"{layer}/{name}"
            yield full.removesuffix(":0"), value
