"""Writes the outputs of `keras-metagraph run`."""

import os
import zipfile
from collections.abc import Mapping
from typing import Any

import numpy as np

from keras_metagraph.checkpoint.durable import replaced_file
from keras_metagraph.errors import ExportError


def refuse_existing(path: str, *, force: bool) -> None:
    """Refuses a file that is there, before the work that leads to it.

    Raises:
        ExportError: If the path exists, and is not to be replaced.
    """
    if os.path.lexists(path) and not force:
        raise ExportError(
            f"{path!r} exists.", fix="choose another name, or pass --force."
        )


def write_npz(path: str, arrays: Mapping[str, Any], *, force: bool) -> None:
    """Writes arrays as `numpy.savez` does, at once or not at all.

    Args:
        path: The file.
        arrays: Arrays by name. Strings are written with the dtype `S`.
        force: Whether a file of this name is replaced.

    Raises:
        ExportError: If it exists, cannot be written, or cannot hold the arrays.
    """
    plain = {name: _plain(name, value) for name, value in arrays.items()}
    refuse_existing(path, force=force)
    # Not numpy.savez, to which names such as "file" mean something else.
    with replaced_file(path) as temporary, zipfile.ZipFile(temporary, "x") as archive:
        for name, value in plain.items():
            with archive.open(f"{name}.npy", "w", force_zip64=True) as member:
                np.lib.format.write_array(member, value, allow_pickle=False)


def _plain(name: str, value: Any) -> Any:
    """An array that a file can hold without Python objects."""
    if value.dtype.kind == "V":  # bfloat16 and smaller floats, which NumPy has not
        return value.astype(np.float32)
    if value.dtype != object:
        return value
    texts = [t if isinstance(t, bytes) else str(t).encode() for t in value.ravel()]
    if any(text.endswith(b"\0") for text in texts):
        raise ExportError(
            f"The output {name!r} has strings that end in zeros, which a file of "
            "NumPy does not keep.",
            fix="print them: --json.",
        )
    return np.array(texts, dtype="S" if texts else "S1").reshape(value.shape)
