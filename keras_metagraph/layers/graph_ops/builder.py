"""Builds a structured graph in the TensorFlow graph that is being traced."""

import dataclasses
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import tensorflow as tf

from keras_metagraph.errors import HandlerError, MetaGraphError
from keras_metagraph.graph import walk
from keras_metagraph.graph.ir import Function, Graph, Node, TensorName
from keras_metagraph.graph.to_proto import graph_to_proto
from keras_metagraph.layers.graph_ops.importing import import_nodes
from keras_metagraph.layers.graph_ops.registry import REGISTRY, OpRegistry


@dataclasses.dataclass(frozen=True, slots=True)
class VariableRef:
    """What stands for the handle of a variable while a graph is built.

    Attributes:
        name: TensorFlow name of the variable.
        variable: The `tf.Variable`.
    """

    name: str
    variable: Any


@dataclasses.dataclass(frozen=True, slots=True, eq=False)
class NodeRef:
    """What stands for the handle of a table while a graph is built.

    The table is known by its name: each graph that uses it gets the node itself, so
    that no handle goes into a loop or a branch.

    Attributes:
        node: The node that makes the handle.
    """

    node: Node


class GraphBuilder:
    """Builds graphs over a set of variables.

    Args:
        library: The functions that the graphs may call.
        variables: `tf.Variable` by the name of its `VarHandleOp`.
        updated: Names of variables that the graphs update: they are read where the
            graph reads them, all others once.
        constant_ops: Op types whose outputs are constants to a gradient tape.
        registry: The handlers.
    """

    def __init__(
        self,
        library: Mapping[str, Function],
        variables: Mapping[str, Any],
        updated: Iterable[str] = (),
        constant_ops: Iterable[str] = (),
        registry: OpRegistry = REGISTRY,
    ) -> None:
        self.library = library
        self.registry = registry
        self.updated = set(updated)
        self.constant_ops = set(constant_ops)
        self._variables = variables
        self._reads: dict[str, Any] = {}
        self._handles: dict[tuple[int, int], Any] = {}
        self._root = tf.compat.v1.get_default_graph()

    def build(
        self,
        graph: Graph,
        results: Sequence[TensorName],
        controls: Sequence[str] = (),
        arguments: Mapping[TensorName, Any] | None = None,
    ) -> tuple[list[Any], list[Any]]:
        """Builds what some tensors and operations of a graph need.

        Args:
            graph: A structured graph.
            results: Tensors to return.
            controls: Names of operations to return.
            arguments: Values of tensors that are given.

        Returns:
            The values of `results`, and what to wait for so that `controls` have run.

        Raises:
            HandlerError: If TensorFlow refuses a node.
        """
        scope = Scope(self, graph, dict(arguments or {}))
        roots = [tensor.node for tensor in results if tensor not in scope.values]
        nodes = walk.schedule(graph, [*roots, *controls])
        given = {tensor.node for tensor in scope.values}
        nodes = [node for node in nodes if node.name not in given]
        for batch in walk.batches(nodes, scope.alone):
            scope.run(batch)
        values = [scope.value(tensor) for tensor in results]
        return values, [op for name in controls for op in scope.operations(name)]

    def build_plain(
        self,
        graph: Graph,
        results: Sequence[TensorName],
        controls: Sequence[str],
        arguments: Mapping[TensorName, Any],
    ) -> tuple[list[Any], list[Any]]:
        """Imports a graph as it is, v1 control flow included; as `build` otherwise."""
        values = dict(arguments)
        for node in graph.nodes.values():
            variable = self.variable(node.name) if node.op == "VarHandleOp" else None
            if variable is not None:
                values[TensorName(node.name)] = variable
        scope = Scope(self, graph, values)
        given = {tensor.node for tensor in values}
        scope.run([node for name, node in graph.nodes.items() if name not in given])
        tensors = [scope.value(tensor) for tensor in results]
        return tensors, [op for name in controls for op in scope.operations(name)]

    def call(self, name: str, arguments: Sequence[Any]) -> tuple[list[Any], list[Any]]:
        """Builds the body of a function; returns its results and what must run."""
        function = self.library[name]
        given = {
            TensorName(argument): value
            for argument, value in zip(function.arguments, arguments, strict=True)
        }
        return self.build(
            function.graph, function.results, function.control_results, given
        )

    def variable(self, name: str) -> VariableRef | None:
        """The variable behind a `VarHandleOp`; `None` if it is not the builder's."""
        variable = self._variables.get(name)
        return None if variable is None else VariableRef(name, variable)

    def read(self, reference: VariableRef, ordered: bool = False) -> Any:
        """The value of a variable.

        Args:
            reference: The variable.
            ordered: Whether the read waits for something.
        """
        if ordered or reference.name in self.updated:
            return reference.variable.value()
        return self._root_read(reference)

    def handle(self, reference: VariableRef | NodeRef) -> Any:
        """The handle behind a reference, in the current graph."""
        graph = tf.compat.v1.get_default_graph()
        if isinstance(reference, VariableRef):
            self._root_read(reference)  # by it the gradient tape knows of the variable
            return graph.capture(reference.variable.handle)
        key = (id(graph), id(reference.node))  # functions have nodes of one name
        if key not in self._handles:
            node = dataclasses.replace(reference.node, control_inputs=[])
            part = Graph({node.name: node}, producer=0)
            with tf.control_dependencies(None):
                (operation,) = tf.graph_util.import_graph_def(
                    graph_to_proto(part), return_elements=[node.name], name=""
                )
            self._handles[key] = operation.outputs[0]
        return self._handles[key]

    @property
    def in_root(self) -> bool:
        """Whether nodes go into the outermost graph now: no loop, no branch."""
        return tf.compat.v1.get_default_graph() is self._root

    def _root_read(self, reference: VariableRef) -> Any:
        """A read outside of all loops and branches: its gradient is one tensor."""
        if reference.name not in self._reads:
            with self._root.as_default(), tf.control_dependencies(None):
                self._reads[reference.name] = reference.variable.value()
        return self._reads[reference.name]


class Scope:
    """One graph on its way through a builder: what its tensors and nodes became."""

    def __init__(
        self, builder: GraphBuilder, graph: Graph, values: dict[TensorName, Any]
    ) -> None:
        self.builder = builder
        self.graph = graph
        self.values = values
        self._operations: dict[str, list[Any]] = {tensor.node: [] for tensor in values}
        self._imported: dict[str, Any] = {}
        self._singles: set[str] = {tensor.node for tensor in values}

    def alone(self, node: Node) -> bool:
        """Whether a node goes to a handler, and is not imported."""
        special = (
            self.builder.registry.get(node.op) is not None
            or node.op in self.builder.library
            or node.op in self.builder.constant_ops
            or (node.op == "Identity" and node.inputs[0].node in self._singles)
        )
        if special:
            self._singles.add(node.name)
        return special

    def value(self, tensor: TensorName) -> Any:
        """What a tensor became."""
        if tensor not in self.values:
            self.values[tensor] = self._imported[tensor.node].outputs[tensor.index]
        return self.values[tensor]

    def tensor(self, tensor: TensorName) -> Any:
        """What a tensor became, in the current graph: a variable as its handle."""
        value = self.value(tensor)
        if isinstance(value, VariableRef | NodeRef):
            return self.builder.handle(value)
        if not isinstance(value, tf.Tensor):
            raise HandlerError(
                f"{tensor} is a {type(value).__name__} here, and no tensor.",
                fix="run the graph with the session executor.",
            )
        graph = tf.compat.v1.get_default_graph()
        return value if value.graph is graph else graph.capture(value)

    def inputs(self, node: Node) -> list[Any]:
        """What the inputs of a node became, as they are."""
        return [self.value(tensor) for tensor in node.inputs]

    def tensors(self, node: Node) -> list[Any]:
        """What the inputs of a node became, all as tensors."""
        return [self.tensor(tensor) for tensor in node.inputs]

    def operations(self, name: str) -> list[Any]:
        """What to wait for so that a node has run."""
        if name in self._imported:
            return [self._imported[name]]
        return self._operations[name]

    def waited(self, node: Node) -> list[Any]:
        """What a node waits for by its control inputs."""
        return [op for name in node.control_inputs for op in self.operations(name)]

    def run(self, batch: list[Node]) -> None:
        """Builds nodes: one with a handler, or several to be imported."""
        if len(batch) == 1 and batch[0].name in self._singles:
            self._handle(batch[0])
        elif batch:
            self._imported.update(import_nodes(self, batch))

    def _handle(self, node: Node) -> None:
        handler = self._handler(node.op)
        try:
            with tf.control_dependencies(self.waited(node)):
                outputs = handler(self, node)
        except MetaGraphError:
            raise
        except (ValueError, TypeError, LookupError, tf.errors.OpError) as error:
            raise HandlerError(
                f"The node {node.name!r} (op {node.op!r}) could not be built: {error}",
                fix="run the graph with the session executor.",
            ) from error
        for index, value in enumerate(outputs):
            self.values[TensorName(node.name, index)] = value
        if node.name not in self._operations:
            self._operations[node.name] = list(_producers(outputs))

    def _handler(self, op: str) -> Callable[["Scope", Node], Sequence[Any]]:
        handler = self.builder.registry.get(op)
        if handler is not None:
            return handler
        if op in self.builder.constant_ops:
            return _constant
        return _call if op in self.builder.library else _identity

    def done(self, node: Node, operations: Iterable[Any]) -> None:
        """Says what to wait for so that a node has run, where its outputs do not."""
        self._operations[node.name] = list(operations)


def _identity(scope: Scope, node: Node) -> Sequence[Any]:
    """`Identity`: the same value; an op only if it waits for something."""
    value = scope.value(node.inputs[0])
    if isinstance(value, tf.Tensor) and scope.waited(node):
        value = tf.identity(value)
    return [value]


def _constant(scope: Scope, node: Node) -> Sequence[Any]:
    """A node without a gradient, whose outputs shall be constants to one."""
    operation = import_nodes(scope, [node])[node.name]
    scope.done(node, [operation])
    return [tf.stop_gradient(output) for output in operation.outputs]


def _call(scope: Scope, node: Node) -> Sequence[Any]:
    """A node that calls a function by its op type."""
    values, operations = scope.builder.call(node.op, scope.inputs(node))
    scope.done(node, [*_producers(values), *operations])
    return values


def _producers(values: Iterable[Any]) -> Iterator[Any]:
    for value in values:
        if isinstance(value, tf.Tensor):
            yield value.op
