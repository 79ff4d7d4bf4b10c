"""Writes models in each kind of file."""

import os
import shutil
from collections.abc import Mapping
from typing import Any

from tensorflow.core.protobuf.meta_graph_pb2 import SignatureDef, TensorInfo

from keras_metagraph.conversion.kinds import META_GRAPH, SAVED_MODEL, WEIGHTS
from keras_metagraph.conversion.sources import Source, SourceGraph
from keras_metagraph.errors import ExportError, MetaGraphError
from keras_metagraph.graph.specs import tensor_spec
from keras_metagraph.loading.infer.signatures import signature_defs
from keras_metagraph.saved_model.api import save_saved_model
from keras_metagraph.saving import (
    checkpoint_variables,
    export_meta_graph,
    save_meta_graph,
)

_DEFAULT = "serving_default"
_PREDICT = "tensorflow/serving/predict"
_STEPS = {"predict": "serve", "train": "train", "eval": "eval"}
_ASSETS = ("assets", "assets.extra")


def write(source: Source, path: str, kind: str, *, as_text: bool) -> None:
    """Writes what was loaded.

    Args:
        source: The models.
        path: Where to; a prefix for a MetaGraph.
        kind: One of `kinds.KINDS`.
        as_text: Whether graphs are written as text.

    Raises:
        ExportError: If the model has what such a file cannot hold.
        MetaGraphError: Of the kind that an export raises.
    """
    if kind == SAVED_MODEL:
        save_saved_model(path, _saved_graphs(source), as_text=as_text)
        _copy_assets(source, path)
    elif kind == META_GRAPH:
        _write_meta_graph(source, path, as_text)
    else:
        _write_keras(source.graphs[0].model, path, kind)


def asset_files(source: Source) -> dict[str, str]:
    """The files of a SavedModel beside graph and values: paths by name, of both kinds.

    Only regular files that lie in its own directory are taken.
    """
    if source.kind != SAVED_MODEL:
        return {}
    root = os.path.dirname(source.path)
    paths = [
        os.path.join(directory, name)
        for folder in _ASSETS
        for directory, _, names in os.walk(os.path.join(root, folder))
        for name in sorted(names)
    ]
    regular = [p for p in paths if os.path.isfile(p) and not os.path.islink(p)]
    return {os.path.relpath(path, root): path for path in regular}


def _saved_graphs(source: Source) -> dict[tuple[str, ...], dict[str, Any]]:
    """The graphs of a SavedModel: those that there were, or one for each step."""
    found: dict[tuple[str, ...], dict[str, Any]] = {}
    for graph in source.graphs:
        model = graph.model
        if source.kind == SAVED_MODEL:
            steps = {} if graph.steps is None else {"graphs": graph.steps}
            found[graph.tags] = {"model": model, **_signatures(graph), **steps}
        elif graph.runs_graph:
            found["serve",] = {"model": model, **_signatures(graph)}
        else:
            known = graph.steps or (_STEPS if model.compiled else ("predict",))
            found |= {(_STEPS[s],): {"model": model, "graphs": (s,)} for s in known}
    return found


def _copy_assets(source: Source, path: str) -> None:
    """Copies the files that the graphs, which go on as they were, still name."""
    for name, file in asset_files(source).items():
        target = os.path.join(path, name)
        if not os.path.exists(target):
            os.makedirs(os.path.dirname(target), exist_ok=True)
            shutil.copyfile(file, target)


def _write_meta_graph(source: Source, prefix: str, as_text: bool) -> None:
    graph = source.graphs[0]
    options = dict(_signatures(graph))
    steps = [step for each in source.graphs for step in each.steps or ()]
    if steps:
        options["graphs"] = tuple(dict.fromkeys(steps))
    if checkpoint_variables(graph.model):
        save_meta_graph(
            graph.model, prefix, as_text=as_text, write_state=False, **options
        )
    else:  # TensorFlow has no empty checkpoints
        export_meta_graph(graph.model, f"{prefix}.meta", as_text=as_text, **options)


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


def _signatures(graph: SourceGraph) -> Mapping[str, Any]:
    """Signatures for a graph that has none: what the model takes and gives.

    Those of a session_bundle, which no later TensorFlow reads, too.
    """
    if not graph.runs_graph or graph.meta_graph_def.signature_def:
        return {}
    meta_graph = graph.model.meta_graph
    interface = meta_graph.interface
    flags = [t for t in interface.training_values if _is_fed(meta_graph, t)]
    inputs = {tensor.partition(":")[0]: tensor for tensor in flags} | interface.inputs
    sides = {_DEFAULT: (inputs, interface.outputs)} | {
        key: (_tensors(each.inputs), _tensors(each.outputs))
        for key, each in signature_defs(graph.meta_graph_def).items()
    }
    return {
        "signatures": {
            key: SignatureDef(
                method_name=_PREDICT,
                inputs=_tensor_infos(meta_graph.graph, inputs),
                outputs=_tensor_infos(meta_graph.graph, outputs),
            )
            for key, (inputs, outputs) in sides.items()
        }
    }


def _tensors(infos: Mapping[str, Any]) -> dict[str, str]:
    return {key: info.name for key, info in infos.items()}


def _tensor_infos(graph: Any, tensors: Mapping[str, str]) -> dict[str, TensorInfo]:
    specs = {key: tensor_spec(graph, tensor) for key, tensor in tensors.items()}
    return {
        key: TensorInfo(
            name=tensors[key],
            dtype=spec.dtype.as_datatype_enum,
            tensor_shape=spec.shape.as_proto(),
        )
        for key, spec in specs.items()
    }


def _is_fed(meta_graph: Any, tensor: str) -> bool:
    """Whether a session must feed a flag: it has no default."""
    node = meta_graph.graph.nodes[tensor.partition(":")[0]]
    return str(node.op) in ("Placeholder", "PlaceholderV2")
