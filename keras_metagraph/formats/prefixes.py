"""Finds the files of checkpoints: those of a prefix, and the newest of a directory."""

import dataclasses
import os
import re
import warnings
from collections.abc import Iterable, Iterator

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


def graph_for(prefix: str) -> str | None:
    """The graph that a checkpoint without one of its own belongs to.

    Programs that write the graph once (`write_meta_graph=False`) leave it under the
    name of an earlier step, or under one of its own.

    Args:
        prefix: The checkpoint.

    Returns:
        The file: of the same base name the one of the latest step before it, else the
        only graph of the directory that has no checkpoint, or the only one at all.
    """
    directory = os.path.dirname(prefix)
    graphs = [
        base
        for base in _prefixes(directory)
        if base != prefix and _meta_file(base) is not None
    ]
    base, own = names.split_step(prefix)
    steps = [(names.split_step(graph), graph) for graph in graphs]
    same = sorted((step or 0, graph) for (other, step), graph in steps if other == base)
    before = [graph for step, graph in same if step <= (own or 0)]
    if same:
        return _meta_file(before[-1]) if before else None
    alone = [graph for graph in graphs if not locate(graph).checkpoint]
    candidates = alone if len(alone) == 1 else graphs
    return _meta_file(candidates[0]) if len(candidates) == 1 else None


def checkpoint_for(prefix: str) -> Located:
    """The checkpoint of a graph that has none of its name.

    Args:
        prefix: The graph's path without ending.

    Returns:
        Of the checkpoints without a graph of their own, the one that the state file
        names, or the latest; none where they are of several names.
    """
    directory = os.path.dirname(prefix)
    found = {
        other: located
        for other in _prefixes(directory)
        if graph_file(other) is None and (located := locate(other)).checkpoint
    }
    latest = state.read_state(directory or ".").latest
    stated = os.path.join(directory, graph_prefix(latest)) if latest else ""
    if stated in found:
        return found[stated]
    if len({names.split_step(other)[0] for other in found}) > 1:
        return Located(
            None,
            "checkpoints of several other names are there, and nothing says which one "
            f"is its own ({', '.join(map(os.path.basename, found))})",
        )
    return found[_latest(found)] if found else Located(None)


def _meta_file(prefix: str) -> str | None:
    """The graph of a prefix, if its name says that it is a MetaGraph."""
    file = graph_file(prefix)
    return None if file == f"{prefix}.pbtxt" else file


def _latest(prefixes: Iterable[str]) -> str:
    return max(prefixes, key=lambda prefix: names.split_step(prefix)[1] or 0)


def newest(directory: str) -> tuple[str, Located]:
    """Finds the newest complete checkpoint with a graph in a directory.

    First come the checkpoints with a valid manifest, then what the state file says,
    then, by their steps, all that lie there.

    Args:
        directory: The directory.

    Returns:
        The prefix and its checkpoint. One without a graph of its name is taken if the
        state file names it first, or if all are so. Where no checkpoint is complete
        but only one graph is there, that one without checkpoint.

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
        if not located.checkpoint:
            continue
        if graph_file(prefix) or (prefix == stated[0] and graph_for(prefix)):
            _warn_if_older(prefix, stated[0])
            return prefix, located
    return _scan(directory, stated)


def _scan(directory: str, stated: list[str]) -> tuple[str, Located]:
    """The checkpoint of the highest step, whatever the state file says."""
    found = {prefix: locate(prefix) for prefix in _prefixes(directory)}
    valued = [prefix for prefix, located in found.items() if located.checkpoint]
    complete = [prefix for prefix in valued if graph_file(prefix)]
    complete = complete or [prefix for prefix in valued if graph_for(prefix)]
    if len({names.split_step(prefix)[0] for prefix in complete}) > 1:
        raise FormatError(
            f"{directory!r} holds several checkpoints, and nothing in it says which is "
            "the newest:",
            findings=complete,
            fix="pass one of these prefixes.",
        )
    if complete:
        latest = _latest(complete)
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
