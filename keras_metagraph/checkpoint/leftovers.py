"""Directories for files that are not finished, and what a killed writer leaves there.

A directory belongs to its writer while that holds a lock on it; the system gives the
lock up with the process, however it ends, so no clock and no process number is asked.
"""

import contextlib
import os
import re
import secrets
import shutil
from collections.abc import Iterator

from keras_metagraph.checkpoint import names

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

_TEMPORARY = re.compile(
    r"^\.(?P<base>.+)\.tmp-(?P<process>\d+)-[0-9a-f]{8}$", re.DOTALL
)


@contextlib.contextmanager
def temporary_directory(target: str) -> Iterator[str]:
    """Makes a directory beside a checkpoint for the files of it.

    Args:
        target: The checkpoint prefix.

    Yields:
        The directory, which goes with all that is in it.
    """
    directory, base = os.path.split(target)
    process, token = os.getpid(), secrets.token_hex(4)
    temporary = os.path.join(directory, f".{base}.tmp-{process}-{token}")
    os.mkdir(temporary)
    descriptor = None
    try:
        descriptor = lock(temporary)
        yield temporary
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
        if descriptor is not None:
            os.close(descriptor)


def abandoned(filepath: str) -> Iterator[tuple[str, str]]:
    """Finds what killed writers of a series of checkpoints left.

    Args:
        filepath: Directory and base name of the series, without step.

    Yields:
        A temporary directory, and the prefix whose files were being written. Whoever
        wrote them saw to it that no other files of that prefix were there.
    """
    directory, series = os.path.split(filepath)
    for name in os.listdir(directory) if os.path.isdir(directory) else ():
        match = _TEMPORARY.match(name)
        path = os.path.join(directory, name)
        if match is None or os.path.islink(path) or not os.path.isdir(path):
            continue
        base, step = names.split_step(match["base"])
        if (base == series and step is not None) and is_free(
            path, int(match["process"])
        ):
            yield path, os.path.join(directory, match["base"])


def lock(path: str) -> int | None:
    """Locks a directory; returns its descriptor, or None if that is not possible."""
    if fcntl is None:
        return None
    descriptor = os.open(path, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(descriptor)
        return None
    return descriptor


def is_free(path: str, process: int) -> bool:
    """Whether nobody writes there any more.

    Args:
        path: A temporary directory.
        process: The number of its writer's process.

    Returns:
        Whether nobody holds its lock; without locks, whether the process is gone.
    """
    if fcntl is None:
        return not _is_alive(process)
    descriptor = lock(path)
    if descriptor is None:
        return False
    os.close(descriptor)
    return True


def _is_alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except OSError:
        return True
    return True
