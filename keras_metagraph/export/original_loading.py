"""What the graph of a legacy file gets besides when it goes into a SavedModel.

A `.meta` needs no signature, its saver may be of the old format or leave variables out,
and its tables and flags are the program's affair. A loader of SavedModels has nothing
but the file.
"""

import dataclasses
from collections.abc import Collection
from typing import Any

import numpy as np
import tensorflow as tf
from tensorflow.core.framework.variable_pb2 import VariableDef

from keras_metagraph.errors import ExportError
from keras_metagraph.export.main_op import write_main_op, write_train_op
from keras_metagraph.export.nodes import const_node, make_node
from keras_metagraph.export.options import ExportOptions
from keras_metagraph.export.original_tables import tables_to_files
from keras_metagraph.export.placeholders import fill_tensor_info
from keras_metagraph.export.saver import add_group, add_saver
from keras_metagraph.export.signatures import DEFAULT_KEY, EVAL, PREDICT, TRAIN
from keras_metagraph.export.tables import TableFile
from keras_metagraph.graph.ir import Graph, Node, TensorName
from keras_metagraph.graph.restore_wiring import (
    keys_read,
    restored_variables,
    saver_fills,
)
from keras_metagraph.graph.specs import tensor_spec
from keras_metagraph.graph.to_proto import graph_to_proto
from keras_metagraph.graph.variables import GraphVariable, graph_variables

_V1_READERS = ("Restore", "RestoreSlice")
_MAIN_OPS = ("saved_model_main_op", "legacy_init_op")
_ASSETS = ("saved_model_assets", "asset_filepaths")


@dataclasses.dataclass(frozen=True, slots=True)
class _Saved:
    """A variable of the graph, for the saver."""

    variable: GraphVariable
    read: str

    @property
    def dtype(self) -> tf.DType:
        return self.variable.dtype

    @property
    def key(self) -> str:
        return self.variable.checkpoint_key or self.variable.name

    @property
    def slice_spec(self) -> str:
        part = self.variable.slice
        if part is None:
            return ""
        shape = " ".join(map(str, part.full_shape))
        pairs = zip(part.offset, part.shape, strict=True)
        return f"{shape} {':'.join(f'{offset},{size}' for offset, size in pairs)}"

    def assign_node(self, scope: str, suffix: str, value: str) -> Node:
        inputs = [self.variable.name, value]
        if _is_resource(self.variable):
            name = f"{scope}/AssignVariableOp{suffix}"
            return make_node(name, "AssignVariableOp", inputs, dtype=self.dtype)
        return make_node(f"{scope}/Assign{suffix}", "Assign", inputs, T=self.dtype)


def complete_for_loader(
    meta_graph_def: Any, graph: Graph, model: Any, options: ExportOptions
) -> list[TableFile]:
    """Adds signatures, saver, main op and train op to the graph of a legacy file.

    Args:
        meta_graph_def: The MetaGraphDef, which is changed; nodes are only added, but
            for placeholders of training flags, which get the value of their graph.
        graph: Its graph, which is changed alike.
        model: The model.
        options: Which graphs are wanted: what the signatures are for.

    Returns:
        The files that its tables read.

    Raises:
        ExportError: If a step is wanted that the file does not have.
    """
    meta_graph_def.meta_info_def.ClearField("tags")
    # Loaders of TensorFlow 2 would read the objects, of which the checkpoint has none.
    meta_graph_def.ClearField("object_graph_def")
    _drop_wrong_shapes(meta_graph_def)
    known = set(graph.nodes)
    _set_flags(meta_graph_def, graph, model, "train" in options.graphs)
    _write_signatures(meta_graph_def, model, options)
    _replace_saver(meta_graph_def, graph, model)
    if "train" in options.graphs:
        train_op = _train_op(graph, model)
        write_train_op(meta_graph_def, train_op, meta_graph_def.signature_def["train"])
    _replace_main_op(meta_graph_def, graph, options)
    files = tables_to_files(meta_graph_def, graph)
    _append_new(meta_graph_def, graph, known)
    return files


def renew_saver(meta_graph_def: Any, graph: Graph, model: Any) -> None:
    """Replaces a saver that cannot read the checkpoint that is written.

    It reads the format V1, or what is no variable: boosted trees, and the contents of
    mutable tables, are in the graph by now.

    Args:
        meta_graph_def: The MetaGraphDef, which is changed.
        graph: Its graph, which is changed alike.
        model: The model.
    """
    is_old = any(node.op in _V1_READERS for node in graph.nodes.values())
    if not meta_graph_def.HasField("saver_def"):
        return
    if is_old or not _finds_all(meta_graph_def, graph, model):
        known = set(graph.nodes)
        _replace_saver(meta_graph_def, graph, model)
        _append_new(meta_graph_def, graph, known)


def _finds_all(meta_graph_def: Any, graph: Graph, model: Any) -> bool:
    """Whether the checkpoint of a model has all keys that a saver asks for."""
    found = graph_variables(meta_graph_def, graph)
    written = {_Saved(found[name], "").key for name in model.meta_graph.variables}
    return keys_read(meta_graph_def, graph) <= written


def _append_new(meta_graph_def: Any, graph: Graph, known: Collection[str]) -> None:
    """Appends the nodes that the graph has got besides those that were known."""
    added = Graph()
    for name, node in graph.nodes.items():
        if name not in known:
            added.add(node)
    meta_graph_def.graph_def.node.extend(graph_to_proto(added).node)


def _drop_wrong_shapes(meta_graph_def: Any) -> None:
    """Drops shapes that TensorFlow 1 recorded, and over which TensorFlow 2 stumbles.

    The empty last outputs of these ops are not empty there (`nn_ops.cc`).
    """
    for node in meta_graph_def.graph_def.node:
        if node.op.startswith("FusedBatchNormGrad"):
            node.attr.pop("_output_shapes", None)


def _set_flags(meta_graph_def: Any, graph: Graph, model: Any, trains: bool) -> None:
    """Gives placeholders that say whether the model trains the value of their graph."""
    values = model.meta_graph.interface.training_values
    protos = {node.name: node for node in meta_graph_def.graph_def.node}
    for tensor, (training, otherwise) in values.items():
        node = graph.nodes[TensorName.parse(tensor).node]
        if node.op not in ("Placeholder", "PlaceholderWithDefault"):
            continue
        dtype = tf.as_dtype(node.attrs["dtype"].type)
        value = np.asarray(training if trains else otherwise, dtype.as_numpy_dtype)
        if _has_default(graph, node, value):
            continue
        default = graph.add(
            const_node(graph.unique_name(f"{node.name}/default"), value, dtype)
        )
        changed = make_node(
            node.name,
            "PlaceholderWithDefault",
            [default.name],
            dtype=dtype,
            shape=tf.TensorShape(value.shape),
        )
        node.op, node.inputs, node.attrs = changed.op, changed.inputs, changed.attrs
        proto = protos[node.name]
        proto.op = node.op
        del proto.input[:]
        proto.input.append(default.name)
        proto.ClearField("attr")
        for name, attribute in node.attrs.items():
            proto.attr[name].CopyFrom(attribute)


def _has_default(graph: Graph, node: Node, value: Any) -> bool:
    """Whether a placeholder has this value already where nothing is fed."""
    if node.op != "PlaceholderWithDefault":
        return False
    source = graph.nodes[node.inputs[0].node]
    if source.op != "Const":
        return False
    return np.array_equal(tf.make_ndarray(source.attrs["value"].tensor), value)


def _write_signatures(meta_graph_def: Any, model: Any, options: ExportOptions) -> None:
    """Writes signatures of what was found out about the graph; its own stay."""
    interface = model.meta_graph.interface
    fed = {**interface.inputs, **interface.labels}
    loss = {"loss": interface.loss} if interface.loss else {}
    wanted = [
        ("predict", DEFAULT_KEY, PREDICT, interface.inputs, interface.outputs),
        ("train", "train", TRAIN, fed, loss),
        ("eval", "eval", EVAL, fed, loss),
    ]
    for graph, key, method, inputs, outputs in wanted:
        if graph not in options.graphs or key in meta_graph_def.signature_def:
            continue
        if not outputs:
            raise ExportError(
                f"The loss of the graph is not known, so it has no {graph} graph.",
                fix="name it: load_from_meta_graph(..., loss='loss:0').",
            )
        signature = meta_graph_def.signature_def[key]
        signature.method_name = method
        for tensors, infos in (
            (inputs, signature.inputs),
            (outputs, signature.outputs),
        ):
            for name, tensor in tensors.items():
                spec = tensor_spec(model.meta_graph.graph, tensor)
                fill_tensor_info(infos[name], [str(TensorName.parse(tensor))], spec)


def _replace_saver(meta_graph_def: Any, graph: Graph, model: Any) -> None:
    """Adds a saver for all variables that the model has, as Builder did.

    One that is of the present format and knows just these variables stays.
    """
    is_new = meta_graph_def.saver_def.version == tf.compat.v1.train.SaverDef.V2
    restored = restored_variables(meta_graph_def, graph)
    knows_all = restored.keys() == model.meta_graph.variables.keys()
    if is_new and knows_all and _finds_all(meta_graph_def, graph, model):
        return
    fills = saver_fills(meta_graph_def, graph)
    found = graph_variables(meta_graph_def, graph)
    saved = []
    for name in model.meta_graph.variables:
        variable, read = found[name], name
        if _is_resource(variable):
            read = graph.unique_name(f"{name}/Read/ReadVariableOp")
            graph.add(make_node(read, "ReadVariableOp", [name], dtype=variable.dtype))
        saved.append(_Saved(variable, read))
    meta_graph_def.ClearField("saver_def")
    if saved:
        meta_graph_def.saver_def.CopyFrom(add_saver(graph, saved, fills))


def _train_op(graph: Graph, model: Any) -> str:
    """The operation that takes a whole step, with what runs beside the train op."""
    interface = model.meta_graph.interface
    operations = [*interface.train_op, *interface.updates]
    if not interface.train_op:
        raise ExportError(
            "The model has no train op of its graph.",
            fix="name one: load_from_meta_graph(..., train_op='train_op').",
        )
    names = list(dict.fromkeys(TensorName.parse(name).node for name in operations))
    return names[0] if len(names) == 1 else add_group(graph, "train_step", names)


def _replace_main_op(meta_graph_def: Any, graph: Graph, options: ExportOptions) -> None:
    """Collects what must run after a load: tables, local variables, the file's own."""
    collections = meta_graph_def.collection_def
    starts = []
    for name in ("table_initializer", *_MAIN_OPS):
        if name in collections:
            starts += collections[name].node_list.value
    if "local_variables" in collections:
        starts += [
            VariableDef.FromString(value).initializer_name
            for value in collections["local_variables"].bytes_list.value
        ]
    for name in (*_MAIN_OPS, *_ASSETS):  # The contents of assets are in the graph.
        collections.pop(name, None)
    meta_graph_def.ClearField("asset_file_def")
    main_op = options.saved_model.main_op if options.saved_model else None
    if callable(main_op):
        raise ExportError(
            "The model goes on with the graph of its file, to which no function is "
            f"added. Received: main_op={main_op!r}",
            fix="pass the name of an operation of the graph.",
        )
    names = [TensorName.parse(name.removeprefix("^")).node for name in starts]
    members = list(dict.fromkeys(names))
    for name in members:  # A main op that runs all the others is the whole.
        if set(members) <= {name, *graph.nodes[name].control_inputs}:
            members = [name]
            break
    write_main_op(meta_graph_def, graph, members, main_op)


def _is_resource(variable: GraphVariable) -> bool:
    return variable.op == "VarHandleOp"
