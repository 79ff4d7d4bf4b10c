"""SavedModel directories: several MetaGraphs over one set of variables."""

import os

from keras_metagraph.errors import FormatError
from keras_metagraph.formats import prefixes
from keras_metagraph.formats.assets import assets_directory
from keras_metagraph.formats.layout import Export
from keras_metagraph.formats.protos import read_saved_model

_FILES = ("saved_model.pb", "saved_model.pbtxt")
_CHUNKED = "saved_model.cpb"


class SavedModelLayout:
    """A directory with `saved_model.pb` or `.pbtxt`, `variables/` and `assets/`."""

    name = "SavedModel"

    def recognizes(self, path: str) -> bool:
        """Whether a path is such a directory, or the file in it."""
        directory = _directory(path)
        return any(
            os.path.lexists(os.path.join(directory, file))
            for file in (*_FILES, _CHUNKED)
        )

    def open(self, path: str) -> Export:
        """Reads the graphs.

        Args:
            path: The directory, or the file in it.

        Returns:
            The graphs, and the prefix of their variables if they have some.

        Raises:
            FormatError: If the graphs cannot be read.
        """
        directory = _directory(path)
        file = next(
            (p for f in _FILES if os.path.lexists(p := os.path.join(directory, f))),
            None,
        )
        if file is None:
            raise FormatError(
                f"{directory!r} holds a SavedModel in chunks ({_CHUNKED}), which only "
                "TensorFlow 2 writes, for graphs over 2 GB.",
                fix="save the model again without chunks.",
            )
        meta_graphs = read_saved_model(file)
        located = prefixes.locate(os.path.join(directory, "variables", "variables"))
        return Export(
            path=file,
            kind="saved_model",
            meta_graphs=meta_graphs,
            checkpoint=located.checkpoint,
            assets_directory=assets_directory(directory),
            note=located.note,
        )


def _directory(path: str) -> str:
    """The directory of a SavedModel for its own path or that of its file."""
    if os.path.basename(path) in (*_FILES, _CHUNKED) and not os.path.isdir(path):
        return os.path.dirname(path)
    return path
