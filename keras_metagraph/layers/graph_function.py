"""A structured part of a graph as one differentiable TensorFlow function."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import tensorflow as tf

from keras_metagraph.errors import (
    HandlerError,
    MetaGraphError,
    PassError,
    SignatureError,
    UnsupportedOpError,
)
from keras_metagraph.graph.ir import Graph, Node, TensorName
from keras_metagraph.graph.passes import build, prepare_for_session
from keras_metagraph.graph.passes.feeds import cut_feeds
from keras_metagraph.graph.passes.fold_conditions import fold_conditions
from keras_metagraph.graph.passes.repair_attributes import recorded_shape
from keras_metagraph.graph.passes.structure import prune, structure
from keras_metagraph.layers.graph_ops import control_flow, resources, tensor_arrays
from keras_metagraph.layers.graph_ops.builder import GraphBuilder, VariableRef

Values = dict[TensorName, Any]
Built = tuple[list[Any], list[Any]]  # values, and what has run with the operations
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
    """Makes a function of a part of a graph, a differentiable one if that is possible.

    Args:
        graph: A repaired graph (`graph.passes.repair`).
        wanted: What goes in and out.
        variables: `tf.Variable` by the name of the variable's node.
        namespace: What tables are called under, so that those of other graphs with
            the same names are not found.

    Returns:
        A `tf.types.experimental.ConcreteFunction` from the inputs to the outputs and
        one tensor more. Where the control flow has no structure that can be
        differentiated, the function runs, and raises `PassError` on a gradient tape.

    Raises:
        SignatureError: If placeholders that are needed are not given.
        UnsupportedOpError: If an op does not run on this machine.
        HandlerError: If TensorFlow refuses the graph.
    """
    part, outputs, inputs = _part(graph, wanted, variables)
    part = _rename_tables(prepare_for_session(part), namespace)
    specs = list(wanted.inputs.values())

    def build_structured(builder: GraphBuilder, given: Values) -> Built:
        roots = [tensor.node for tensor in outputs]
        structured = structure(part, roots, wanted.updates)
        builder.library = structured.functions
        builder.updated = _updated_variables(structured)
        return builder.build(structured, outputs, wanted.updates, given)

    def build_plain(builder: GraphBuilder, given: Values) -> Built:
        return builder.build_plain(part, outputs, wanted.updates, given)

    def trace(build_graph: Callable[[GraphBuilder, Values], Built]) -> Any:
        def traced(*arguments: Any) -> list[Any]:
            builder = GraphBuilder(part.functions, variables)
            given = dict(zip(inputs, arguments, strict=True))
            values, operations = build_graph(builder, given)
            with tf.control_dependencies(operations):
                tensors = [tf.identity(_tensor(builder, value)) for value in values]
                done = tf.constant(True)
            _set_shapes(graph, wanted.outputs, tensors)
            return [*tensors, done]

        # Not a tf.function: that would order all effects as they are traced, not as
        # the graph says; its wrapper is the public way to a function without that.
        with tf.init_scope():
            return tf.compat.v1.wrap_function(traced, specs)

    try:
        return trace(build_structured)
    except (PassError, HandlerError) as error:
        reason = error
    try:
        return trace(lambda *given: _without_gradient(*build_plain(*given), reason))
    except HandlerError:
        raise reason from None


def table_initializers(graph: Graph) -> dict[str, list[str]]:
    """Operations that fill the tables of a graph, by the table's node."""
    found: dict[str, list[str]] = {}
    for node in graph.nodes.values():
        if node.op in _TABLE_INITIALIZERS:
            found.setdefault(node.inputs[0].node, []).append(node.name)
    return found


def _part(
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
    return graph, outputs, inputs


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


def _set_shapes(
    graph: Graph, names: Sequence[TensorName], tensors: Sequence[Any]
) -> None:
    """Tells outputs the shapes that the exporter knew of."""
    for tensor, name in zip(tensors, names, strict=True):
        shape = recorded_shape(graph.nodes[name.node], name.index)
        if shape is not None and tensor.shape.is_compatible_with(shape):
            tensor.set_shape(shape)


def _without_gradient(
    values: list[Any], operations: list[Any], reason: MetaGraphError
) -> Built:
    """Makes values that are never differentiated in silence."""

    @tf.custom_gradient
    def passed(*tensors: Any) -> Any:
        def gradient(*_: Any) -> None:
            raise PassError(
                f"The outputs cannot be differentiated: {reason.problem}",
                findings=reason.findings,
                fix="train with the graph's own train op, or name other outputs.",
            )

        return tensors, gradient

    tensors = [value for value in values if isinstance(value, tf.Tensor)]
    passed_on = iter(passed(*tensors)) if tensors else iter(())
    values = [next(passed_on) if isinstance(v, tf.Tensor) else v for v in values]
    return values, operations


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
