"""Finds the files of checkpoints: those of a prefix, and the newest of a directory."""

import dataclasses
import os
import re
import warnings
from collections.abc import Iterator

from keras_metagraph.checkpoint import commit, names, state
from keras_metagraph.errors import FormatError

_SHARD = re.compile(r"-(\d{5})-of-(\d{5})$")


@dataclasses.dataclass(frozen=True, slots=True)
class Located:
    """The checkpoint files of a prefix.

    Attributes:
        checkpoint: The prefix as `tf.train.load_checkpoint` takes it, or None.
        note: What is incomplete; empty where no file was found at all.
    """

    checkpoint: str | None
    note: str = ""


def graph_prefix(path: str) -> str:
    """Takes the endings of checkpoint files and shards off a path."""
    prefix = names.prefix_of(path)
    return names.meta_path(prefix).removesuffix(".meta")


def graph_file(prefix: str) -> str | None:
    """The file that holds the graph of a prefix, or None."""
    for ending in (".meta", ".meta.pbtxt", ".pbtxt"):
        if os.path.exists(prefix + ending):
            return prefix + ending
    return None


def locate(prefix: str) -> Located:
    """Finds the checkpoint of a prefix: V2, V1, or V1 in shards.

    Args:
        prefix: Without shards and endings; its base name may be empty.

    Returns:
        What is there.
    """
    directory, base = os.path.split(prefix)
    entries = list_directory(directory)
    data = _shards(entries, base + ".data")
    if base + ".index" in entries:
        if _complete(data):
            return Located(prefix)
        return Located(None, f"{base}.index is there, but not all its data files are")
    if base and os.path.isfile(prefix):
        return Located(prefix)
    shards = _shards(entries, base)
    if total := _complete(shards):
        return Located(f"{prefix}-?????-of-{total:05d}")
    if data:
        return Located(None, f"data files of {base!r} are there, but no {base}.index")
    if shards:
        return Located(None, f"some shards of {base!r} are missing")
    return Located(None)


def newest(directory: str) -> tuple[str, Located]:
    """Finds the newest complete checkpoint with a graph in a directory.

    First come the checkpoints with a valid manifest, then what the state file says,
    then, by their steps, all that lie there.

    Args:
        directory: The directory.

    Returns:
        The prefix and its checkpoint. Where no checkpoint is complete but only one
        graph is there, that one without checkpoint.

    Raises:
        FormatError: If no checkpoint is complete, or several unrelated ones lie there
            and nothing says which; lists what was found.
    """
    for prefix in commit.written_prefixes(directory):
        if not commit.verify(prefix) and graph_file(prefix):
            return prefix, locate(prefix)
    noted = state.read_state(directory)
    ordered = [noted.latest, *(kept.name for kept in reversed(noted.kept))]
    stated = [os.path.join(directory, graph_prefix(n)) for n in ordered if n]
    for prefix in stated:
        located = locate(prefix)
        if located.checkpoint and graph_file(prefix):
            _warn_if_older(prefix, stated[0])
            return prefix, located
    return _scan(directory, stated)


def _scan(directory: str, stated: list[str]) -> tuple[str, Located]:
    """The checkpoint of the highest step, whatever the state file says."""
    found = {prefix: locate(prefix) for prefix in _prefixes(directory)}
    complete = [
        prefix
        for prefix, located in found.items()
        if located.checkpoint and graph_file(prefix)
    ]
    if len({names.split_step(prefix)[0] for prefix in complete}) > 1:
        raise FormatError(
            f"{directory!r} holds several checkpoints, and nothing in it says which is "
            "the newest:",
            findings=complete,
            fix="pass one of these prefixes.",
        )
    if complete:
        latest = max(complete, key=lambda prefix: names.split_step(prefix)[1] or 0)
        if stated:
            _warn_if_older(latest, stated[0])
        return latest, found[latest]
    graphs = [prefix for prefix in found if graph_file(prefix)]
    if len(graphs) == 1:
        return graphs[0], found[graphs[0]]
    raise FormatError(
        f"{directory!r} holds no complete checkpoint with a graph.",
        findings=[
            f"{prefix}: {located.note or 'no checkpoint'}"
            + ("" if graph_file(prefix) else "; no .meta")
            for prefix, located in found.items()
        ],
        fix="pass a checkpoint prefix, a .meta file, a directory of checkpoints or a "
        "SavedModel directory.",
    )


def _prefixes(directory: str) -> Iterator[str]:
    """All prefixes of a directory, in the order of their names."""
    seen = set()
    for name in sorted(list_directory(directory)):
        base = graph_prefix(name)
        if name.endswith(".pbtxt"):
            base = name.removesuffix(".pbtxt").removesuffix(".meta")
        if base not in seen and base != name:
            seen.add(base)
            yield os.path.join(directory, base)


def _warn_if_older(prefix: str, stated: str) -> None:
    if prefix != stated:
        warnings.warn(
            f"The state file names {stated!r}, which is not there or not complete; "
            f"{prefix!r} is taken instead.",
            stacklevel=2,
        )


def list_directory(directory: str) -> set[str]:
    """Names in a directory; none if it cannot be read."""
    try:
        return set(os.listdir(directory or "."))
    except OSError:
        return set()


def _shards(entries: set[str], base: str) -> set[tuple[int, int]]:
    """Which shards of a base name are there: (number, of how many)."""
    found = set()
    for name in entries:
        match = _SHARD.search(name)
        if match and name[: match.start()] == base:
            found.add((int(match[1]), int(match[2])))
    return found


def _complete(shards: set[tuple[int, int]]) -> int:
    """How many shards a complete set has; 0 where none is complete."""
    for total in sorted({total for _, total in shards}):
        if total and all((number, total) in shards for number in range(total)):
            return total
    return 0
