"""Files that survive a crash: written once, forced to the disk, then put in place."""

import contextlib
import dataclasses
import errno
import hashlib
import os
import secrets
import shutil
import stat
from collections.abc import Iterator

from keras_metagraph.errors import ExportError

_CHUNK_BYTES = 4 << 20
_NO_LINKS = (errno.EPERM, errno.ENOTSUP, errno.ENOSYS, errno.EMLINK, errno.EXDEV)


@dataclasses.dataclass(frozen=True, slots=True)
class FileRecord:
    """What the manifest says of one file.

    Attributes:
        size: Length, in bytes.
        sha256: Checksum of the contents, in hexadecimal digits.
    """

    size: int
    sha256: str


def record_file(path: str) -> FileRecord:
    """Measures a file.

    Args:
        path: The file.

    Returns:
        Its size and checksum.
    """
    digest, size = hashlib.sha256(), 0
    with open(path, "rb") as file:
        while chunk := file.read(_CHUNK_BYTES):
            digest.update(chunk)
            size += len(chunk)
    return FileRecord(size, digest.hexdigest())


def read_regular_file(path: str, limit: int) -> bytes:
    """Reads a file whole, if it is one: no pipes, no devices, no giants.

    Args:
        path: The file.
        limit: The most that is read, in bytes.

    Returns:
        The contents.

    Raises:
        OSError: If it cannot be read, is no regular file, or is longer.
    """
    # O_NONBLOCK: opening a pipe would wait for a writer.
    with open(
        path, "rb", opener=lambda p, flags: os.open(p, flags | os.O_NONBLOCK)
    ) as file:
        status = os.fstat(file.fileno())
        if not stat.S_ISREG(status.st_mode):
            raise OSError(f"{path!r} is not a regular file")
        if status.st_size > limit:
            raise OSError(f"{path!r} has {status.st_size} bytes, more than {limit}")
        return file.read(limit + 1)


def write_bytes(path: str, content: bytes) -> None:
    """Writes and syncs a new file."""
    with open(path, "xb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


@contextlib.contextmanager
def replaced_file(path: str) -> Iterator[str]:
    """Writes a file at once or not at all; one that was there is replaced.

    Args:
        path: The file.

    Yields:
        The path of a file beside it, to be written in the block.

    Raises:
        ExportError: If it cannot be written.
    """
    directory, base = os.path.split(os.path.abspath(path))
    temporary = os.path.join(directory, f".{base}.tmp-{secrets.token_hex(4)}")
    try:
        yield temporary
        os.replace(temporary, path)
    except OSError as error:
        raise ExportError(
            f"Writing {path!r} failed: {error}",
            fix="free space or permissions where the message says so.",
        ) from error
    finally:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(temporary)


def record_and_sync(path: str) -> FileRecord:
    """Forces a file to the disk, and measures it."""
    sync_file(path)
    return record_file(path)


def sync_file(path: str) -> None:
    """Forces a file to the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def publish(source: str, directory: str, published: list[str]) -> None:
    """Puts a finished file in place, never over another one."""
    path = os.path.join(directory, os.path.basename(source))
    try:
        os.link(source, path)  # Unlike a rename, fails if the name is taken.
    except OSError as error:
        if error.errno not in _NO_LINKS:
            raise
        if os.path.lexists(path):
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), path) from (
                error
            )
        os.rename(source, path)
    published.append(path)


def link_or_copy(source: str, path: str) -> None:
    """Gives a file a second name; copies it where the file system has no links."""
    try:
        os.link(source, path)
    except OSError as error:
        if error.errno not in _NO_LINKS:
            raise
        shutil.copyfile(source, path)
        record_and_sync(path)


def sync_directory(directory: str) -> None:
    """Forces names to the disk, where the system can do that."""
    try:
        descriptor = os.open(directory, os.O_RDONLY)
    except PermissionError:
        return  # Windows does not open directories.
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):
            raise
    finally:
        os.close(descriptor)
