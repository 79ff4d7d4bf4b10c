"""Puts what was written in place, whole or not at all."""

import contextlib
import os
import shutil
import tempfile
from collections.abc import Iterator, Sequence

from keras_metagraph.checkpoint.durable import sync_directory
from keras_metagraph.checkpoint.names import is_file_of
from keras_metagraph.conversion.kinds import META_GRAPH, SAVED_MODEL
from keras_metagraph.errors import ExportError
from keras_metagraph.formats.saved_model import SavedModelLayout
from keras_metagraph.saved_model.directory import make_parents


def taken(destination: str, kind: str) -> list[str]:
    """What is there already of a destination.

    Args:
        destination: Where to write; a prefix without ending for a MetaGraph.
        kind: One of `kinds.KINDS`.

    Returns:
        Paths; the manifest of a checkpoint, without which it does not count, first.
    """
    if kind != META_GRAPH:
        return [destination] if os.path.lexists(destination) else []
    directory, base = os.path.split(os.path.abspath(destination))
    names = os.listdir(directory) if os.path.isdir(directory) else []
    found = [name for name in names if is_file_of(name, base)]
    found.sort(key=lambda name: (not name.endswith(".manifest"), name))
    return [os.path.join(directory, name) for name in found]


def check_destination(destination: str, kind: str, *, force: bool) -> None:
    """Refuses a destination that is taken.

    Args:
        destination: As for `taken`.
        kind: As for `taken`.
        force: Whether it is to be replaced.

    Raises:
        ExportError: If it is there and not to be replaced, or is something else than
            would be written.
    """
    found = taken(destination, kind)
    if found and not force:
        raise ExportError(
            f"{destination!r} is there already:",
            findings=found,
            fix="choose another name, or say that it is to be replaced (force=True, "
            "--force).",
        )
    if not found or kind == META_GRAPH:
        return
    is_directory = os.path.isdir(destination) and not os.path.islink(destination)
    fits = not is_directory
    if kind == SAVED_MODEL:
        is_saved_model = SavedModelLayout().recognizes(destination)
        fits = is_directory and (is_saved_model or not os.listdir(destination))
    if not fits:
        raise ExportError(
            f"{destination!r} is no {kind} file, so it is not replaced.",
            fix="remove it yourself, or choose another name.",
        )


@contextlib.contextmanager
def staged(destination: str, kind: str, *, force: bool) -> Iterator[str]:
    """Gives a path to write to, and puts all that was written there in place.

    What is replaced goes when the new files are complete beside it.

    Args:
        destination: As for `taken`.
        kind: As for `taken`.
        force: Whether it is replaced if it is there.

    Yields:
        A path of the same base name, in a directory of its own.

    Raises:
        ExportError: If it is there already, or files cannot be written.
    """
    directory, base = os.path.split(os.path.abspath(destination))
    stage = None
    made: list[str] = []
    try:
        made = make_parents(directory)
        stage = tempfile.mkdtemp(prefix=f".{base}.tmp-", dir=directory)
        new = os.path.join(stage, "new")
        os.mkdir(new)
        yield os.path.join(new, base)
        check_destination(destination, kind, force=force)
        _replace(new, directory, taken(destination, kind), os.path.join(stage, "old"))
    except OSError as error:
        raise ExportError(
            f"Writing {destination!r} failed: {error}",
            fix="free space or permissions where the message says so.",
        ) from error
    finally:
        if stage is not None:
            shutil.rmtree(stage, ignore_errors=True)
        for parent in reversed(made):  # Those that are still empty.
            with contextlib.suppress(OSError):
                os.rmdir(parent)


def _replace(new: str, directory: str, replaced: Sequence[str], old: str) -> None:
    """Moves what is replaced out of the way, and the new in; undoes it on errors."""
    names = os.listdir(new)
    names.sort(key=lambda name: (name.endswith(".manifest"), name))
    os.mkdir(old)
    moved: list[tuple[str, str]] = []
    try:
        for path in replaced:
            _move(path, os.path.join(old, os.path.basename(path)), moved)
        for name in names:
            _move(os.path.join(new, name), os.path.join(directory, name), moved)
    except OSError:
        for source, target in reversed(moved):
            os.rename(target, source)
        raise
    sync_directory(directory)


def _move(source: str, target: str, moved: list[tuple[str, str]]) -> None:
    os.rename(source, target)
    moved.append((source, target))
