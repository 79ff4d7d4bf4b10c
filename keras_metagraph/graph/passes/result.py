"""What a pass returns."""

import dataclasses

from keras_metagraph.graph.ir import Graph


@dataclasses.dataclass(frozen=True, slots=True)
class PassResult:
    """A graph after a pass; the graph before it is never changed.

    Attributes:
        graph: The new graph, or the same one where there was nothing to do.
        modified: Whether the pass changed anything.
        notes: What a reader of a report should know, one line each.
    """

    graph: Graph
    modified: bool
    notes: tuple[str, ...] = ()
