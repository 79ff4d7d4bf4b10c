"""Reads tensors from checkpoints of any TensorFlow."""

import math
import os
import re
import shutil
import tempfile
import weakref
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from keras_metagraph.errors import CheckpointError, MissingVariableError, nearest

_PATTERN = re.compile(r"[*?\[\]\\]")
_SHARDS = re.compile(r"-\?+-of-\d+$")
_ENDING = re.compile(r"|\.index|(?:\.data)?-\d{5}-of-\d{5}")

# V1 checkpoints write numbers in as few bytes as they need.
_MAX_EXPANSION = 16

# What TensorFlow raises for damaged checkpoints: its own errors, and what the
# conversions around them make of nonsense.
_READ_ERRORS = (
    tf.errors.OpError,
    OSError,
    ValueError,
    IndexError,
    KeyError,
    TypeError,
    RuntimeError,
    OverflowError,
    MemoryError,
)


class TensorReader:
    """The tensors of one checkpoint, read when they are asked for.

    Args:
        prefix: The checkpoint's prefix. The shards of a V1 checkpoint are written
            `name-?????-of-00002`.

    Attributes:
        prefix: The prefix.

    Raises:
        CheckpointError: If there is no checkpoint, or it cannot be opened.

    Example:
        >>> reader = TensorReader("run/model-120")
        >>> reader.read("dense/kernel").shape
        (12, 16)
    """

    def __init__(self, prefix: str | os.PathLike[str]) -> None:
        self.prefix = os.fsdecode(os.fspath(prefix))
        try:
            files = _files(self.prefix)
            self._stored_bytes = sum(map(os.path.getsize, files.values()))
            # tf.train.load_checkpoint would take a prefix without base name, such as
            # "run/", for a directory.
            self._plain = self._plain_prefix(files)
            self._reader = tf.compat.v1.train.NewCheckpointReader(self._plain)
            self._shapes: Mapping[str, Sequence[int]] = (
                self._reader.get_variable_to_shape_map()
            )
            self._dtypes: Mapping[str, Any] = self._reader.get_variable_to_dtype_map()
        except _READ_ERRORS as error:
            raise CheckpointError(
                f"The checkpoint {self.prefix!r} cannot be opened: {_text(error)}",
                fix="pass the prefix of a complete checkpoint: its .index and all its "
                ".data files, or its V1 file.",
            ) from error

    def _plain_prefix(self, files: Mapping[str, str]) -> str:
        """A prefix that TensorFlow does not take for a pattern of file names."""
        shards = _SHARDS.search(self.prefix)
        ending = shards.group() if shards else ""
        stem = self.prefix.removesuffix(ending)
        if not _PATTERN.search(stem):
            return self.prefix
        directory = tempfile.mkdtemp(prefix="keras_metagraph-")
        weakref.finalize(self, shutil.rmtree, directory, ignore_errors=True)
        for rest, path in files.items():
            os.symlink(os.path.abspath(path), os.path.join(directory, f"model{rest}"))
        return os.path.join(directory, f"model{ending}")

    def keys(self) -> list[str]:
        """Names of the tensors, sorted."""
        return sorted(self._shapes)

    def __contains__(self, key: object) -> bool:
        return key in self._shapes

    def shape(self, key: str) -> tuple[int, ...]:
        """The shape of a tensor; raises MissingVariableError if there is none."""
        self._require(key)
        return tuple(self._shapes[key])

    def dtype(self, key: str) -> tf.DType:
        """The type of a tensor; raises MissingVariableError if there is none."""
        self._require(key)
        return tf.dtypes.as_dtype(self._dtypes[key])

    def read(self, key: str) -> Any:
        """Reads a tensor.

        Args:
            key: Its name.

        Returns:
            A NumPy array, of objects for strings.

        Raises:
            MissingVariableError: If the checkpoint has no such tensor.
            CheckpointError: If the tensor cannot be read, or its checksum is wrong.
        """
        self._require(key)
        self._require_stored(key)
        try:
            value = self._get(key)
        except _READ_ERRORS as error:
            raise CheckpointError(
                f"The tensor {key!r} of the checkpoint {self.prefix!r} cannot be "
                f"read: {_text(error)}",
                fix="copy the checkpoint again, or use another one; this one is "
                "damaged.",
            ) from error
        if value.shape != self.shape(key):
            raise CheckpointError(
                f"The tensor {key!r} of the checkpoint {self.prefix!r} is damaged: its "
                f"shape is {value.shape}, and the index says {self.shape(key)}.",
                fix="copy the checkpoint again, or use another one.",
            )
        return value

    def _get(self, key: str) -> Any:
        try:
            value = self._reader.get_tensor(key)
        except tf.errors.UnimplementedError:
            # The parts of a variable in a V1 checkpoint: the kernel of the Saver's
            # own op puts them together, the reader does not.
            return tf.raw_ops.RestoreV2(
                prefix=self._plain,
                tensor_names=[key],
                shape_and_slices=[""],
                dtypes=[self.dtype(key)],
            )[0].numpy()
        # NumPy's own type for bytes would drop zeros at the end.
        kind = object if isinstance(value, bytes) else None
        return np.asarray(value, kind)

    def _require_stored(self, key: str) -> None:
        """Refuses what the files cannot hold, before memory is taken for it."""
        dtype = self.dtype(key)
        if dtype == tf.string:
            return
        size = math.prod(self.shape(key)) * dtype.size
        if size > _MAX_EXPANSION * self._stored_bytes:
            raise CheckpointError(
                f"The tensor {key!r} of the checkpoint {self.prefix!r} is damaged: it "
                f"would take {size:,} bytes, and all files of the checkpoint have "
                f"{self._stored_bytes:,}.",
                fix="copy the checkpoint again, or use another one.",
            )

    def _require(self, key: str) -> None:
        if key not in self._shapes:
            raise MissingVariableError(
                f"The checkpoint {self.prefix!r} has no tensor {key!r}"
                f"{nearest(key, self._shapes)}.",
                fix="take a name that the checkpoint has.",
            )


def _files(prefix: str) -> dict[str, str]:
    """The files of a checkpoint: full paths by what follows the prefix."""
    directory, base = os.path.split(_SHARDS.sub("", prefix))
    found = {}
    for name in os.listdir(directory or "."):
        ending = name.removeprefix(base)
        if name.startswith(base) and _ENDING.fullmatch(ending):
            found[ending] = os.path.join(directory, name)
    return found


def _text(error: BaseException) -> str:
    """What an error says, without the C++ class that says it."""
    text = getattr(error, "message", None) or str(error) or type(error).__name__
    return str(text).splitlines()[0]
