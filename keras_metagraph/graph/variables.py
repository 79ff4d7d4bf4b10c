"""Finds the variables of a graph, and where the checkpoint keeps each one.

Keys of a checkpoint are not node names: a Saver may have been given other names, and
slices of a partitioned variable are stored as one tensor. What holds is the wiring of
the graph's own saver, from `save/RestoreV2` to the `Assign` of each variable.
"""

import dataclasses
from collections.abc import Iterable
from typing import Any

import tensorflow as tf
from google.protobuf.message import DecodeError
from tensorflow.core.framework.variable_pb2 import VariableDef

from keras_metagraph.errors import FormatError
from keras_metagraph.graph.ir import Graph, Node, TensorName
from keras_metagraph.graph.object_graph import trainable_variables
from keras_metagraph.graph.restore_wiring import Restored, Slice, restored_variables

MetaGraphDef = Any

VARIABLE_OPS = frozenset(
    {"Variable", "VariableV2", "VarHandleOp", "AutoReloadVariable"}
)
ASSIGN_OPS = frozenset({"Assign", "AssignVariableOp"})


@dataclasses.dataclass(frozen=True, slots=True)
class GraphVariable:
    """A variable of a graph.

    Attributes:
        name: Name of its node: `"dense/kernel"`, `"emb/part_0"`.
        op: `"Variable"`, `"VariableV2"`, `"VarHandleOp"` or `"AutoReloadVariable"`.
        dtype: Type of its value, never a reference type.
        shape: Its shape; None where the graph does not know the rank.
        trainable: Whether the graph's optimizers train it by default.
        collections: Names of the collections that hold it.
        checkpoint_key: The tensor of the checkpoint that it is restored from; its name
            if the graph has no saver. None if the graph's saver leaves it out.
        slice: Which part of that tensor it is, for a part of a partitioned variable.
        initial_value: What its initializer assigns.
        initializer: Name of the node that assigns it.
        reshape: Whether the graph's saver reshapes the stored tensor to fit.
    """

    name: str
    op: str
    dtype: tf.DType
    shape: tuple[int | None, ...] | None
    trainable: bool
    collections: frozenset[str]
    checkpoint_key: str | None
    slice: Slice | None = None
    initial_value: TensorName | None = None
    initializer: str | None = None
    reshape: bool = False


def graph_variables(
    meta_graph_def: MetaGraphDef, graph: Graph
) -> dict[str, GraphVariable]:
    """Finds every variable of a graph.

    Args:
        meta_graph_def: The MetaGraph: its collections and its saver.
        graph: Its graph, as it was read (before passes rewrite variables).

    Returns:
        The variables by node name, in the graph's order. Variables that are in no
        collection, or that the saver leaves out, are there too.

    Raises:
        FormatError: If a variable has no type.

    Example:
        >>> graph_variables(meta_graph_def, graph)["dense/kernel"].checkpoint_key
        'dense/kernel'
    """
    nodes = [node for node in graph.nodes.values() if node.op in VARIABLE_OPS]
    members = _Members(meta_graph_def, {node.name for node in nodes})
    restored = restored_variables(meta_graph_def, graph)
    initializers = _initializers(graph, members)
    variables = {
        node.name: _variable(
            node,
            members,
            restored.get(node.name) if restored else _guess(node, members),
            initializers.get(node.name),
        )
        for node in nodes
    }
    keys = {name: stored.key for name, stored in restored.items()}
    for name in trainable_variables(meta_graph_def, graph, keys) & variables.keys():
        variables[name] = dataclasses.replace(variables[name], trainable=True)
    return variables


def _variable(
    node: Node, members: "_Members", stored: Restored | None, initializer: Node | None
) -> GraphVariable:
    collections = frozenset(members.collections.get(node.name, ()))
    definition = members.definitions.get(node.name)
    return GraphVariable(
        name=node.name,
        op=node.op,
        dtype=_dtype(node),
        shape=_shape(node),
        trainable="trainable_variables" in collections
        or (definition is not None and definition.trainable),
        collections=collections,
        checkpoint_key=stored.key if stored else None,
        slice=stored.slice if stored else None,
        initial_value=initializer.inputs[1] if initializer else None,
        initializer=initializer.name if initializer else None,
        reshape=stored is not None and stored.reshape,
    )


def _dtype(node: Node) -> tf.DType:
    number = node.attrs["dtype"].type if "dtype" in node.attrs else 0
    try:
        return tf.dtypes.as_dtype(number).base_dtype
    except TypeError:
        raise FormatError(
            f"The variable {node.name!r} has the type number {number}, which is none.",
            fix="copy or export the file again; this one is damaged.",
        ) from None


def _shape(node: Node) -> tuple[int | None, ...] | None:
    shape = node.attrs["shape"].shape if "shape" in node.attrs else None
    if shape is None or shape.unknown_rank:
        return None
    return tuple(None if dim.size < 0 else dim.size for dim in shape.dim)


def _guess(node: Node, members: "_Members") -> Restored:
    """Where a Saver with default arguments would have put a variable."""
    part = members.slice(node.name)
    return Restored(part.full_name if part else node.name, part)


class _Members:
    """What the collections of a MetaGraph say about its variables.

    A collection holds `VariableDef`s, or, if its name was not registered, tensor names.
    """

    def __init__(self, meta_graph_def: MetaGraphDef, names: set[str]) -> None:
        self.collections: dict[str, set[str]] = {}
        self.definitions: dict[str, Any] = {}
        for key, collection in meta_graph_def.collection_def.items():
            for definition in _definitions(collection.bytes_list.value):
                name = _node_name(definition.variable_name)
                if name in names:
                    self.collections.setdefault(name, set()).add(key)
                    # "variables" comes with all fields, so it goes first.
                    if key == "variables" or name not in self.definitions:
                        self.definitions[name] = definition
            for text in collection.node_list.value:
                name = _node_name(text)
                if name in names:
                    self.collections.setdefault(name, set()).add(key)

    def slice(self, name: str) -> Slice | None:
        """The part that a variable is of a partitioned one, after its VariableDef."""
        definition = self.definitions.get(name)
        if definition is None or not definition.HasField("save_slice_info_def"):
            return None
        info = definition.save_slice_info_def
        lengths = {len(info.full_shape), len(info.var_offset), len(info.var_shape)}
        if not info.full_name or len(lengths) > 1:
            return None
        return Slice(
            info.full_name,
            tuple(info.full_shape),
            tuple(info.var_offset),
            tuple(info.var_shape),
        )


def _definitions(values: Iterable[bytes]) -> list[Any]:
    """The VariableDefs of a collection; none if it holds something else."""
    try:
        return [VariableDef.FromString(value) for value in values]
    except DecodeError:
        return []


def _node_name(text: str) -> str:
    return text.removeprefix("^").removesuffix(":0")


def _initializers(graph: Graph, members: _Members) -> dict[str, Node]:
    """The node that gives each variable its first value.

    `VariableDef` names it; without one it is the `<variable>/Assign` that TensorFlow
    makes, or an assignment that an `init` operation runs.
    """
    found: dict[str, Node] = {}
    inits = {
        name
        for node in graph.nodes.values()
        if node.op == "NoOp" and node.name.rpartition("/")[2].startswith("init")
        for name in node.control_inputs
    }
    for node in graph.nodes.values():
        if node.op not in ASSIGN_OPS or len(node.inputs) < 2:
            continue
        variable = node.inputs[0].node
        if node.name == f"{variable}/Assign":
            found[variable] = node
        elif node.name in inits:
            found.setdefault(variable, node)
    for name, definition in members.definitions.items():
        given = graph.nodes.get(_node_name(definition.initializer_name))
        if given is not None and given.op in ASSIGN_OPS and len(given.inputs) > 1:
            found[name] = given
    return found
