"""Files beside a graph that its tables are made from.

Their names come from the graph, so they are looked for inside the export only: not by
`..`, not by absolute paths, not through links that lead out.
"""

import os

from keras_metagraph.checkpoint.durable import read_regular_file
from keras_metagraph.errors import FormatError, UntrustedContentError

MAX_ASSET_BYTES = 2**31 - 1


def assets_directory(directory: str) -> str | None:
    """The assets of an export.

    Args:
        directory: The directory of the export.

    Returns:
        Its directory `assets`; None if there is none, or it is a link that leads out.
    """
    path = os.path.join(directory, "assets")
    if os.path.isdir(path) and _is_inside(path, directory or "."):
        return path
    return None


def read_asset(directory: str, name: str, max_bytes: int = MAX_ASSET_BYTES) -> bytes:
    """Reads one asset.

    Args:
        directory: The assets directory.
        name: File name, as the graph has it.
        max_bytes: Larger files are refused.

    Returns:
        The contents.

    Raises:
        UntrustedContentError: If the name leads out of the directory.
        FormatError: If the file is not there, or cannot be read.

    Example:
        >>> read_asset(export.assets_directory, "vocabulary.txt").splitlines()[0]
        b'the'
    """
    path = os.path.join(directory, name)
    if "\0" in name or not _is_inside(path, directory):
        raise UntrustedContentError(
            f"The graph asks for the file {name!r}, outside {directory!r}.",
            fix="load files of people you trust only; where this one is yours, copy "
            "the file into the assets directory.",
        )
    try:
        return read_regular_file(path, max_bytes)
    except OSError as error:
        raise FormatError(
            f"The asset {path!r} cannot be read: {error.strerror or error}.",
            fix="copy the assets directory of the export along with it.",
        ) from error


def _is_inside(path: str, directory: str) -> bool:
    root = os.path.realpath(directory)
    real = os.path.realpath(path)
    return os.path.commonpath([root, real]) == root and real != root
