"""`convert`: from one kind of file to another."""

import os
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from keras_metagraph.checkpoint.names import check_filepath
from keras_metagraph.conversion.kinds import (
    META_GRAPH,
    SAVED_MODEL,
    destination_kind,
)
from keras_metagraph.conversion.losses import losses
from keras_metagraph.conversion.report import ConversionReport
from keras_metagraph.conversion.sources import open_source
from keras_metagraph.conversion.staging import check_destination, staged, taken
from keras_metagraph.conversion.writers import write
from keras_metagraph.errors import ExportError, FormatError
from keras_metagraph.export.options import GRAPHS
from keras_metagraph.formats.registry import open_export
from keras_metagraph.loading.infer.signatures import signature_defs

Path = str | os.PathLike[str]


def convert(
    source: Path,
    destination: Path,
    *,
    to: str | None = None,
    tags: str | Iterable[str] | None = None,
    signature: str | None = None,
    graphs: Sequence[str] = GRAPHS,
    custom_objects: Mapping[str, Any] | None = None,
    as_text: bool = False,
    safe_mode: bool = True,
    force: bool = False,
) -> ConversionReport:
    """Converts between MetaGraphs, SavedModels and the files of Keras.

    The source is loaded as `load_from_meta_graph` loads it (a `.keras` file as Keras
    does), and written as `save_meta_graph`, `save_saved_model` or `model.save` write.
    So a graph of TensorFlow stays the graph that it is, and a model of Keras a model.

    Args:
        source: A checkpoint prefix, a `.meta` or `.pbtxt` file, a directory of
            checkpoints, a SavedModel directory, a `.keras` or an H5 file.
        destination: What is written: a MetaGraph with its checkpoint if it ends with
            `.meta` or `.ckpt`, a file of Keras if it ends with `.keras`, `.h5` or
            `.weights.h5`, else the directory of a SavedModel.
        to: Says it where the name does not: `"meta_graph"` or `"saved_model"`.
        tags: Only the graph with exactly these tags. By default all graphs of a
            SavedModel go into a SavedModel. Other files hold one: the only one, or the
            one tagged `serve`.
        signature: The signature that gives the inputs and outputs of a graph.
        graphs: Which graphs of a model of Keras are written: `"predict"`, `"eval"`,
            `"train"`. In a SavedModel each is a MetaGraph: `serve`, `eval`, `train`.
        custom_objects: Classes and functions by the name that the file has for them.
        as_text: Whether the graph is written as text.
        safe_mode: Whether to refuse ops that touch files, network or Python, and
            Python code in configs.
        force: Whether a destination that is there is replaced.

    Returns:
        What was done, and what the new file does not hold.

    Raises:
        FormatError: If the source cannot be read, or the destination says no kind.
        SignatureError: If tags or signature are not there.
        CustomObjectError: If classes are missing.
        UntrustedContentError: If the model needs what `safe_mode` refuses.
        CheckpointError: If the checkpoint is missing, damaged, or of another model.
        ExportError: If the destination is there already, the model cannot be written
            so, or files cannot be written.

    Example:
        ```python
        print(convert("run/model-1000.meta", "exported/1"))
        ```
    """
    path = os.fsdecode(os.fspath(destination)).rstrip("/" + os.sep)
    kind = destination_kind(path, to)
    if as_text and kind not in (META_GRAPH, SAVED_MODEL):
        raise FormatError(
            f"A file of the kind {kind!r} has no text form.", fix="leave as_text out."
        )
    unknown = [graph for graph in graphs if graph not in GRAPHS]
    if unknown or not graphs:
        raise ExportError(
            f"graphs names some of {GRAPHS}. Received: graphs={graphs!r}",
            fix="leave it out for all of them.",
        )
    if kind == META_GRAPH:
        path = check_filepath(path.removesuffix(".meta"))
    check_destination(path, kind, force=force)
    loaded = open_source(
        os.fsdecode(os.fspath(source)),
        tags=tags,
        signature=signature,
        custom_objects=custom_objects,
        safe_mode=safe_mode,
        several=kind == SAVED_MODEL,
    )
    with staged(path, kind, force=force) as temporary:
        write(loaded, temporary, kind, graphs, as_text=as_text)
    is_graph = kind in (META_GRAPH, SAVED_MODEL)
    written = (
        open_export(f"{path}.meta" if kind == META_GRAPH else path)
        if is_graph
        else None
    )
    return ConversionReport(
        source=loaded.path,
        source_kind=loaded.kind,
        destination=path,
        kind=kind,
        model=type(loaded.graphs[0].model).__name__,
        graphs={
            ",".join(graph.meta_info_def.tags): tuple(signature_defs(graph))
            for graph in (written.meta_graphs if written else ())
        },
        files=_sizes(taken(path, kind)),
        lost=tuple(losses(loaded, kind, graphs, written)),
    )


def _sizes(paths: Iterable[str]) -> dict[str, int]:
    """Sizes of files, and of those in directories, by name."""
    found = {}
    for path in paths:
        parent = os.path.dirname(os.path.abspath(path))
        inside = [
            os.path.join(directory, name)
            for directory, _, names in os.walk(path)
            for name in names
        ]
        for file in inside if os.path.isdir(path) else [path]:
            found[os.path.relpath(file, parent)] = os.path.getsize(file)
    return dict(sorted(found.items()))
