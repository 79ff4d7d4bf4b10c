"""Which checkpoints of a directory are kept: the rules of `tf.train.Saver`."""

import dataclasses
from collections.abc import Sequence

from keras_metagraph.errors import CheckpointError

_HOUR = 3600.0


@dataclasses.dataclass(frozen=True, slots=True)
class Retention:
    """How many checkpoints are kept, and which ones forever.

    Args:
        max_to_keep: The newest so many are kept; None or 0 keeps all.
        keep_checkpoint_every_n_hours: Of those that would go, one in so many hours is
            kept forever; None keeps none of them.

    Raises:
        CheckpointError: If one of them is negative, or the hours are 0.

    Example:
        >>> Retention(max_to_keep=2).max_to_keep
        2
    """

    max_to_keep: int | None = 5
    keep_checkpoint_every_n_hours: float | None = None

    def __post_init__(self) -> None:
        hours = self.keep_checkpoint_every_n_hours
        findings = []
        if self.max_to_keep is not None and self.max_to_keep < 0:
            findings.append(f"max_to_keep={self.max_to_keep}")
        if hours is not None and hours <= 0:
            findings.append(f"keep_checkpoint_every_n_hours={hours}")
        if findings:
            raise CheckpointError(
                "What to keep is a number of checkpoints (0 or None: all of them) and "
                "a number of hours above 0, or None. Received:",
                findings=findings,
                fix="pass numbers in these ranges.",
            )


@dataclasses.dataclass(frozen=True, slots=True)
class Kept:
    """One checkpoint that the state file lists.

    Attributes:
        name: Its base name.
        timestamp: When it was written, in seconds since 1970.
    """

    name: str
    timestamp: float


@dataclasses.dataclass(frozen=True, slots=True)
class Selection:
    """What becomes of the checkpoints of a directory.

    Attributes:
        listed: Those that stay in the state file, oldest first.
        pruned: Those whose files go.
        last_preserved: The time stamp of the last one that is kept forever.
    """

    listed: tuple[Kept, ...]
    pruned: tuple[Kept, ...]
    last_preserved: float | None


def select(
    entries: Sequence[Kept], policy: Retention, last_preserved: float | None
) -> Selection:
    """Applies a policy to the checkpoints of one series.

    As in TensorFlow a checkpoint that is kept forever leaves the list of the state
    file, but not the disk.

    Args:
        entries: The checkpoints, oldest first, the new one last.
        policy: What to keep.
        last_preserved: The time stamp of the last one that was kept forever, or the
            time at which the series began, in seconds since 1970.

    Returns:
        What is listed, what is pruned, and the new `last_preserved`.

    Example:
        >>> entries = [Kept("model-1", 0.0), Kept("model-2", 1.0)]
        >>> select(entries, Retention(max_to_keep=1), None).pruned
        (Kept(name='model-1', timestamp=0.0),)
    """
    hours = policy.keep_checkpoint_every_n_hours
    if hours is not None and last_preserved is None and entries:
        last_preserved = entries[0].timestamp
    surplus = len(entries) - policy.max_to_keep if policy.max_to_keep else 0
    pruned = []
    for entry in entries[: max(surplus, 0)]:
        if (
            hours is not None
            and last_preserved is not None
            and entry.timestamp - last_preserved >= hours * _HOUR
        ):
            last_preserved = entry.timestamp
        else:
            pruned.append(entry)
    return Selection(tuple(entries[max(surplus, 0) :]), tuple(pruned), last_preserved)
