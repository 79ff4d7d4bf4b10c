"""Writes one checkpoint so that a crash at any moment loses nothing.

Data, index and `.meta` are written to temporary names, synced and put in place; then
the manifest, which makes the save count; then the state file; then old checkpoints go.
No name is ever written twice: TensorFlow renames its two files one after the other, so
a writer that is killed in between mixes an old index with new data.
"""

import contextlib
import hashlib
import importlib.metadata
import json
import os
import secrets
import shutil
import time
import warnings
from collections.abc import Iterator, Mapping
from typing import Any

import tensorflow as tf

from keras_metagraph.checkpoint import durable, names
from keras_metagraph.checkpoint.commit import (
    Commit,
    Manifest,
    read_manifest,
    remove_checkpoint,
)
from keras_metagraph.checkpoint.leftovers import abandoned, temporary_directory
from keras_metagraph.checkpoint.retention import Kept, Retention, select
from keras_metagraph.checkpoint.snapshot import take_snapshot
from keras_metagraph.checkpoint.state import State, read_state
from keras_metagraph.errors import CheckpointError


def write_checkpoint(
    prefix: str | os.PathLike[str],
    values: Mapping[str, Any],
    meta_graph: Any = None,
    progress: Mapping[str, Any] | None = None,
    *,
    retention: Retention | None = None,
    write_state: bool = True,
    latest_filename: str = names.STATE_FILE,
) -> Commit:
    """Writes a name-based V2 checkpoint, its `.meta` and its manifest.

    Args:
        prefix: The checkpoint prefix, with its step: `"run/model-120"`.
        values: Variables, tensors or arrays, by their names in the checkpoint.
        meta_graph: A MetaGraphDef, its bytes, or the path of a `.meta` to link to.
            None writes no `.meta`. Bytes that the newest checkpoint of the directory
            has too are linked to it, not stored twice.
        progress: Where training stands; goes into the manifest as JSON.
        retention: Which older checkpoints of the same base name are kept; by default
            all of them.
        write_state: Whether the state file names this checkpoint as the newest.
        latest_filename: The state file's name.

    Returns:
        What was written, and what was removed for it.

    Raises:
        CheckpointError: If nothing could be written, the names are taken, or the
            state file could not be replaced. Earlier checkpoints are then as before.

    Example:
        >>> write_checkpoint("run/model-3", {"w": [1.0]}).prefix  # doctest: +SKIP
        'run/model-3'
    """
    prefix = names.check_filepath(prefix)
    _check_state_name(latest_filename, prefix)
    pruned: list[str] = []
    with contextlib.ExitStack() as stack:
        with _one_error(prefix):
            # A relative path is followed once: the working directory may change.
            target = os.path.join(os.getcwd(), prefix)
            directory = os.path.dirname(target)
            os.makedirs(directory, exist_ok=True)
            _refuse_taken(target)
            state = read_state(directory, latest_filename)
            temporary = stack.enter_context(temporary_directory(target))
            manifest = _write_files(
                target,
                temporary,
                take_snapshot(values),
                meta_graph,
                dict(progress or {}),
                state,
            )
        if write_state:
            keep = retention or Retention(None)
            pruned = _update_state(
                directory, temporary, latest_filename, state, manifest, keep
            )
    parent = os.path.dirname(prefix)
    return Commit(prefix, manifest, tuple(os.path.join(parent, n) for n in pruned))


def _write_files(
    target: str,
    temporary: str,
    values: Mapping[str, tf.Tensor],
    meta_graph: Any,
    progress: dict[str, Any],
    state: State,
) -> Manifest:
    """Writes data, index, meta and manifest; takes them back unless all are there."""
    directory, base = os.path.split(target)
    json.dumps(
        progress, allow_nan=False
    )  # What cannot be written is refused before anything is.
    published: list[str] = []
    try:
        files: dict[str, durable.FileRecord] = {}
        new = os.path.join(temporary, base)
        write_bundle(new, values)
        for source in (names.data_path(new), names.index_path(new)):
            files[os.path.basename(source)] = durable.record_and_sync(source)
            durable.publish(source, directory, published)
        if meta_graph is not None:
            source = names.meta_path(new)
            _write_meta(source, meta_graph, directory, state)
            files[os.path.basename(source)] = durable.record_and_sync(source)
            durable.publish(source, directory, published)
        durable.sync_directory(directory)
        manifest = Manifest(
            prefix=base,
            step=names.split_step(base)[1],
            time=time.time(),
            versions=_versions(),
            files=files,
            progress=progress,
        )
        source = names.manifest_path(new)
        durable.write_bytes(source, manifest.to_json().encode("utf-8"))
        durable.publish(source, directory, published)
        durable.sync_directory(directory)
        published.clear()
    finally:
        for path in reversed(published):
            with contextlib.suppress(OSError):
                os.unlink(path)
    return manifest


def write_bundle(prefix: str, values: Mapping[str, tf.Tensor]) -> None:
    """Writes the two files of a V2 checkpoint; neither of them holds its own name.

    Args:
        prefix: The prefix of their names.
        values: Tensors, by their names in the checkpoint.

    Raises:
        CheckpointError: If there are none.
        tf.errors.OpError: If they cannot be written.
    """
    if not values:
        raise CheckpointError(
            "There are no variables to save, and a checkpoint holds nothing else.",
            fix="write the graph alone: export_meta_graph(model, 'run/model.meta').",
        )
    with tf.device("/CPU:0"):
        tf.raw_ops.SaveV2(
            prefix=prefix,
            tensor_names=list(values),
            shape_and_slices=[""] * len(values),
            tensors=list(values.values()),
        )


def _write_meta(path: str, meta_graph: Any, directory: str, state: State) -> None:
    """Writes the graph, or links to an equal one."""
    if isinstance(meta_graph, str | os.PathLike):
        durable.link_or_copy(os.fspath(meta_graph), path)
        return
    if hasattr(meta_graph, "SerializeToString"):
        meta_graph = meta_graph.SerializeToString(deterministic=True)
    record = durable.FileRecord(len(meta_graph), hashlib.sha256(meta_graph).hexdigest())
    previous = state.kept[-1].name if state.kept else state.latest
    if previous is not None:
        same = _equal_meta(os.path.join(directory, previous), record)
        if same is not None:
            durable.link_or_copy(same, path)
            return
    durable.write_bytes(path, meta_graph)


def _equal_meta(prefix: str, record: durable.FileRecord) -> str | None:
    """Returns the `.meta` of another checkpoint, if it holds these very bytes."""
    path = names.meta_path(prefix)
    try:
        manifest = read_manifest(prefix)
        if manifest is None or manifest.meta != record:
            return None
        # The manifest says what was written; a damaged file must not be passed on.
        return path if durable.record_file(path) == record else None
    except (CheckpointError, OSError):
        return None


def _refuse_taken(target: str) -> None:
    """Refuses a prefix of which any file is there."""
    directory = os.path.dirname(target)
    taken = [name for name in os.listdir(directory) if names.is_file_of(name, target)]
    if not taken:
        return
    complete = os.path.basename(names.manifest_path(target)) in taken
    raise CheckpointError(
        f"The checkpoint {target!r} exists, and a checkpoint is never written twice. "
        + (
            "It is complete. Its files:"
            if complete
            else "It has no manifest: a save was cut short, or another program wrote "
            "it. Its files:"
        ),
        findings=sorted(taken),
        fix="write to another directory or base name, load the newest checkpoint to go "
        "on after it, or remove these files.",
    )


def clear_leftovers(
    filepath: str | os.PathLike[str], *, latest_filename: str = names.STATE_FILE
) -> list[str]:
    """Clears away what killed saves of a series left behind.

    Only files go that a save of this package was writing, and whose writer is dead. A
    save that was killed when it was complete, but not yet in the state file, is put
    there.

    Args:
        filepath: Directory and base name of the series, without step.
        latest_filename: The state file's name.

    Returns:
        The prefixes of the saves that were cut short.

    Raises:
        CheckpointError: If files cannot be removed.
    """
    cut_short = []
    filepath = os.path.abspath(os.fspath(filepath))
    with _one_error(filepath):
        for temporary, prefix in abandoned(filepath):
            directory = os.path.dirname(prefix)
            manifest = read_manifest(prefix)
            if manifest is None:
                _remove_files(prefix)
                cut_short.append(prefix)
            else:
                state = read_state(directory, latest_filename)
                if manifest.prefix not in {kept.name for kept in state.kept}:
                    _update_state(
                        directory,
                        temporary,
                        latest_filename,
                        state,
                        manifest,
                        Retention(None),
                    )
            shutil.rmtree(temporary)
    return cut_short


def _remove_files(prefix: str) -> None:
    """Removes the files of a save that does not count."""
    directory = os.path.dirname(prefix)
    for name in os.listdir(directory):
        if names.is_file_of(name, prefix):
            os.unlink(os.path.join(directory, name))


def _update_state(
    directory: str,
    temporary: str,
    filename: str,
    state: State,
    manifest: Manifest,
    retention: Retention,
) -> list[str]:
    """Lists the new checkpoint in the state file, then removes old ones."""
    new = Kept(manifest.prefix, manifest.time)
    known = [
        kept
        for kept in state.kept
        if kept.name != new.name
        and os.path.exists(names.index_path(os.path.join(directory, kept.name)))
    ]
    base = names.split_step(new.name)[0]
    series = [kept for kept in known if names.split_step(kept.name)[0] == base]
    selection = select([*series, new], retention, state.last_preserved)
    gone = set(series) - set(selection.listed)
    listed = (*(kept for kept in known if kept not in gone), new)
    path = os.path.join(directory, filename)
    text = State(new.name, listed, selection.last_preserved).to_text()
    finished = os.path.join(temporary, f"{secrets.token_hex(4)}.{names.STATE_FILE}")
    with _one_error(path, saved=new.name):
        durable.write_bytes(finished, text.encode("utf-8"))
        os.replace(finished, path)
        durable.sync_directory(directory)
    return _prune(directory, [kept.name for kept in selection.pruned])


def _prune(directory: str, candidates: list[str]) -> list[str]:
    """Removes checkpoints; those that cannot be removed cost a warning, no more."""
    pruned: list[str] = []
    findings: list[str] = []
    for name in candidates:
        with _collected(findings, name):
            if remove_checkpoint(os.path.join(directory, name)):
                pruned.append(name)
    if findings:
        warnings.warn(
            f"Old checkpoints in {directory!r} could not be removed, and are no longer "
            f"listed in its state file: {'; '.join(findings)}",
            stacklevel=4,
        )
    return pruned


@contextlib.contextmanager
def _collected(findings: list[str], name: str) -> Iterator[None]:
    """Notes an error instead of raising it."""
    try:
        yield
    except (CheckpointError, OSError) as error:
        findings.append(f"{name}: {error}")


@contextlib.contextmanager
def _one_error(path: str, saved: str | None = None) -> Iterator[None]:
    """Turns whatever stops a write into one kind of error."""
    try:
        yield
    except CheckpointError:
        raise
    except (tf.errors.OpError, OSError, ValueError, TypeError) as error:
        kept = (
            f"The checkpoint {saved!r} itself is complete"
            if saved
            else "Earlier checkpoints are as they were"
        )
        raise CheckpointError(
            f"Writing {path!r} failed: {error}\n{kept}.",
            fix="free space or permissions where the message says so, and save again.",
        ) from error


def _check_state_name(filename: str, prefix: str) -> None:
    """Refuses state files outside of the directory, or named as the checkpoint."""
    base = os.path.basename(prefix)
    if os.path.basename(filename) != filename or filename in ("", ".", "..", base):
        raise CheckpointError(
            "The state file is a plain file name in the checkpoint's directory, and "
            f"not the checkpoint's own. Received: latest_filename={filename!r}",
            fix=f"leave it out, for {names.STATE_FILE!r}.",
        )


def _versions() -> dict[str, str]:
    """Says who writes."""
    return {
        "keras": _version("keras"),
        "keras_metagraph": _version("keras_metagraph"),
        "tensorflow": tf.__version__,  # installed under several names
    }


def _version(package: str) -> str:
    """Returns the installed version of a package, without importing it."""
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "unknown"
