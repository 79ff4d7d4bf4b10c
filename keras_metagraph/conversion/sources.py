"""Loads what is converted: a model for each graph, and what they were made from."""

import dataclasses
import json
import warnings
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import keras

from keras_metagraph.conversion.kinds import H5, WEIGHTS, source_kind
from keras_metagraph.errors import CustomObjectError, FormatError
from keras_metagraph.formats.keras_h5 import KerasH5, read_keras_h5
from keras_metagraph.formats.layout import Export
from keras_metagraph.formats.registry import open_export
from keras_metagraph.loading.api import load_from_meta_graph
from keras_metagraph.loading.model import MetaGraphModel
from keras_metagraph.loading.own import is_own, read_description

Tags = tuple[str, ...]


@dataclasses.dataclass(frozen=True)
class SourceGraph:
    """A model, and the graph that it was loaded from.

    Attributes:
        model: The model.
        tags: The tags of the graph.
        meta_graph_def: The graph; `None` for a file of Keras.
    """

    model: Any
    tags: Tags = ()
    meta_graph_def: Any = None

    @property
    def runs_graph(self) -> bool:
        """Whether the model runs the graph of its file, and so has it with it."""
        return isinstance(self.model, MetaGraphModel)

    @property
    def steps(self) -> tuple[str, ...] | None:
        """What an own graph holds of its Keras model (`"predict"`, `"train"`...)."""
        if self.runs_graph or self.meta_graph_def is None:
            return None
        return _steps(self.meta_graph_def) if is_own(self.meta_graph_def) else None


@dataclasses.dataclass(frozen=True)
class Source:
    """What is converted.

    Attributes:
        path: The file that was opened.
        kind: `"meta_graph"`, `"saved_model"`, `"keras"` or `"h5"`.
        graphs: What is converted of it, by graph; for a file of Keras its model.
        export: What was opened; `None` for a file of Keras.
    """

    path: str
    kind: str
    graphs: list[SourceGraph]
    export: Export | None = None

    @property
    def others(self) -> list[Tags]:
        """Tags of the graphs that are not converted."""
        chosen = [id(graph.meta_graph_def) for graph in self.graphs]
        graphs = [] if self.export is None else self.export.meta_graphs
        return [tuple(g.meta_info_def.tags) for g in graphs if id(g) not in chosen]


def open_source(
    source: str,
    *,
    tags: str | Iterable[str] | None,
    signature: str | None,
    custom_objects: Mapping[str, Any] | None,
    safe_mode: bool,
    several: bool,
) -> Source:
    """Loads a source.

    Args:
        source: Any path that can be converted.
        tags: Only the graph with these tags.
        signature: The signature that gives inputs and outputs.
        custom_objects: Classes and functions by name.
        safe_mode: Whether what reaches beyond the model is refused.
        several: Whether all graphs of a SavedModel are wanted, where no tags are given.

    Returns:
        The models; of a Keras model one, with all of its graphs.

    Raises:
        FormatError: If it is a file of Keras, and tags or a signature are asked for.
        MetaGraphError: Of the kind that loading such a file raises.
    """
    kind = source_kind(source)
    if kind is not None:
        if tags is not None or signature is not None:
            raise FormatError(
                f"{source!r} is a file of Keras, which has no tags and signatures.",
                fix="leave them out.",
            )
        model = _load_keras(source, kind, custom_objects, safe_mode)
        return Source(source, kind, [SourceGraph(model)])
    export = open_export(source)

    def load(meta_graph_def: Any) -> SourceGraph:
        own_tags = tuple(meta_graph_def.meta_info_def.tags)
        model = load_from_meta_graph(
            export.path,
            custom_objects,
            tags=own_tags if export.kind == "saved_model" else None,
            signature=signature,
            safe_mode=safe_mode,
        )
        return SourceGraph(model, own_tags, meta_graph_def)

    if tags is not None:
        graphs = [load(export.select(tags))]
    else:
        graphs = _load_own_model(export, load)
        if not graphs:
            wanted = export.meta_graphs if several else [export.select()]
            graphs = [load(meta_graph_def) for meta_graph_def in wanted]
    return Source(export.path, export.kind, graphs, export)


def _load_own_model(
    export: Export, load: Callable[[Any], SourceGraph]
) -> list[SourceGraph]:
    """The graphs of one Keras model, with that model; empty if they are not such."""
    meta_graph_defs = export.meta_graphs
    if (
        not all(map(is_own, meta_graph_defs))
        or len(set(map(_model, meta_graph_defs))) > 1
    ):
        return []
    # Only the graph that trains comes with the optimizer.
    first = max(meta_graph_defs, key=lambda each: "train" in _steps(each))
    loaded = load(first)
    if loaded.runs_graph:
        return []
    return [
        dataclasses.replace(
            loaded, tags=tuple(each.meta_info_def.tags), meta_graph_def=each
        )
        for each in meta_graph_defs
    ]


def _model(meta_graph_def: Any) -> str:
    """What tells the Keras models of own graphs apart: config and weights."""
    fields = read_description(meta_graph_def)
    weights = [r["name"] for r in fields["variables"] if r["role"] == "weight"]
    return json.dumps([fields["model"], weights], sort_keys=True)


def _steps(meta_graph_def: Any) -> tuple[str, ...]:
    graphs = read_description(meta_graph_def).get("graphs") or {}
    return tuple(name for name, graph in graphs.items() if graph)


def _load_keras(
    path: str, kind: str, custom_objects: Mapping[str, Any] | None, safe_mode: bool
) -> Any:
    """Loads a `.keras` or H5 file; those of Keras 1 and 2 as such."""
    content = read_keras_h5(path) if kind == H5 else None
    if kind == WEIGHTS or (content is not None and content.model_config is None):
        raise FormatError(
            f"{path!r} has weights, but no model.",
            fix="build the model in Keras, load the weights with warm_start, and save "
            "the model.",
        )
    if content is not None and content.release < (3,):
        return load_from_meta_graph(path, custom_objects, safe_mode=safe_mode)

    def load(compile: bool) -> Any:
        return keras.saving.load_model(
            path, custom_objects=custom_objects, safe_mode=safe_mode, compile=compile
        )

    try:
        if content is None:
            return load(compile=True)
        try:
            return _with_state(load(compile=True), content)
        except (TypeError, ValueError) as error:
            # Keras 3 does not find all that its H5 files name, such as "mse".
            model = load(compile=False)
            warnings.warn(
                "The model is not compiled, so it has no training step and no state of "
                f"an optimizer: {error}",
                stacklevel=2,
            )
            return model
    except (TypeError, ValueError, NotImplementedError, OSError) as error:
        what = CustomObjectError if isinstance(error, TypeError) else FormatError
        raise what(
            f"Keras cannot load {path!r}: {error}",
            fix="give the classes that are missing (custom_objects, --import); for "
            "code in a file that you trust, pass safe_mode=False (--trust).",
        ) from error


def _with_state(model: Any, content: KerasH5) -> Any:
    """Fills the optimizer, of which Keras 3 builds no slots when it loads H5 files.

    Raises:
        ValueError: If the file has the state of another optimizer.
    """
    if not model.compiled or not content.optimizer_weights:
        return model
    model.compile_from_config(model.get_compile_config())
    variables = model.optimizer.variables
    values = [value for _, value in content.optimizer_weights]
    if [tuple(v.shape) for v in variables] != [v.shape for v in values]:
        raise ValueError("its state does not fit the optimizer")
    for variable, value in zip(variables, values, strict=True):
        variable.assign(value)
    return model
