"""Builds the MetaGraphDef of a model: graph, saver, signatures, collections."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import tensorflow as tf

from keras_metagraph.errors import ExportError
from keras_metagraph.export.captures import further_variables
from keras_metagraph.export.collections import OWN, write_collections
from keras_metagraph.export.description import describe
from keras_metagraph.export.flat_model import FlatModel, PlacedGraph, flatten_model
from keras_metagraph.export.main_op import (
    MAIN_OP,
    trace_main_op,
    write_main_op,
    write_train_op,
)
from keras_metagraph.export.meta_info import OLD_VERSION, write_meta_info
from keras_metagraph.export.names import (
    NamedVariable,
    identity,
    is_global_step,
    named_variables,
)
from keras_metagraph.export.op_list import write_op_list
from keras_metagraph.export.options import GRAPHS, ExportOptions, SavedModelOptions
from keras_metagraph.export.placeholders import placeholder_tensors
from keras_metagraph.export.saver import add_group, add_saver
from keras_metagraph.export.scoped import UNBOUND, in_scope, take_scope, without_scope
from keras_metagraph.export.signatures import (
    DEFAULT_KEY,
    EVAL,
    PREDICT,
    TRAIN,
    write_signature,
    write_user_signatures,
)
from keras_metagraph.export.specs import NamedSpec
from keras_metagraph.export.supervised import METRIC_VALUES, trace_metric_values
from keras_metagraph.export.tables import TableFile
from keras_metagraph.export.tracing import TracedGraph, trace_model
from keras_metagraph.graph.ir import Graph
from keras_metagraph.graph.to_proto import graph_to_proto

_LARGEST_MESSAGE = (1 << 31) - 1
_METHODS = {"eval": EVAL, "predict": PREDICT, "signature": PREDICT, "train": TRAIN}


@dataclasses.dataclass(frozen=True, slots=True)
class Exported:
    """An exported model.

    Attributes:
        meta_graph_def: The graph and all that goes with it, but for what `finish` adds.
        graph: The same graph, to look names up in.
        variables: What belongs into the checkpoint beside it.
        others: Of these what the model does not list, as the traces found it.
        names: Names of all variables, by the id of the variable and by its `identity`.
        unsupported: What the TensorFlow that it is for cannot run, a line each.
        files: Files that its tables read.
    """

    meta_graph_def: Any
    graph: Graph
    variables: list[NamedVariable]
    others: list[Any]
    names: dict[int, str]
    unsupported: list[str]
    files: list[TableFile] = dataclasses.field(default_factory=list)


def build_meta_graph(model: Any, options: ExportOptions) -> Exported:
    """Exports a model.

    Args:
        model: A built `keras.Model`.
        options: What to export, and how.

    Returns:
        The MetaGraphDef, and the variables of its checkpoint.

    Raises:
        ExportError: If the model cannot be exported.
        SignatureError: If the scope is not in the graph.
    """
    inputs, traced = trace_model(model, options)
    saved_model = options.saved_model
    names = None
    if saved_model is not None:
        traced += trace_main_op(saved_model.main_op)
        if _reads_metrics(traced, saved_model):
            traced.append(trace_metric_values(model))
        names = saved_model.names
    known = named_variables(model)
    others = further_variables([each.trace for each in traced], known)
    variables = named_variables(model, others, names)
    flat = flatten_model(model, traced, variables, options)
    inside = {nodes.name for nodes in flat.variables}
    saved = [v for v in variables if v.name in inside and v.role != "metric"]
    meta_graph_def = tf.compat.v1.MetaGraphDef()
    if options.export_scope:
        flat = _scoped(meta_graph_def, flat, options.export_scope)
    else:
        layout = saved_model.layout if saved_model is not None else None
        _write_signatures(meta_graph_def, flat, layout)
        graphs = {
            placed.traced.kind: _describe_graph(placed)
            for placed in flat.graphs
            if placed.traced.kind in GRAPHS
        }
        description = describe(model, inputs, variables, graphs)
        _bytes(meta_graph_def, OWN).append(description)
    _write_state(meta_graph_def, flat)
    if saved_model is not None:
        _write_loading(meta_graph_def, flat, saved_model)
    _write_graph(meta_graph_def, flat.graph, options)
    return Exported(
        meta_graph_def,
        flat.graph,
        saved,
        others,
        _names_by_id(variables),
        flat.unsupported,
        [table.file for table in flat.tables if table.file is not None],
    )


def _names_by_id(variables: Sequence[NamedVariable]) -> dict[int, str]:
    """Names by the objects that the user may pass, and by what is in them."""
    return {
        key: each.name
        for each in variables
        for key in (id(each.variable), identity(each.variable))
    }


def finish(exported: Exported, options: ExportOptions) -> Any:
    """Adds what may differ from one save of an unchanged model to the next.

    Args:
        exported: The export; it is not changed.
        options: The user's signatures, collections and `meta_info`.

    Returns:
        A MetaGraphDef.

    Raises:
        ExportError: If a collection or field has no form in the file.
        SignatureError: If a signature names what is not in the graph.
    """
    meta_graph_def = tf.compat.v1.MetaGraphDef()
    meta_graph_def.CopyFrom(exported.meta_graph_def)
    named = {k: v for k, v in (options.signatures or {}).items() if not callable(v)}
    write_user_signatures(meta_graph_def, named, exported.graph)
    collections = options.collections or {}
    write_collections(meta_graph_def, collections, exported.graph, exported.names)
    if options.collection_list is not None:
        _keep_collections(meta_graph_def, options.collection_list)
    write_meta_info(
        meta_graph_def.meta_info_def,
        options.meta_info or {},
        version=OLD_VERSION if options.target is not None else tf.__version__,
        stripped=options.strip_default_attrs,
    )
    return meta_graph_def


def _scoped(meta_graph_def: Any, flat: FlatModel, scope: str) -> FlatModel:
    """Reduces the export to one scope; notes what comes from outside of it."""
    unbound = take_scope(flat.graph, scope)
    if unbound:
        names = (name.encode("utf-8") for name in unbound)
        _bytes(meta_graph_def, UNBOUND).extend(names)
    inside = [
        dataclasses.replace(
            variable,
            name=without_scope(variable.name, scope),
            initial_value=without_scope(variable.initial_value, scope),
        )
        for variable in flat.variables
        if in_scope(variable.name, scope)
    ]
    tables = [
        dataclasses.replace(table, initializer=without_scope(table.initializer, scope))
        for table in flat.tables
        if in_scope(table.initializer, scope)
    ]
    return FlatModel(flat.graph, inside, [], tables, flat.unsupported)


def _reads_metrics(traced: Sequence[TracedGraph], options: SavedModelOptions) -> bool:
    """Whether a graph of a SavedModel gives the values of the metrics."""
    kinds = {each.kind for each in traced}
    return "eval" in kinds or ("train" in kinds and options.layout is not None)


def _write_signatures(meta_graph_def: Any, flat: FlatModel, layout: str | None) -> None:
    """Writes the signatures of the exported graphs."""
    for placed in flat.graphs:
        traced = placed.traced
        if traced.kind in (MAIN_OP, METRIC_VALUES):
            continue
        outputs = {**placed.outputs, **placed.further}
        if layout is not None and placed.further:
            loss = {key: out for key, out in placed.outputs.items() if key == "loss"}
            outputs = {**loss, **placed.further}
        method = traced.method_name or _METHODS[traced.kind]
        for key in (traced.key or DEFAULT_KEY, *traced.aliases):
            write_signature(meta_graph_def, key, method, traced.feeds, outputs)
        if layout is not None and traced.kind == "predict":
            write_signature(meta_graph_def, "predict", method, traced.feeds, outputs)


def _describe_graph(placed: PlacedGraph) -> dict[str, Any]:
    """What the description of the model says of one graph."""
    traced = placed.traced
    outputs = {key: output.tensors[0] for key, output in placed.outputs.items()}
    fields: dict[str, Any] = {"inputs": _tensors(traced.inputs)}
    if traced.kind not in ("train", "eval"):
        return {**fields, "outputs": outputs}
    fields["labels"] = _tensors(traced.labels)
    fields["sample_weight"] = _tensors(traced.sample_weight)
    fields["loss"] = outputs.pop("loss", None)
    fields["metrics"] = outputs
    if placed.learning_rate is not None:
        fields["learning_rate"] = placed.learning_rate.tensors[0]
    fields["train_op" if traced.kind == "train" else "update_op"] = placed.run
    return fields


def _tensors(placeholders: Mapping[str, NamedSpec]) -> dict[str, str]:
    """The first tensor of each placeholder, by key."""
    return {
        key: str(placeholder_tensors(leaf)[0]) for key, leaf in placeholders.items()
    }


def _write_state(meta_graph_def: Any, flat: FlatModel) -> None:
    """Writes variables, initializers, saver, and the ops that take the steps."""
    graph = flat.graph
    local = [v for v in flat.variables if v.role == "metric"]
    saved = [v for v in flat.variables if v.role != "metric"]
    for key, variables in (
        ("variables", saved),
        ("trainable_variables", [v for v in saved if v.trainable]),
        ("local_variables", local),
        ("metric_variables", local),
        ("global_step", [v for v in saved if is_global_step(v.name, v.role)]),
    ):
        if variables:
            _bytes(meta_graph_def, key).extend(v.definition() for v in variables)
    resets = [variable.initializer for variable in local]
    starts = [variable.initializer for variable in flat.variables]
    _nodes(meta_graph_def, "init_op").append(add_group(graph, "init", starts))
    if local:
        reset = add_group(graph, "init_local", resets)
        _nodes(meta_graph_def, "local_init_op").append(reset)
    if flat.tables:
        tables = [table.initializer for table in flat.tables]
        _nodes(meta_graph_def, "table_initializer").extend(tables)
    for placed in flat.graphs:
        if placed.traced.kind == "train":
            _nodes(meta_graph_def, "train_op").append(placed.run)
            if "loss" in placed.outputs:
                losses = placed.outputs["loss"].tensors
                _nodes(meta_graph_def, "losses").extend(losses)
    if saved:
        meta_graph_def.saver_def.CopyFrom(add_saver(graph, saved, resets))


def _write_loading(
    meta_graph_def: Any, flat: FlatModel, options: SavedModelOptions
) -> None:
    """Writes what a loader of SavedModels runs, and where it finds the train op."""
    starts = [table.initializer for table in flat.tables]
    starts += [v.initializer for v in flat.variables if v.role == "metric"]
    for placed in flat.graphs:
        if placed.traced.kind == MAIN_OP and placed.run is not None:
            starts.append(placed.run)
        if placed.traced.kind == "train" and placed.run is not None:
            signature = meta_graph_def.signature_def[placed.traced.key]
            write_train_op(meta_graph_def, placed.run, signature)
        if placed.traced.kind == "eval" and "loss" in placed.outputs:
            losses = placed.outputs["loss"].tensors
            _nodes(meta_graph_def, "losses").extend(losses)
    write_main_op(meta_graph_def, flat.graph, starts, options.main_op)
    files = [f"{table.file.node}:0" for table in flat.tables if table.file]
    if files:
        _nodes(meta_graph_def, "asset_filepaths").extend(files)


def _write_graph(meta_graph_def: Any, graph: Graph, options: ExportOptions) -> None:
    """Writes nodes, functions and the list of ops."""
    meta_graph_def.graph_def.CopyFrom(graph_to_proto(graph))
    old = options.target is not None
    write_op_list(meta_graph_def.meta_info_def.stripped_op_list, graph, old=old)
    size = meta_graph_def.ByteSize()
    if size > _LARGEST_MESSAGE:
        raise ExportError(
            f"The graph has {size} bytes, and a file can hold {_LARGEST_MESSAGE}.",
            fix="keep large constants of the model in variables.",
        )


def _keep_collections(meta_graph_def: Any, names: Sequence[str]) -> None:
    """Removes the collections that were not asked for."""
    for name in list(meta_graph_def.collection_def):
        if name not in names:
            del meta_graph_def.collection_def[name]


def _bytes(meta_graph_def: Any, name: str) -> Any:
    return meta_graph_def.collection_def[name].bytes_list.value


def _nodes(meta_graph_def: Any, name: str) -> Any:
    return meta_graph_def.collection_def[name].node_list.value
