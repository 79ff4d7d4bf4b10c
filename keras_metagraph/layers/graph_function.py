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
from keras_metagraph.graph.passes import prepare_for_session
from keras_metagraph.graph.passes.feeds import cut_feeds
from keras_metagraph.graph.passes.fold_conditions import fold_conditions
from keras_metagraph.graph.passes.repair_attributes import recorded_shape
from keras_metagraph.graph.passes.structure import prune, structure
from keras_metagraph.graph.tables import private_resources
from keras_metagraph.layers.graph_ops import (
    control_flow,
    gradients,
    recurrent,
    resources,
    tensor_arrays,
)
from keras_metagraph.layers.graph_ops.builder import GraphBuilder, VariableRef

HANDLER_FAMILIES = (control_flow, gradients, recurrent, resources, tensor_arrays)
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
        constant_ops: Op types whose outputs are constants to a gradient tape.
    """

    inputs: Mapping[TensorName, tf.TensorSpec]
    outputs: Sequence[TensorName]
    constants: Mapping[TensorName, Any] = dataclasses.field(default_factory=dict)
    updates: Sequence[str] = ()
    constant_ops: frozenset[str] = frozenset()


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
    tracer = _Tracer(graph, wanted, variables, namespace)
    try:
        return tracer.structured()
    except (PassError, HandlerError) as error:
        reason = error
    try:
        return tracer.plain(reason)
    except HandlerError:
        raise reason from None


class _Tracer:
    """Traces a part of a graph in one way or another."""

    def __init__(
        self,
        graph: Graph,
        wanted: Wanted,
        variables: Mapping[str, Any],
        namespace: str,
    ) -> None:
        part, self._outputs, self._inputs = _part(graph, wanted, variables)
        self._part = private_resources(prepare_for_session(part), namespace)
        self._source = graph
        self._wanted = wanted
        self._variables = variables

    def structured(self) -> Any:
        """The function with `If` and `While`, which can be differentiated."""
        roots = [tensor.node for tensor in self._outputs]
        updates = self._wanted.updates
        graph = structure(self._part, roots, updates)
        updated = _updated_variables(graph)

        def trace(*arguments: Any) -> list[Any]:
            builder = GraphBuilder(
                graph.functions, self._variables, updated, self._wanted.constant_ops
            )
            given = dict(zip(self._inputs, arguments, strict=True))
            built = builder.build(graph, self._outputs, updates, given)
            return self._finish(builder, *built)

        return self._wrap(trace)

    def plain(self, reason: MetaGraphError) -> Any:
        """The function with v1 control flow, in which TensorFlow finds no gradient.

        It stands behind a call, so that TensorFlow does not look for one in silence.
        """
        updates = self._wanted.updates

        def trace(*arguments: Any) -> list[Any]:
            builder = GraphBuilder(self._part.functions, self._variables)
            given = dict(zip(self._inputs, arguments, strict=True))
            built = builder.build_plain(self._part, self._outputs, updates, given)
            return self._finish(builder, *built)

        inner = self._wrap(trace)
        return self._wrap(
            lambda *arguments: _refuse_gradient(inner(*arguments), reason)
        )

    def _wrap(self, trace: Callable[..., list[Any]]) -> Any:
        # Not a tf.function: that would order all effects as they are traced, not as
        # the graph says; its wrapper is the public way to a function without that.
        specs = [*self._wanted.inputs.values()]
        with tf.init_scope():
            wrapped = tf.compat.v1.wrap_function(trace, specs)
            # Of a function that is inlined, a caller waits for values only, and its
            # updates of variables (weight decay) would race with the reads inside.
            call = tf.function(
                lambda *arguments: wrapped(*arguments),
                autograph=False,
                experimental_attributes={"_noinline": True},
            )
            return call.get_concrete_function(*specs)

    def _finish(
        self, builder: GraphBuilder, values: Sequence[Any], operations: Sequence[Any]
    ) -> list[Any]:
        """The outputs, and one tensor more, behind all operations."""
        with tf.control_dependencies(operations):
            tensors = [tf.identity(_tensor(builder, value)) for value in values]
            done = tf.constant(True)
        for tensor, name in zip(tensors, self._wanted.outputs, strict=True):
            shape = recorded_shape(self._source.nodes[name.node], name.index)
            if shape is not None and tensor.shape.is_compatible_with(shape):
                tensor.set_shape(shape)
        return [*tensors, done]


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


def _refuse_gradient(tensors: Sequence[Any], reason: MetaGraphError) -> list[Any]:
    """The same tensors; whoever differentiates them is told why not."""

    def passed(*values: Any) -> Any:
        def gradient(*_: Any) -> None:
            raise PassError(
                f"The outputs cannot be differentiated: {reason.problem}",
                findings=reason.findings,
                fix="train with the graph's own train op, or name other outputs.",
            )

        return values, gradient

    return list(tf.custom_gradient(passed)(*tensors))


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
