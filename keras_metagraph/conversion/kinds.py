"""Which kind of file a path is, or is to be."""

import os
import re

from keras_metagraph.errors import FormatError
from keras_metagraph.formats.keras_h5 import is_hdf5

META_GRAPH, SAVED_MODEL = "meta_graph", "saved_model"
KERAS, H5, WEIGHTS = "keras", "h5", "weights"
KINDS = (META_GRAPH, SAVED_MODEL, KERAS, H5, WEIGHTS)

_ENDINGS = {
    ".weights.h5": WEIGHTS,
    ".h5": H5,
    ".hdf5": H5,
    ".keras": KERAS,
    ".meta": META_GRAPH,
}
_CHECKPOINT = re.compile(r"\.ckpt(-\d+)?$")
_OTHER_ENDING = re.compile(r"\.[a-z]\w*$", re.IGNORECASE)


def source_kind(path: str) -> str | None:
    """The kind of a file of Keras; None for what else `open_export` may open.

    Args:
        path: A path.

    Returns:
        `"keras"`, `"h5"`, `"weights"` or None.
    """
    if is_hdf5(path):
        return WEIGHTS if path.endswith(".weights.h5") else H5
    return KERAS if path.endswith(".keras") and os.path.isfile(path) else None


def destination_kind(path: str, to: str | None) -> str:
    """The kind that a destination is to be.

    Args:
        path: Where to write.
        to: The kind, if it is said; else the name says it.

    Returns:
        One of `KINDS`.

    Raises:
        FormatError: If the name says nothing that is known, or another kind than `to`.
    """
    if to is not None and to not in KINDS:
        raise FormatError(
            f"A destination is one of {', '.join(KINDS)}. Received: to={to!r}.",
            fix="leave it out where the name of the destination says it.",
        )
    by_name = _kind_by_name(path)
    if to in (KERAS, H5, WEIGHTS) and by_name != to:
        endings = [ending for ending, kind in _ENDINGS.items() if kind == to]
        raise FormatError(
            f"Keras gives such files the ending {' or '.join(endings)}. "
            f"Received: {path!r}.",
            fix="rename the destination.",
        )
    kind = to or by_name
    if kind is None:
        raise FormatError(
            f"The name {path!r} does not say what to write.",
            findings=[f"{end}: {found}" for end, found in _ENDINGS.items()]
            + [f".ckpt: {META_GRAPH}", f"no ending: {SAVED_MODEL}"],
            fix="give it one of these endings, or pass `to`.",
        )
    return kind


def _kind_by_name(path: str) -> str | None:
    base = os.path.basename(os.path.normpath(path))
    for ending, kind in _ENDINGS.items():
        if base.endswith(ending):
            return kind
    if _CHECKPOINT.search(base):
        return META_GRAPH
    return None if _OTHER_ENDING.search(base) else SAVED_MODEL
