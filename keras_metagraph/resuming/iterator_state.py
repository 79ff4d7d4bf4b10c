"""The state of a `tf.data` iterator as bytes.

`tf.train.Checkpoint` knows how to write one; here it does so to files in memory.
"""

import contextlib
import secrets
from collections.abc import Iterator, Mapping
from typing import Any

import tensorflow as tf

from keras_metagraph.errors import CheckpointError

_ENDINGS = (".index", ".data-00000-of-00001")


def write_iterator(iterator: Any) -> dict[str, bytes] | None:
    """Writes where an iterator stands, with what it has read ahead.

    Args:
        iterator: A `tf.data` iterator.

    Returns:
        Files by ending, or None if the pipeline cannot be written: it has Python
        functions in it, or random ops that are stateful.
    """
    with _files() as prefix:
        try:
            tf.train.Checkpoint(iterator=iterator).write(prefix)
        except (tf.errors.FailedPreconditionError, tf.errors.UnimplementedError):
            return None
        return {ending: _read(prefix + ending) for ending in _ENDINGS}


def read_iterator(iterator: Any, files: Mapping[str, bytes]) -> None:
    """Puts an iterator where another one of an equal pipeline stood.

    Args:
        iterator: A `tf.data` iterator.
        files: What `write_iterator` returned.

    Raises:
        CheckpointError: If the pipelines differ.
    """
    with _files() as prefix:
        for ending in _ENDINGS:
            with tf.io.gfile.GFile(prefix + ending, "wb") as file:
                file.write(files[ending])
        try:
            tf.train.Checkpoint(iterator=iterator).read(prefix).assert_consumed()
        except (tf.errors.OpError, AssertionError) as error:
            reason = str(getattr(error, "message", error)).splitlines()[0]
            problem = (
                "The data of this run is another pipeline than that of the run that is "
                f"resumed: {reason}"
            )
            raise CheckpointError(
                problem, fix="pass fit the data that the run began with."
            ) from error


@contextlib.contextmanager
def _files() -> Iterator[str]:
    """A prefix of files in memory, which go when it is left."""
    # In a directory of its own: one without would be made in the working directory.
    directory = f"ram://keras_metagraph-{secrets.token_hex(8)}"
    tf.io.gfile.makedirs(directory)
    try:
        yield f"{directory}/iterator"
    finally:
        tf.io.gfile.rmtree(directory)


def _read(path: str) -> bytes:
    with tf.io.gfile.GFile(path, "rb") as file:
        return bytes(file.read())
