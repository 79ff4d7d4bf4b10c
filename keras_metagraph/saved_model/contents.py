"""Puts the graphs of a SavedModel together: one set of names, values and files."""

import dataclasses
import os
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from google.protobuf import text_format
from tensorflow.core.protobuf.saved_model_pb2 import SavedModel

from keras_metagraph.checkpoint.durable import sync_file, write_bytes
from keras_metagraph.checkpoint.snapshot import take_snapshot
from keras_metagraph.checkpoint.write import write_bundle
from keras_metagraph.errors import ExportError
from keras_metagraph.export.assemble import Exported
from keras_metagraph.saved_model.assets import AssetFiles, add_asset, write_files
from keras_metagraph.saved_model.graph_specs import GraphSpec
from keras_metagraph.saving import export_with, values_for

_SCHEMA_VERSION = 1
_LARGEST_MESSAGE = (1 << 31) - 1


@dataclasses.dataclass(frozen=True, slots=True)
class Contents:
    """What is written.

    Attributes:
        saved_model: The graphs.
        values: The values of all variables by name.
        assets: Paths or contents of files by name.
    """

    saved_model: Any
    values: dict[str, Any]
    assets: Mapping[str, Any]

    def write(self, directory: str, *, as_text: bool) -> None:
        """Writes everything into a new directory, and syncs the files.

        Args:
            directory: The directory.
            as_text: Whether the graphs are written as text.
        """
        variables = os.path.join(directory, "variables")
        os.mkdir(variables)
        if self.values:
            prefix = os.path.join(variables, "variables")
            write_bundle(prefix, take_snapshot(self.values))
        for name in os.listdir(variables):
            sync_file(os.path.join(variables, name))
        write_files(os.path.join(directory, "assets"), self.assets)
        if as_text:
            text = text_format.MessageToString(self.saved_model)
            name, content = "saved_model.pbtxt", text.encode("utf-8")
        else:
            name = "saved_model.pb"
            content = self.saved_model.SerializeToString(deterministic=True)
        write_bytes(os.path.join(directory, name), content)


def build_contents(
    specs: Sequence[GraphSpec], checkpoint: str | os.PathLike[str] | None
) -> Contents:
    """Exports the graphs.

    Args:
        specs: What to export.
        checkpoint: Where the values come from, if not from the models.

    Returns:
        The graphs in the order of `specs`, and what they share.

    Raises:
        ExportError: If a graph cannot be exported.
        SignatureError: If a signature names what is not in its graph.
        CheckpointError: If the checkpoint does not fit.
    """
    files = _user_files(specs)
    exports: dict[int, tuple[Exported, Any]] = {}
    names: dict[int, str] = {}
    values: dict[str, Any] = {}
    legacy: dict[str, Any] = {}
    for place in _naming_order(specs):
        spec = specs[place]
        exported, meta_graph_def = exports[place] = _export(spec, names)
        if _is_legacy(spec):
            _claim_names(legacy, spec, exported)
        values |= _new_values(spec, exported, values, checkpoint)
        names |= exported.names | {id(v.variable): v.name for v in exported.variables}
        for file in exported.files:
            name = files.add_content(file.name, file.content)
            add_asset(meta_graph_def, name, file.node)
        for name in spec.assets:
            add_asset(meta_graph_def, name)
    saved_model = SavedModel(saved_model_schema_version=_SCHEMA_VERSION)
    for _, (_, meta_graph_def) in sorted(exports.items()):
        saved_model.meta_graphs.append(meta_graph_def)
    _check_size(saved_model)
    return Contents(saved_model, values, files.sources)


def _user_files(specs: Sequence[GraphSpec]) -> AssetFiles:
    """The files that the user gave, which keep their names."""
    files = AssetFiles()
    findings = [
        f"{name}: {files.sources[name]!r} and {path!r}"
        for spec in specs
        for name, path in spec.assets.items()
        if not files.add(name, path)
    ]
    if findings:
        raise ExportError(
            "Graphs of one SavedModel share its assets. These names have two files:",
            findings=findings,
            fix="give them other names: assets={name: path}.",
        )
    return files


def _naming_order(specs: Sequence[GraphSpec]) -> list[int]:
    """The places of the graphs in the order in which they name their variables.

    Graphs of legacy files have names already. Among the others the one that trains
    knows the most variables, and by their place in the whole: so it is the first.
    """

    def rank(place: int) -> tuple[bool, bool, int]:
        spec = specs[place]
        return not _is_legacy(spec), "train" not in spec.options.graphs, place

    return sorted(range(len(specs)), key=rank)


def _export(spec: GraphSpec, names: Mapping[int, str]) -> tuple[Exported, Any]:
    """Exports one graph; its variables have the names that they have in others."""
    saved_model = dataclasses.replace(spec.saved_model, names=dict(names))
    options = dataclasses.replace(spec.options, saved_model=saved_model)
    exported, meta_graph_def = export_with(spec.model, options)
    steps = [kind for kind in options.graphs if kind != "predict"]
    missing = [kind for kind in steps if kind not in meta_graph_def.signature_def]
    if missing:
        raise ExportError(
            f"The graph tagged {list(spec.tags)} cannot have the steps {missing}: the "
            "model is compiled without what they need.",
            fix="compile it with an optimizer and a loss.",
        )
    return exported, meta_graph_def


def _is_legacy(spec: GraphSpec) -> bool:
    """Whether the model may go on with the graph of the file it came from."""
    return callable(getattr(spec.model, "original_meta_graph", None))


def _claim_names(claimed: dict[str, Any], spec: GraphSpec, exported: Exported) -> None:
    """Notes the values of the names of legacy graphs, which cannot be changed.

    Graphs that were loaded from one SavedModel have the same, and share them again.

    Raises:
        ExportError: If others have other values.
    """
    findings = [
        f"{variable.name}, in the graph tagged {list(spec.tags)}"
        for variable in exported.variables
        if not _same(
            claimed.setdefault(variable.name, variable.variable), variable.variable
        )
    ]
    if findings:
        raise ExportError(
            "Several graphs of TensorFlow 1 have variables of these names, and other "
            "values in them:",
            findings=findings,
            fix="write SavedModels of their own, or compile all but one of the models "
            "with Keras optimizers.",
        )


def _same(value: Any, other: Any) -> bool:
    """Whether two arrays are equal, bit by bit."""
    value, other = np.asarray(value), np.asarray(other)
    return value is other or (
        (value.dtype, value.shape) == (other.dtype, other.shape)
        and value.tobytes() == other.tobytes()
    )


def _new_values(
    spec: GraphSpec,
    exported: Exported,
    known: Mapping[str, Any],
    checkpoint: str | os.PathLike[str] | None,
) -> dict[str, Any]:
    """The values that no other graph has given yet."""
    new = [v for v in exported.variables if v.name not in known]
    exported = dataclasses.replace(exported, variables=new)
    return values_for(spec.model, exported, None, checkpoint) if new else {}


def _check_size(saved_model: Any) -> None:
    size = saved_model.ByteSize()
    if size > _LARGEST_MESSAGE:
        raise ExportError(
            f"The graphs have {size} bytes, and a file can hold {_LARGEST_MESSAGE}.",
            fix="keep large constants of the models in variables, or write fewer "
            "graphs.",
        )
