"""What a layout of files is, and what comes out of it."""

import dataclasses
from collections.abc import Iterable
from typing import Any, Literal, Protocol

from keras_metagraph.errors import SignatureError

MetaGraphDef = Any


@dataclasses.dataclass(frozen=True, slots=True)
class Export:
    """A graph or several as they lie on disk.

    Attributes:
        path: The file that holds the graphs.
        kind: `"meta_graph"` or `"saved_model"`.
        meta_graphs: The graphs; one, but for a SavedModel.
        checkpoint: Prefix of the checkpoint with the values of the variables, as
            `tf.train.load_checkpoint` takes it. None if there is no complete one.
        assets_directory: Where the files lie that the graphs' tables are made from.
        note: What is wrong where `checkpoint` is None: `"model.index is there, but its
            data files are not"`. Empty if no file of a checkpoint was found.
    """

    path: str
    kind: Literal["meta_graph", "saved_model"]
    meta_graphs: list[MetaGraphDef]
    checkpoint: str | None = None
    assets_directory: str | None = None
    note: str = ""

    def select(self, tags: str | Iterable[str] | None = None) -> MetaGraphDef:
        """Picks one of the graphs by its tags.

        Args:
            tags: Exactly the tags of the wanted graph, in any order. None is the only
                graph; among several the one that is tagged `serve` and nothing else,
                or, where none is, the one without tags, as TensorFlow Hub had it.

        Returns:
            The MetaGraphDef.

        Raises:
            SignatureError: If no graph has these tags, or several do; it lists the
                tag sets there are.

        Example:
            >>> open_export("exported/1").select("serve")
        """
        if tags is None and len(self.meta_graphs) == 1:
            return self.meta_graphs[0]
        given = "serve" if tags is None else tags
        wanted = {given} if isinstance(given, str) else set(given)
        found = self._tagged(wanted)
        if tags is None and not found:
            found = self._tagged(set())
        if len(found) == 1:
            return found[0]
        problem = "has no graph" if not found else f"has {len(found)} graphs"
        raise SignatureError(
            f"{self.path} {problem} with the tags {sorted(wanted)}. It holds graphs "
            "with the tags:",
            findings=[str(sorted(m.meta_info_def.tags)) for m in self.meta_graphs],
            fix="pass one of these sets as tags=[...].",
        )

    def _tagged(self, tags: set[str]) -> list[MetaGraphDef]:
        """The graphs with exactly these tags."""
        return [m for m in self.meta_graphs if set(m.meta_info_def.tags) == tags]


class Layout(Protocol):
    """A way in which graphs and values lie on disk.

    A new layout is one module with a class like this, and one entry in the registry.
    """

    name: str
    """What the layout is called in messages."""

    def recognizes(self, path: str) -> bool:
        """Whether a path is one of this layout; it looks at names only."""

    def open(self, path: str) -> Export:
        """Reads what lies there; raises FormatError if it cannot be read."""
