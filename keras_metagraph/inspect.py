"""`inspect_meta_graph`: what a file holds, before anything of it is run."""

import dataclasses
import os
from collections.abc import Iterable

from rich.console import Console, ConsoleOptions, RenderResult

from keras_metagraph import inspect_tables
from keras_metagraph.checkpoint.restore import TensorReader, open_checkpoint
from keras_metagraph.errors import CheckpointError
from keras_metagraph.formats.keras_h5 import is_hdf5
from keras_metagraph.formats.registry import open_export
from keras_metagraph.loading.legacy_keras.saved_model import keras2_objects
from keras_metagraph.loading.legacy_keras.summary import (
    KerasH5Report,
    KerasModelSummary,
    summarize_h5,
    summarize_keras2,
)
from keras_metagraph.loading.summary import GraphSummary, summarize
from keras_metagraph.loading.vocabularies import readable_tables
from keras_metagraph.printed import Printed


@dataclasses.dataclass(frozen=True)
class MetaGraphReport(Printed):
    """What a file holds.

    Printed, it is readable in 80 columns; `rich` shows it in colour.

    Attributes:
        path: The file that holds the graphs.
        kind: `"meta_graph"` or `"saved_model"`.
        checkpoint: Prefix of the checkpoint beside it; `None` if there is none.
        note: What is wrong with the checkpoint; empty if nothing is.
        meta_graphs: A summary of each graph.
        keras: The Keras 2 model that a SavedModel holds, which `load_from_meta_graph`
            rebuilds; `None` of others.
    """

    path: str
    kind: str
    checkpoint: str | None
    note: str
    meta_graphs: tuple[GraphSummary, ...]
    keras: KerasModelSummary | None = None

    @property
    def blocked(self) -> bool:
        """Whether a graph's outputs need ops that are not run."""
        return any(graph.blocked for graph in self.meta_graphs)

    def __rich_console__(
        self, console: Console, options: ConsoleOptions
    ) -> RenderResult:
        yield inspect_tables.head(self.path, self.kind, self.checkpoint, self.note)
        if self.keras is not None:
            yield self.keras
        for graph in self.meta_graphs:
            if len(self.meta_graphs) > 1:
                yield ""
            yield from inspect_tables.graph_tables(graph)


def inspect_meta_graph(
    filepath: str | os.PathLike[str], *, tags: str | Iterable[str] | None = None
) -> MetaGraphReport | KerasH5Report:
    """Looks into a MetaGraph, SavedModel or Keras H5 file; nothing of it is run.

    Args:
        filepath: A checkpoint prefix, a `.meta` or `.pbtxt` file, a directory with a
            `checkpoint` state file, a SavedModel directory, or an H5 file of Keras 1
            or 2.
        tags: Only the graph with exactly these tags; by default all graphs.

    Returns:
        Versions, variables, collections, signatures, the inferred inputs, outputs,
        labels, loss and train op with the reasons, the optimizer, op counts, and what
        would not be run. Of a Keras model in an H5 file, or that Keras 2 saved as a
        SavedModel, its layers, weights, optimizer and loss.

    Raises:
        FormatError: If the file is missing, damaged, or no MetaGraph.
        SignatureError: If no graph has the tags.

    Example:
        ```python
        report = keras_metagraph.inspect_meta_graph("exports/model-20")
        print(report)
        report.meta_graphs[0].interface.inputs  # {"x": "x:0"}
        ```
    """
    if is_hdf5(filepath):
        return summarize_h5(filepath)
    export = open_export(filepath)
    wanted = export.meta_graphs if tags is None else [export.select(tags)]
    reader, note = _open(export.checkpoint)
    keras2 = keras2_objects(export, wanted[0])
    return MetaGraphReport(
        path=export.path,
        kind=export.kind,
        checkpoint=export.checkpoint,
        note=note or export.note,
        meta_graphs=_share_unused(
            [summarize(g, reader, readable_tables(g, export)) for g in wanted]
        ),
        keras=summarize_keras2(wanted[0], keras2) if keras2 else None,
    )


def _share_unused(graphs: list[GraphSummary]) -> tuple[GraphSummary, ...]:
    """Counts a key of the shared checkpoint as unused where no graph takes it."""
    unused = set(graphs[0].unused).intersection(*(g.unused for g in graphs))
    return tuple(
        dataclasses.replace(g, unused=tuple(k for k in g.unused if k in unused))
        for g in graphs
    )


def _open(checkpoint: str | None) -> tuple[TensorReader | None, str]:
    """The checkpoint, or why it cannot be read."""
    if checkpoint is None:
        return None, ""
    try:
        return open_checkpoint(checkpoint), ""
    except CheckpointError as error:
        return None, error.problem
