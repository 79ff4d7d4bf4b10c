"""A structured part of a graph as one differentiable TensorFlow function."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import tensorflow as tf

from keras_metagraph.errors import PassError, SignatureError, UnsupportedOpError
from keras_metagraph.graph.ir import Graph, Node, TensorName
from keras_metagraph.graph.passes import build, prepare_for_session
from keras_metagraph.graph.passes.feeds import cut_feeds
from keras_metagraph.graph.passes.fold_conditions import fold_conditions
from keras_metagraph.graph.passes.repair_attributes import recorded_shape
from keras_metagraph.graph.passes.structure import prune, structure
from keras_metagraph.layers.graph_ops import control_flow, resources, tensor_arrays
from keras_metagraph.layers.graph_ops.builder import GraphBuilder, VariableRef

HANDLER_FAMILIES = (control_flow, resources, tensor_arrays)
"""The modules whose handlers the registry holds."""

_UPDATES = (
    "Assign",
    "DestroyResourceOp",
    "ResourceApply",
    "ResourceCountUpTo",
    "ResourceScatter",
    "ResourceSparseApply",
    "ResourceStridedSliceAssign",
)
_TABLES = {
    "HashTable",
    "HashTableV2",
    "MutableDenseHashTable",
    "MutableDenseHashTableV2",
    "MutableHashTable",
    "MutableHashTableOfTensors",
    "MutableHashTableOfTensorsV2",
    "MutableHashTableV2",
}
_TABLE_INITIALIZERS = {
    "InitializeTable",
    "InitializeTableV2",
    "LookupTableImport",
    "LookupTableImportV2",
}
_VARIABLES = {"AutoReloadVariable", "VarHandleOp", "Variable", "VariableV2"}
_GPU_ONLY = ("CudnnRNN",)


@dataclasses.dataclass(frozen=True, slots=True)
class Wanted:
    """What a function of a graph takes, returns and runs.

    Attributes:
        inputs: The tensors that are given, in order, with their dtypes and shapes.
        outputs: The tensors that are returned, in order.
        constants: Tensors whose value is known, as arrays of their dtype.
        updates: Operations that run too.
    """

    inputs: Mapping[TensorName, tf.TensorSpec]
    outputs: Sequence[TensorName]
    constants: Mapping[TensorName, Any] = dataclasses.field(default_factory=dict)
    updates: Sequence[str] = ()


def make_function(
    graph: Graph, wanted: Wanted, variables: Mapping[str, Any], namespace: str = ""
) -> Any:
    """Makes a differentiable function of a part of a graph.

    Args:
        graph: A repaired graph (`graph.passes.repair`).
        wanted: What goes in and out.
        variables: `tf.Variable` by the name of the variable's node.
        namespace: What tables are called under, so that those of other graphs with
            the same names are not found.

    Returns:
        A `tf.types.experimental.ConcreteFunction` from the inputs to the outputs.

    Raises:
        SignatureError: If placeholders that are needed are not given.
        PassError: If the control flow cannot be structured.
        UnsupportedOpError: If an op does not run on this machine.
    """
    part, outputs, inputs = _structured(graph, wanted, variables)
    part = _rename_tables(part, namespace)
    specs = list(wanted.inputs.values())
    updated = _updated_variables(part)

    def trace(*arguments: Any) -> list[Any]:
        builder = GraphBuilder(part.functions, variables, updated)
        given = dict(zip(inputs, arguments, strict=True))
        values, operations = builder.build(part, outputs, wanted.updates, given)
        with tf.control_dependencies(operations):
            tensors = [tf.identity(_tensor(builder, value)) for value in values]
            done = tf.constant(True)
        for tensor, name in zip(tensors, wanted.outputs, strict=True):
            shape = recorded_shape(graph.nodes[name.node], name.index)
            if shape is not None and tensor.shape.is_compatible_with(shape):
                tensor.set_shape(shape)
        return [*tensors, done]

    # Not a tf.function: that would order all effects as they are traced, not as the
    # graph says, and its wrapper is the public way to a function without that.
    with tf.init_scope():
        return tf.compat.v1.wrap_function(trace, specs)


def table_initializers(graph: Graph) -> dict[str, list[str]]:
    """Operations that fill the tables of a graph, by the table's node."""
    found: dict[str, list[str]] = {}
    for node in graph.nodes.values():
        if node.op in _TABLE_INITIALIZERS:
            found.setdefault(node.inputs[0].node, []).append(node.name)
    return found


def _structured(
    graph: Graph, wanted: Wanted, variables: Mapping[str, Any]
) -> tuple[Graph, list[TensorName], list[TensorName]]:
    """The part of a graph that is wanted, with its outputs and inputs in it."""
    graph, replaced = cut_feeds(graph, wanted.inputs, wanted.constants)
    outputs = [replaced.get(tensor, tensor) for tensor in wanted.outputs]
    inputs = [replaced[tensor] for tensor in wanted.inputs]
    roots = [tensor.node for tensor in outputs]
    graph = fold_conditions(prune(graph, [*roots, *wanted.updates])).graph
    graph = prune(graph, [*roots, *wanted.updates])
    _check_ops(graph, {tensor.node for tensor in inputs})
    _check_variables(graph, variables)
    graph = prepare_for_session(graph)
    return structure(graph, roots, wanted.updates), outputs, inputs


def _check_ops(graph: Graph, given: set[str]) -> None:
    unfed = [
        node.name
        for node in graph.nodes.values()
        if node.op == "Placeholder" and node.name not in given
    ]
    if unfed:
        raise SignatureError(
            "Placeholders that the outputs need are not given:",
            findings=unfed,
            fix="name them as inputs, or bake values in: "
            f"feeds={{'{unfed[0]}:0': value}}.",
        )
    if tf.config.list_physical_devices("GPU"):
        return
    missing = [
        f"{node.name} ({node.op})"
        for node in graph.nodes.values()
        if node.op.startswith(_GPU_ONLY)
    ]
    if missing:
        raise UnsupportedOpError(
            "The graph needs ops that TensorFlow has for GPUs only.",
            findings=missing,
            fix="run it on a machine with a GPU, or name outputs without them.",
        )


def _check_variables(graph: Graph, variables: Mapping[str, Any]) -> None:
    missing = [
        node.name
        for node in graph.nodes.values()
        if node.op in _VARIABLES and node.name not in variables
    ]
    if missing:
        raise SignatureError(
            "The outputs need variables that the layer was not given:",
            findings=missing,
            fix="pass all variables of the graph.",
        )


def _rename_tables(graph: Graph, namespace: str) -> Graph:
    """Puts tables under a namespace of TensorFlow's process-wide resource manager."""
    nodes = dict(graph.nodes)
    for node in graph.nodes.values():
        if node.op in _TABLES:
            shared = node.attrs["shared_name"].s if "shared_name" in node.attrs else b""
            name = shared.decode() or node.name
            attrs = {
                **node.attrs,
                "shared_name": build.string_attr(f"{namespace}/{name}"),
                "container": build.string_attr(""),
            }
            nodes[node.name] = dataclasses.replace(node, attrs=attrs)
    return Graph(nodes, graph.functions, graph.producer)


def _updated_variables(graph: Graph) -> set[str]:
    """Variables that a graph updates; all of them where it cannot be told which."""
    handles = {n.name for n in graph.nodes.values() if n.op == "VarHandleOp"}
    bodies = [function.graph for function in graph.functions.values()]
    if any(_is_update(node) for body in bodies for node in body.nodes.values()):
        return handles
    found: set[str] = set()
    for node in filter(_is_update, graph.nodes.values()):
        for tensor in node.inputs:
            source = graph.nodes[tensor.node]
            while source.op == "Identity":
                source = graph.nodes[source.inputs[0].node]
            found.add(source.name)
    return found & handles


def _is_update(node: Node) -> bool:
    return node.op.startswith(_UPDATES)


def _tensor(builder: GraphBuilder, value: Any) -> Any:
    """An output: a variable's value where its handle was asked for."""
    if isinstance(value, VariableRef):
        return builder.read(value)
    if not isinstance(value, tf.Tensor):
        raise PassError(
            f"An output is a {type(value).__name__}, and no tensor.",
            fix="name tensors that hold numbers or strings.",
        )
    return value
