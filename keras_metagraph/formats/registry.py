"""Which layouts there are, and the one entry to all of them."""

import os

from keras_metagraph.errors import DuplicateHandlerError, FormatError
from keras_metagraph.formats.layout import Export, Layout
from keras_metagraph.formats.meta_graph import MetaGraphLayout
from keras_metagraph.formats.saved_model import SavedModelLayout


class LayoutRegistry:
    """Layouts in the order in which they are asked.

    Args:
        layouts: The layouts; the first that recognizes a path opens it.
    """

    def __init__(self, *layouts: Layout) -> None:
        self._layouts: list[Layout] = []
        for layout in layouts:
            self.register(layout)

    def register(self, layout: Layout) -> None:
        """Adds a layout, which is asked before those that are there already.

        Args:
            layout: The layout.

        Raises:
            DuplicateHandlerError: If a layout of this name is there already.
        """
        if any(layout.name == other.name for other in self._layouts):
            raise DuplicateHandlerError(
                f"The registry already has a layout {layout.name!r}.",
                fix="give the new layout another name.",
            )
        self._layouts.insert(0, layout)

    def child(self) -> "LayoutRegistry":
        """Copies this registry, so that layouts can be added for one use."""
        return LayoutRegistry(*reversed(self._layouts))

    def open(self, filepath: str | os.PathLike[str]) -> Export:
        """Opens a path with the first layout that recognizes it.

        Args:
            filepath: Where to look.

        Returns:
            The graphs and where their values are.

        Raises:
            FormatError: If no layout recognizes the path, or it cannot be read.
        """
        path = os.fsdecode(os.fspath(filepath))
        if not path or "\0" in path:
            raise FormatError(
                f"Expected the path of a file or directory. Received: {path!r}",
                fix="pass a checkpoint prefix, a .meta file or a directory.",
            )
        for layout in self._layouts:
            if layout.recognizes(path):
                return layout.open(path)
        raise FormatError(
            f"{path!r} is of none of the known layouts.",
            findings=[layout.name for layout in self._layouts],
            fix="pass a checkpoint prefix, a .meta file or a directory.",
        )


LAYOUTS = LayoutRegistry(MetaGraphLayout(), SavedModelLayout())
"""The layouts that this package reads; the last one is asked first."""


def open_export(filepath: str | os.PathLike[str]) -> Export:
    """Opens a graph and finds the checkpoint that belongs to it.

    Args:
        filepath: A checkpoint prefix (`"run/model-120"`), a `.meta` or `.pbtxt` file, a
            directory with checkpoints (its newest complete one is taken), a
            SavedModel directory, or a `session_bundle` export.

    Returns:
        The graphs and where their values are. Values are not read.

    Raises:
        FormatError: If nothing is there, or it is no MetaGraph: damaged, too large, or
            another kind of file, which the message names.

    Example:
        >>> open_export("run").checkpoint
        'run/model-120'
    """
    return LAYOUTS.open(filepath)
