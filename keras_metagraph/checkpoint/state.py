"""The state file of a directory, which names its newest checkpoint.

TensorFlow's `CheckpointState` in text form; all tools know it. The names in it are
relative to its directory, so that the directory can be moved and renamed.
"""

import dataclasses
import os
from typing import Any

import tensorflow as tf
from google.protobuf import text_format

from keras_metagraph.checkpoint import durable, names
from keras_metagraph.checkpoint.retention import Kept

_MAX_STATE_BYTES = 16 << 20


@dataclasses.dataclass(frozen=True, slots=True)
class State:
    """What a state file says.

    Attributes:
        latest: Base name of the newest checkpoint, or None.
        kept: The checkpoints that are listed, oldest first.
        last_preserved: When the last one was written that is kept forever, in seconds
            since 1970, or None.
    """

    latest: str | None = None
    kept: tuple[Kept, ...] = ()
    last_preserved: float | None = None

    def to_text(self) -> str:
        """Returns the text of the state file."""
        proto = _new_proto()
        proto.model_checkpoint_path = self.latest or ""
        proto.all_model_checkpoint_paths.extend(kept.name for kept in self.kept)
        proto.all_model_checkpoint_timestamps.extend(
            kept.timestamp for kept in self.kept
        )
        if self.last_preserved is not None:
            proto.last_preserved_timestamp = self.last_preserved
        return str(text_format.MessageToString(proto))


def read_state(directory: str, filename: str = names.STATE_FILE) -> State:
    """Reads the state file of a directory.

    A missing or damaged one is an empty one, since the manifests say the same; and
    whatever paths it has, only base names are taken from it.

    Args:
        directory: Where the state file is.
        filename: Its name.

    Returns:
        What it says.
    """
    proto = _new_proto()
    try:
        text = durable.read_regular_file(
            os.path.join(directory, filename), _MAX_STATE_BYTES
        )
        text_format.Parse(text.decode("utf-8"), proto)
    except (OSError, UnicodeDecodeError, text_format.ParseError, RecursionError):
        return State()
    paths = list(proto.all_model_checkpoint_paths)
    times = list(proto.all_model_checkpoint_timestamps)
    if len(times) != len(paths):
        times = [0.0] * len(paths)
    kept = []
    for path, timestamp in zip(paths, times, strict=True):
        name = names.confine(path)
        if name is not None:
            kept.append(Kept(name, timestamp))
    return State(
        latest=names.confine(proto.model_checkpoint_path),
        kept=tuple(kept),
        last_preserved=proto.last_preserved_timestamp or None,
    )


def _new_proto() -> Any:
    """Makes an empty CheckpointState, whose class has no public name."""
    proto = tf.compat.v1.train.generate_checkpoint_state_proto("", "unnamed")
    proto.Clear()
    return proto
