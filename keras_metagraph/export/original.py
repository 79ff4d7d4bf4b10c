"""Exports models that still go on with the graph of the file they were loaded from.

Such a graph is written as it came: it is what TensorFlow 1 continues with.
"""

from typing import Any

from tensorflow.core.framework import variable_pb2

from keras_metagraph.errors import SignatureError
from keras_metagraph.export.assemble import Exported
from keras_metagraph.export.names import NamedVariable, identity
from keras_metagraph.export.op_list import strip_default_attributes
from keras_metagraph.export.options import ExportOptions
from keras_metagraph.export.original_loading import (
    complete_for_loader,
    renew_saver,
)
from keras_metagraph.export.scoped import UNBOUND, in_scope, take_scope, without_scope
from keras_metagraph.graph.from_proto import graph_from_proto
from keras_metagraph.graph.ir import Graph, TensorName
from keras_metagraph.graph.to_proto import graph_to_proto

_VARIABLE_FIELDS = (
    "variable_name",
    "initial_value_name",
    "initializer_name",
    "snapshot_name",
)


def original_values(model: Any) -> dict[str, Any] | None:
    """The values that belong into the checkpoint beside a model's original graph.

    Args:
        model: Any Keras model.

    Returns:
        Arrays by checkpoint key; `None` for a model without an original graph.
    """
    find = getattr(model, "original_meta_graph", None)
    found = find() if callable(find) else None
    return None if found is None else dict(found[1])


def export_original(model: Any, options: ExportOptions) -> Exported | None:
    """Exports the original graph of a model.

    Args:
        model: Any Keras model.
        options: `export_scope`, `clear_devices` and `strip_default_attrs` are
            followed; which graphs there are is the file's own affair.

    Returns:
        The export; `None` for a model without an original graph.

    Raises:
        SignatureError: If the scope is not in the graph, or signatures are functions.
    """
    values = original_values(model)
    if values is None:
        return None
    functions = [k for k, v in (options.signatures or {}).items() if callable(v)]
    if functions:
        raise SignatureError(
            "The model goes on with the graph of its file, to which no functions are "
            "added. These signatures are functions:",
            findings=functions,
            fix="name tensors of the graph: {'inputs': {...}, 'outputs': {...}}; or "
            "compile the model with a Keras optimizer first.",
        )
    meta_graph_def = type(model.meta_graph.meta_graph_def)()
    meta_graph_def.CopyFrom(model.meta_graph.meta_graph_def)
    _drop_dangling(meta_graph_def)
    if options.clear_devices:
        for node in meta_graph_def.graph_def.node:
            node.device = ""
    graph = graph_from_proto(meta_graph_def.graph_def)
    files = []
    if options.saved_model is not None:
        files = complete_for_loader(meta_graph_def, graph, model, options)
    else:
        renew_saver(meta_graph_def, graph, model)
    if options.strip_default_attrs:
        _strip(meta_graph_def, graph)
    if options.export_scope:
        _reduce(meta_graph_def, graph, options.export_scope)
    variables = [
        NamedVariable(name, value, "weight", index, name)
        for index, (name, value) in enumerate(values.items())
    ]
    names = {
        key: name
        for name, variable in model.meta_graph.variables.items()
        for key in (id(variable), identity(variable))
    }
    return Exported(meta_graph_def, graph, variables, [], names, [], files)


def _strip(meta_graph_def: Any, graph: Graph) -> None:
    """Removes attributes that have the value that a missing one would have."""
    strip_default_attributes(graph)
    for node in meta_graph_def.graph_def.node:
        for key in node.attr.keys() - graph.nodes[node.name].attrs.keys():
            del node.attr[key]


def _drop_dangling(meta_graph_def: Any) -> None:
    """Drops members of collections that are not in the graph: imports fail on them."""
    nodes = {node.name for node in meta_graph_def.graph_def.node}
    for collection in meta_graph_def.collection_def.values():
        if collection.WhichOneof("kind") == "node_list":
            known = [
                name
                for name in collection.node_list.value
                if TensorName.parse(name.removeprefix("^")).node in nodes
            ]
            collection.node_list.value[:] = known


def _reduce(meta_graph_def: Any, graph: Graph, scope: str) -> None:
    """Reduces graph and collections to one scope, named without it."""
    unbound = take_scope(graph, scope)
    meta_graph_def.graph_def.CopyFrom(graph_to_proto(graph))
    meta_graph_def.ClearField("saver_def")  # its nodes lie outside
    meta_graph_def.ClearField("signature_def")
    for name, collection in list(meta_graph_def.collection_def.items()):
        kind = collection.WhichOneof("kind")
        if kind == "node_list":
            inside = [n for n in collection.node_list.value if in_scope(n, scope)]
            collection.node_list.value[:] = [without_scope(n, scope) for n in inside]
        elif kind == "bytes_list" and name.endswith("variables"):
            values = collection.bytes_list.value
            values[:] = [_renamed(v, scope) for v in values if _lies_in(v, scope)]
        listed = kind in ("node_list", "bytes_list")
        if listed and not getattr(collection, kind).value:
            del meta_graph_def.collection_def[name]
    if unbound:
        members = meta_graph_def.collection_def[UNBOUND].bytes_list.value
        members.extend(name.encode("utf-8") for name in unbound)


def _lies_in(value: bytes, scope: str) -> bool:
    definition = variable_pb2.VariableDef.FromString(value)
    return in_scope(definition.variable_name, scope)


def _renamed(value: bytes, scope: str) -> bytes:
    """A `VariableDef` named without the scope."""
    definition = variable_pb2.VariableDef.FromString(value)
    for field in _VARIABLE_FIELDS:
        setattr(definition, field, without_scope(getattr(definition, field), scope))
    return bytes(definition.SerializeToString())
