"""Writes models in each kind of file."""

import os
import shutil
from collections.abc import Sequence
from typing import Any

from keras_metagraph.conversion.kinds import META_GRAPH, SAVED_MODEL, WEIGHTS
from keras_metagraph.conversion.sources import Source, SourceGraph
from keras_metagraph.errors import ExportError, MetaGraphError
from keras_metagraph.export.options import GRAPHS
from keras_metagraph.saved_model.api import save_saved_model
from keras_metagraph.saving import (
    checkpoint_variables,
    export_meta_graph,
    save_meta_graph,
)

_SERVE = "serve"
_ASSETS = ("assets", "assets.extra")


def write(
    source: Source, path: str, kind: str, graphs: Sequence[str], *, as_text: bool
) -> None:
    """Writes what was loaded.

    Args:
        source: The models.
        path: Where to; a prefix for a MetaGraph.
        kind: One of `kinds.KINDS`.
        graphs: Which graphs of a Keras model are written.
        as_text: Whether graphs are written as text.

    Raises:
        ExportError: If the model has what such a file cannot hold.
        MetaGraphError: Of the kind that an export raises.
    """
    if kind == SAVED_MODEL:
        save_saved_model(path, _saved_graphs(source, graphs), as_text=as_text)
        _copy_assets(source, path)
    elif kind == META_GRAPH:
        _write_meta_graph(source, path, graphs, as_text)
    else:
        _write_keras(source.graphs[0].model, path, kind)


def asset_files(source: Source) -> dict[str, str]:
    """The files of a SavedModel beside graph and values: paths by name.

    Links are not followed, so that nothing comes from outside its directory.
    """
    if source.kind != SAVED_MODEL:
        return {}
    root = os.path.dirname(source.path)
    paths = [
        os.path.join(directory, name)
        for folder in _ASSETS
        if not os.path.islink(os.path.join(root, folder))
        for directory, _, names in os.walk(os.path.join(root, folder))
        for name in sorted(names)
    ]
    regular = [p for p in paths if os.path.isfile(p) and not os.path.islink(p)]
    return {os.path.relpath(path, root): path for path in regular}


def _saved_graphs(
    source: Source, graphs: Sequence[str]
) -> dict[tuple[str, ...], dict[str, Any]]:
    """The graphs of a SavedModel by tags.

    Those that there were; of a model of Keras one for each of its steps.
    """
    found: dict[tuple[str, ...], dict[str, Any]] = {}
    for graph in source.graphs:
        model = graph.model
        if graph.runs_graph:
            tags = graph.tags if source.kind == SAVED_MODEL else (_SERVE,)
            found[tags] = {"model": model, "graphs": _part(graph)}
        elif source.kind == SAVED_MODEL and graph.steps is not None:
            steps = tuple(step for step in graph.steps if step in graphs)
            found |= {graph.tags: {"model": model, "graphs": steps}} if steps else {}
        else:
            steps = tuple(step for step in steps_of(source) if step in graphs)
            found |= {
                (_SERVE if step == "predict" else step,): {
                    "model": model,
                    "graphs": (step,),
                }
                for step in steps
            }
    return found


def steps_of(source: Source) -> tuple[str, ...]:
    """The graphs that there are of a Keras model: as its file says, or as compiled."""
    known = [step for graph in source.graphs for step in graph.steps or ()]
    compiled = source.graphs[0].model.compiled
    return tuple(dict.fromkeys(known)) or (GRAPHS if compiled else GRAPHS[:1])


def _part(graph: SourceGraph) -> tuple[str, ...]:
    """What a graph of TensorFlow is for: its tags say it, if it has what it takes."""
    interface = graph.model.meta_graph.interface
    if "train" in graph.tags and interface.train_op and interface.loss:
        return ("train",)
    return ("eval",) if "eval" in graph.tags and interface.loss else ("predict",)


def _copy_assets(source: Source, path: str) -> None:
    """Copies the files that the graphs, which go on as they were, still name."""
    for name, file in asset_files(source).items():
        target = os.path.join(path, name)
        if not os.path.exists(target):
            os.makedirs(os.path.dirname(target), exist_ok=True)
            shutil.copyfile(file, target)


def _write_meta_graph(
    source: Source, prefix: str, graphs: Sequence[str], as_text: bool
) -> None:
    graph = source.graphs[0]
    options: dict[str, Any] = {"as_text": as_text}
    if not graph.runs_graph:
        options["graphs"] = tuple(s for s in steps_of(source) if s in graphs)
    if checkpoint_variables(graph.model):
        save_meta_graph(graph.model, prefix, write_state=False, **options)
    else:  # TensorFlow has no empty checkpoints
        export_meta_graph(graph.model, f"{prefix}.meta", **options)


def _write_keras(model: Any, path: str, kind: str) -> None:
    try:
        if kind == WEIGHTS:
            model.save_weights(path)
        else:
            model.save(path)
    except MetaGraphError:
        raise
    except (TypeError, ValueError, NotImplementedError, RuntimeError) as error:
        raise ExportError(
            f"Keras cannot save this {type(model).__name__} as {kind}: {error}",
            fix="save it as .keras or as a SavedModel.",
        ) from error
