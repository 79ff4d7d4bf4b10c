"""What makes a save count: the manifest beside it, and the state file.

A checkpoint is complete when its manifest is there: one JSON with the size and the
SHA-256 of every other file, written last. Neither the `.meta` nor the set of files has
a check of its own, so a damaged or half written save is recognised here.
"""

import contextlib
import dataclasses
import json
import os
import stat
from collections.abc import Mapping
from typing import Any

from keras_metagraph.checkpoint import durable, names
from keras_metagraph.errors import CheckpointError, ProtocolVersionError

# Raise this number when a reader of this one would misread the manifest; readers of
# older numbers stay, each with a frozen example among the tests.
PROTOCOL = 1

_MAX_MANIFEST_BYTES = 64 << 20


@dataclasses.dataclass(frozen=True, slots=True)
class Manifest:
    """The record of one complete save.

    Attributes:
        prefix: Base name of the checkpoint prefix.
        step: Optimizer steps taken, or None if the prefix has no step.
        time: When it was written, in seconds since 1970. Never used for order.
        versions: Versions of the writing `keras`, `tensorflow`, `keras_metagraph`.
        files: The other files of the checkpoint, by base name.
        progress: Where training stood: epoch, batch, what else the writer noted.
    """

    prefix: str
    step: int | None
    time: float
    versions: Mapping[str, str]
    files: Mapping[str, durable.FileRecord]
    progress: Mapping[str, Any]

    def to_json(self) -> str:
        """Returns the text of the manifest file."""
        fields = {"protocol": PROTOCOL, **dataclasses.asdict(self)}
        return json.dumps(fields, indent=1, sort_keys=True, allow_nan=False) + "\n"

    @property
    def meta(self) -> durable.FileRecord | None:
        """The record of the `.meta`, if the checkpoint has one."""
        return self.files.get(os.path.basename(names.meta_path(self.prefix)))


@dataclasses.dataclass(frozen=True, slots=True)
class Commit:
    """A save that is on disk.

    Attributes:
        prefix: The checkpoint prefix.
        manifest: What was written.
        pruned: Prefixes that were removed for it, oldest first.
    """

    prefix: str
    manifest: Manifest
    pruned: tuple[str, ...] = ()


def read_manifest(prefix: str) -> Manifest | None:
    """Reads the manifest of a checkpoint.

    Args:
        prefix: The checkpoint prefix.

    Returns:
        The manifest, or None if there is none: the save was cut short, or another
        program wrote the checkpoint.

    Raises:
        CheckpointError: If the manifest cannot be read or is damaged.
        ProtocolVersionError: If a newer version of this package wrote it.
    """
    path = names.manifest_path(prefix)
    try:
        text = durable.read_regular_file(path, _MAX_MANIFEST_BYTES)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise CheckpointError(
            f"The manifest {path!r} cannot be read: {error}",
            fix="make it a readable file, or remove it to load without its checks.",
        ) from error
    try:
        return _parse_manifest(path, text, os.path.basename(prefix))
    except ProtocolVersionError:
        raise
    except (
        ValueError,
        KeyError,
        TypeError,
        AttributeError,
        RecursionError,
    ) as error:
        problem = f"The manifest {path!r} is damaged: {error!r}"
        raise CheckpointError(
            problem,
            fix="use another checkpoint of the directory, or remove the manifest to "
            "load this one without its checks.",
        ) from error


def _parse_manifest(path: str, text: bytes, prefix: str) -> Manifest:
    """Parses a manifest; of a protocol that this version does not know nothing else."""
    fields = json.loads(text)
    protocol = fields["protocol"]
    if type(protocol) is not int or protocol < 1:
        raise ValueError(f"protocol {protocol!r}")
    if protocol > PROTOCOL:
        raise ProtocolVersionError(
            f"The manifest {path!r} has protocol {protocol}, and this version of "
            f"keras_metagraph reads protocols up to {PROTOCOL}.",
            fix="install a newer keras_metagraph.",
        )
    return _manifest_from_fields(fields, prefix)


def _manifest_from_fields(fields: Any, prefix: str) -> Manifest:
    """Builds a manifest from parsed JSON, and checks every field that is used."""
    files = {}
    for name, record in fields["files"].items():
        size, digest = record["size"], record["sha256"]
        if not names.is_file_of(name, prefix):
            raise ValueError(f"{name!r} is no file of {prefix!r}")
        if type(size) is not int or not isinstance(digest, str):
            raise TypeError(f"record of {name!r}")
        files[name] = durable.FileRecord(size, digest)
    step = fields["step"]
    if fields["prefix"] != prefix or not (step is None or type(step) is int):
        raise ValueError(f"prefix {fields['prefix']!r}, step {step!r}")
    if not isinstance(fields["progress"], dict):
        raise TypeError("progress")
    return Manifest(
        prefix=prefix,
        step=step,
        time=float(fields["time"]),
        versions={str(k): str(v) for k, v in fields["versions"].items()},
        files=files,
        progress=fields["progress"],
    )


def verify(prefix: str, *, contents: bool = False) -> list[str]:
    """Compares the files of a checkpoint with its manifest.

    Args:
        prefix: The checkpoint prefix.
        contents: Whether to read the files and compare checksums too, not only sizes.

    Returns:
        What is wrong, a line each; empty if the checkpoint is complete.
    """
    try:
        manifest = read_manifest(prefix)
    except (CheckpointError, ProtocolVersionError) as error:
        return [error.problem]
    if manifest is None:
        return [f"{names.manifest_path(prefix)!r} is missing"]
    directory = os.path.dirname(prefix)
    findings = []
    for name, expected in manifest.files.items():
        path = os.path.join(directory, name)
        try:
            status = os.stat(path)
            if not stat.S_ISREG(status.st_mode):
                findings.append(f"{path!r} is not a regular file")
            elif status.st_size != expected.size:
                findings.append(
                    f"{path!r} has {status.st_size} bytes, not {expected.size}"
                )
            elif contents and durable.record_file(path) != expected:
                findings.append(f"{path!r} has other contents than were written")
        except OSError as error:
            findings.append(f"{path!r}: {error.strerror}")
    return findings


def newest_complete(directory: str, *, contents: bool = False) -> str | None:
    """Finds the newest complete checkpoint of a directory, without a state file.

    Newest is the one of the highest step: clocks go wrong, steps do not.

    Args:
        directory: Where to look.
        contents: Whether to compare checksums too, not only sizes.

    Returns:
        Its prefix, or None if no save of this package is complete there.
    """
    for prefix in written_prefixes(directory):
        if not verify(prefix, contents=contents):
            return prefix
    return None


def written_prefixes(directory: str) -> list[str]:
    """Lists the prefixes of a directory that have a readable manifest.

    Args:
        directory: Where to look; one that does not exist has none.

    Returns:
        The prefixes, the highest step first.
    """
    found = []
    try:
        entries = os.listdir(directory or ".")
    except OSError:
        return []
    for name in entries:
        prefix = names.prefix_of(name)
        if name != names.manifest_path(prefix):
            continue
        try:
            manifest = read_manifest(os.path.join(directory, prefix))
        except (CheckpointError, ProtocolVersionError):
            continue
        if manifest is not None:
            step = -1 if manifest.step is None else manifest.step
            found.append((step, manifest.time, prefix))
    return [os.path.join(directory, name) for _, _, name in sorted(found)[::-1]]


def remove_checkpoint(prefix: str) -> bool:
    """Removes a checkpoint that this package wrote; the manifest goes first.

    Whatever stops the removal, what is left is not taken for a complete checkpoint.
    A checkpoint without manifest is another program's, and stays.

    Args:
        prefix: The checkpoint prefix.

    Returns:
        Whether it was removed.

    Raises:
        CheckpointError: If the manifest cannot be read.
        OSError: If a file cannot be removed.
    """
    manifest = read_manifest(prefix)
    if manifest is None:
        return False
    directory = os.path.dirname(prefix)
    os.unlink(names.manifest_path(prefix))
    for name in sorted(manifest.files, reverse=True):  # meta, index, data
        with contextlib.suppress(FileNotFoundError):
            os.unlink(os.path.join(directory, name))
    return True
