"""Finds the checkpoint that a run goes on from: the newest one that is whole."""

import contextlib
import dataclasses
import os

from keras_metagraph.checkpoint import names
from keras_metagraph.checkpoint.commit import Manifest, read_manifest, verify
from keras_metagraph.errors import CheckpointError


@dataclasses.dataclass(frozen=True, slots=True)
class Found:
    """What there is to go on from.

    Attributes:
        prefix: The checkpoint's prefix, or None: the run begins.
        manifest: Its manifest.
        damaged: Prefixes of newer ones that are damaged, and what is wrong with each.
    """

    prefix: str | None
    manifest: Manifest | None
    damaged: dict[str, list[str]]


def find_checkpoint(filepath: str) -> Found:
    """Finds the newest whole checkpoint of a series, by its manifests.

    Sizes and checksums of all its files are compared.

    Args:
        filepath: Directory and base name of the series, without step.

    Returns:
        What was found.

    Raises:
        CheckpointError: If there are checkpoints, and all of them are damaged.
        ProtocolVersionError: If a newer version of this package wrote the newest one.
    """
    damaged: dict[str, list[str]] = {}
    for prefix in _written(filepath):
        with contextlib.suppress(CheckpointError):
            read_manifest(prefix)  # A newer protocol is no damage.
        wrong = verify(prefix, contents=True)
        if not wrong:
            return Found(prefix, read_manifest(prefix), damaged)
        damaged[prefix] = wrong
    if damaged:
        raise CheckpointError(
            f"Every checkpoint of {filepath!r} is damaged, so there is nothing to "
            "resume from:",
            findings=[f"{p}: {'; '.join(wrong)}" for p, wrong in damaged.items()],
            fix="put undamaged copies in place; or, to train from scratch, choose "
            "another filepath or remove these.",
        )
    return Found(None, None, {})


def set_aside(prefix: str) -> str:
    """Renames the files of a damaged checkpoint, so that its step is free again.

    Args:
        prefix: Its prefix.

    Returns:
        The new prefix; it belongs to no series of steps.
    """
    directory, base = os.path.split(prefix)
    files = [
        name for name in os.listdir(directory or ".") if names.is_file_of(name, base)
    ]
    count = 0
    while any(
        os.path.lexists(os.path.join(directory, _aside(name, base, count)))
        for name in files
    ):
        count += 1
    for name in sorted(files, key=lambda name: name != names.manifest_path(base)):
        new = os.path.join(directory, _aside(name, base, count))
        os.rename(os.path.join(directory, name), new)
    return os.path.join(directory, _aside(base, base, count))


def _aside(name: str, base: str, count: int) -> str:
    number = f"-{count}" if count else ""
    return f"damaged{number}-{base}{name.removeprefix(base)}"


def _written(filepath: str) -> list[str]:
    """The prefixes of a series that have a manifest, the highest step first."""
    directory, base = os.path.split(filepath)
    found = []
    for name in os.listdir(directory) if os.path.isdir(directory) else ():
        prefix = names.prefix_of(name)
        stem, step = names.split_step(prefix)
        if name == names.manifest_path(prefix) and stem == base and step is not None:
            found.append((step, os.path.join(directory, prefix)))
    return [prefix for _, prefix in sorted(found, reverse=True)]
