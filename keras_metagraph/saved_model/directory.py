"""New directories that are there whole, or not at all.

As Estimator did it: what is not finished lies beside, in a directory `temp-<name>`,
which a server that watches for version numbers does not take for one.
"""

import contextlib
import os
import re
import secrets
import shutil
import time
from collections.abc import Iterator

import tensorflow as tf

from keras_metagraph.checkpoint.durable import sync_directory
from keras_metagraph.checkpoint.leftovers import is_free, lock
from keras_metagraph.errors import ExportError

_TEMPORARY = re.compile(r"^temp-.+-(?P<process>\d+)-[0-9a-f]{8}$", re.DOTALL)


@contextlib.contextmanager
def new_directory(path: str) -> Iterator[str]:
    """Gives a directory to write to, which at the end gets its name.

    Whoever writes there syncs the files. After an error nothing is left, and what
    killed writers left beside it goes.

    Args:
        path: The name.

    Yields:
        The directory.

    Raises:
        ExportError: If there is something of that name, or files cannot be written.
    """
    target = os.path.abspath(path)
    parent = os.path.dirname(target)
    temporary = _temporary_name(target)
    made: list[str] = []
    descriptor = None
    try:
        refuse_taken(target)
        made = make_parents(parent)
        _remove_leftovers(parent)
        os.mkdir(temporary)
        made.append(temporary)
        descriptor = lock(temporary)
        yield temporary
        for directory, _, _ in os.walk(temporary):
            sync_directory(directory)
        refuse_taken(target)
        os.rename(temporary, target)
        made.clear()
        sync_directory(parent)
    except (OSError, tf.errors.OpError) as error:
        raise ExportError(
            f"Writing {path!r} failed: {error}",
            fix="free space or permissions where the message says so.",
        ) from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
        for directory in reversed(made):
            with contextlib.suppress(OSError):  # Another writer may use it by now.
                os.rmdir(directory)
        if descriptor is not None:
            os.close(descriptor)


def next_version(directory: str) -> str:
    """The path of a new version in a directory: the time, in seconds since 1970.

    Servers take the greatest number, so it is greater than those that are there,
    whatever the clock says.
    """
    names = os.listdir(directory) if os.path.isdir(directory) else []
    known = [int(name) for name in names if name.isascii() and name.isdigit()]
    return os.path.join(
        directory, str(max([int(time.time()), *(n + 1 for n in known)]))
    )


def remove_directory(path: str) -> None:
    """Removes a directory, of which nobody sees a half.

    Args:
        path: The directory.

    Raises:
        OSError: If it cannot be removed.
    """
    temporary = _temporary_name(os.path.abspath(path))
    os.rename(path, temporary)
    shutil.rmtree(temporary)


def refuse_taken(target: str) -> None:
    """Raises an ExportError if there is something of that name."""
    if os.path.lexists(target):
        raise ExportError(
            f"{target!r} is there already, and is not replaced.",
            fix="write to another directory; save_saved_model(..., timestamped=True) "
            "makes a new one in it.",
        )


def _temporary_name(target: str) -> str:
    """A name beside a directory that tells whose it is."""
    parent, base = os.path.split(target)
    token = f"{os.getpid()}-{secrets.token_hex(4)}"
    return os.path.join(parent, f"temp-{base}-{token}")


def make_parents(path: str) -> list[str]:
    """Makes a directory and those above it.

    Args:
        path: The directory.

    Returns:
        Those that were not there, the outermost first.
    """
    missing: list[str] = []
    while not os.path.isdir(path):
        missing.append(path)
        path = os.path.dirname(path)
    for directory in reversed(missing):
        with contextlib.suppress(FileExistsError):
            os.mkdir(directory)
    return missing[::-1]


def _remove_leftovers(parent: str) -> None:
    """Removes what writers that were killed have left."""
    for name in os.listdir(parent):
        match = _TEMPORARY.match(name)
        path = os.path.join(parent, name)
        if match is None or os.path.islink(path) or not os.path.isdir(path):
            continue
        if is_free(path, int(match["process"])):
            shutil.rmtree(path, ignore_errors=True)
