"""MetaGraphs of `tf.train.Saver`: a `.meta` and, beside it, a checkpoint.

A path may be the `.meta` (binary or text), the prefix of the checkpoint, one of its
files, or a directory. The exports of `session_bundle` (`export.meta` and
`export-00000-of-00001`) have the same layout.
"""

import os
import warnings
from typing import NoReturn

from keras_metagraph.errors import FormatError, nearest
from keras_metagraph.formats import prefixes
from keras_metagraph.formats.assets import assets_directory
from keras_metagraph.formats.layout import Export
from keras_metagraph.formats.protos import read_meta_graph

_TEXT_ENDINGS = (".meta.pbtxt", ".pbtxt", ".pbtxt.meta")


class MetaGraphLayout:
    """A `.meta` file and the checkpoint beside it."""

    name = "MetaGraph and checkpoint"

    def recognizes(self, path: str) -> bool:
        """Takes every path: what no other layout wants is reported from here."""
        return True

    def open(self, path: str) -> Export:
        """Reads the graph and finds its checkpoint.

        Args:
            path: A file, prefix or directory.

        Returns:
            The graph, and the checkpoint's prefix if there is one.

        Raises:
            FormatError: If there is no graph, or it cannot be read.
        """
        if os.path.isdir(path) and not _is_prefix(path):
            _require_entries(path)
            prefix, located = prefixes.newest(path)
        else:
            prefix = _prefix(path)
            located = prefixes.locate(prefix)
        file = path if _is_graph(path) else prefixes.graph_file(prefix)
        if file is None and located.checkpoint:
            file = prefixes.graph_for(prefix)
            _warn_of_other(prefix, "graph", file)
        elif located == prefixes.Located(None):
            located = prefixes.checkpoint_for(prefix)
            _warn_of_other(prefix, "checkpoint", located.checkpoint)
        if file is None:
            _refuse_without_graph(path, prefix, located)
        return Export(
            path=file,
            kind="meta_graph",
            meta_graphs=[read_meta_graph(file)],
            checkpoint=located.checkpoint,
            assets_directory=assets_directory(os.path.dirname(prefix)),
            note=located.note,
        )


def _is_prefix(path: str) -> bool:
    """Whether a directory's path is also the prefix of a graph beside it."""
    if path.endswith(os.sep):
        return False
    entries = prefixes.list_directory(path)
    inside = any(name.endswith((".meta", ".index", ".pbtxt")) for name in entries)
    return not inside and prefixes.graph_file(path) is not None


def _is_graph(path: str) -> bool:
    """Whether a path is to be read as a graph: a file, and no part of a checkpoint."""
    if os.path.isdir(path) or not os.path.lexists(path) or prefixes.graph_file(path):
        return False
    return path.endswith(".meta") or prefixes.graph_prefix(path) == path


def _prefix(path: str) -> str:
    """The checkpoint's prefix for a path that is not a directory."""
    if prefixes.graph_file(path):
        return path
    for ending in _TEXT_ENDINGS:
        if path.endswith(ending):
            return path.removesuffix(ending)
    return prefixes.graph_prefix(path)


def _warn_of_other(prefix: str, what: str, taken: str | None) -> None:
    """Says that a graph and values of different names are taken together."""
    if taken is not None:
        warnings.warn(
            f"{prefix!r} has no {what} of its own name: {taken!r} is taken.",
            stacklevel=2,
        )


def _require_entries(directory: str) -> None:
    """Refuses directories that hold no graph, and says where some are."""
    entries = prefixes.list_directory(directory)
    if any(name.endswith((".meta", ".index", ".pbtxt")) for name in entries):
        return
    inner = [
        os.path.join(directory, name)
        for name in sorted(entries)
        if any(
            os.path.exists(os.path.join(directory, name, file))
            for file in ("saved_model.pb", "saved_model.pbtxt", "checkpoint")
        )
    ]
    raise FormatError(
        f"{directory!r} holds neither a .meta nor a SavedModel"
        + (", but these directories in it may:" if inner else "."),
        findings=inner,
        fix="pass a checkpoint prefix, a .meta file, a directory of checkpoints or a "
        "SavedModel directory.",
    )


def _refuse_without_graph(
    path: str, prefix: str, located: prefixes.Located
) -> NoReturn:
    directory = os.path.dirname(path)
    entries = prefixes.list_directory(directory)
    known = {prefixes.graph_prefix(name) for name in entries if name != "checkpoint"}
    graphs = sorted(name for name in entries if name.endswith((".meta", ".pbtxt")))
    if located.checkpoint or located.note or os.path.exists(path):
        raise FormatError(
            f"{path!r} has no graph: there is no {prefix + '.meta'!r}. Graphs in the "
            "same directory:" + ("" if graphs else " none."),
            findings=[os.path.join(directory, name) for name in graphs],
            fix="put the .meta that belongs to the checkpoint beside it under the name "
            f"{os.path.basename(prefix) + '.meta'!r}.",
        )
    raise FormatError(
        f"There is no {path!r}{nearest(os.path.basename(prefix), known)}.",
        fix="pass a checkpoint prefix, a .meta file, a directory of checkpoints or a "
        "SavedModel directory.",
    )
