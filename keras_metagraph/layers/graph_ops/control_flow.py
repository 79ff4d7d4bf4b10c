"""`If`, `Case`, `While` and calls, with gradients."""

from collections.abc import Callable, Sequence
from typing import Any

import tensorflow as tf

from keras_metagraph.errors import PassError
from keras_metagraph.graph.ir import Function, Node, TensorName
from keras_metagraph.layers.graph_ops.builder import GraphBuilder, Scope
from keras_metagraph.layers.graph_ops.registry import REGISTRY


@REGISTRY.register("PartitionedCall", "StatefulPartitionedCall")
def build_call(scope: Scope, node: Node) -> Sequence[Any]:
    """A call: the body of the function in its place."""
    name = node.attrs["f"].func.name
    values, operations = scope.builder.call(name, scope.inputs(node))
    scope.done(node, [*_operations(values), *operations])
    return values


@REGISTRY.register("If", "StatelessIf")
def build_if(scope: Scope, node: Node) -> Sequence[Any]:
    """A condition; only the branch that runs, where the predicate is known."""
    predicate, *arguments = scope.inputs(node)
    names = [node.attrs[key].func.name for key in ("else_branch", "then_branch")]
    known = tf.get_static_value(predicate)
    if known is not None:
        return _taken(scope, node, names[int(_truth(known))], arguments)
    branches = [_Branch(scope.builder, name, arguments) for name in names]
    outputs = tf.cond(_as_bool(predicate), branches[1], branches[0])
    return _joined(scope, node, branches, outputs)


@REGISTRY.register("Case", "StatelessCase")
def build_case(scope: Scope, node: Node) -> Sequence[Any]:
    """A condition with numbered branches; the last one for all other numbers."""
    index, *arguments = scope.inputs(node)
    names = [function.name for function in node.attrs["branches"].list.func]
    known = tf.get_static_value(index)
    if known is not None:
        place = int(known) if 0 <= int(known) < len(names) else len(names) - 1
        return _taken(scope, node, names[place], arguments)
    branches = [_Branch(scope.builder, name, arguments) for name in names]
    functions: list[Callable[[], Any]] = [*branches]
    outputs = tf.switch_case(index, functions)
    return _joined(scope, node, branches, outputs)


@REGISTRY.register("While", "StatelessWhile")
def build_while(scope: Scope, node: Node) -> Sequence[Any]:
    """A loop. What it does not change is no loop variable."""
    return _Loop(scope, node).build()


def _taken(scope: Scope, node: Node, name: str, arguments: list[Any]) -> Sequence[Any]:
    values, operations = scope.builder.call(name, arguments)
    scope.done(node, [*_operations(values), *operations])
    return values


def _joined(
    scope: Scope, node: Node, branches: Sequence["_Branch"], outputs: Sequence[Any]
) -> Sequence[Any]:
    """The outputs of a condition, with those that are no tensors put back."""
    scope.done(node, [outputs[-1].op])
    tensors = iter(outputs[:-1])
    kept = branches[0].kept
    if any(branch.kept != kept for branch in branches):
        raise PassError(
            f"The branches of {node.name!r} give different tensor arrays or variables.",
            fix="run the graph with the session executor.",
        )
    count = len(outputs) - 1 + len(kept)
    return [kept[i] if i in kept else next(tensors) for i in range(count)]


class _Branch:
    """The function that builds one branch of a condition.

    What is no tensor (a variable, a tensor array's handle) does not go through the
    condition; it is kept, by its place among the outputs.
    """

    def __init__(
        self, builder: GraphBuilder, name: str, arguments: Sequence[Any]
    ) -> None:
        self._builder = builder
        self._name = name
        self._arguments = arguments
        self.kept: dict[int, Any] = {}

    def __call__(self) -> list[Any]:
        """Returns the tensors, and one more that is there when all has run."""
        values, operations = self._builder.call(self._name, self._arguments)
        self.kept = {
            place: value
            for place, value in enumerate(values)
            if not isinstance(value, tf.Tensor)
        }
        tensors = [value for value in values if isinstance(value, tf.Tensor)]
        with tf.control_dependencies(operations):
            return [*map(tf.identity, tensors), tf.constant(True)]


class _Loop:
    """One `While` node on its way to a `tf.while_loop`."""

    def __init__(self, scope: Scope, node: Node) -> None:
        self._scope = scope
        self._node = node
        builder = scope.builder
        self._builder = builder
        self._condition = builder.library[node.attrs["cond"].func.name]
        self._body = builder.library[node.attrs["body"].func.name]
        self._inputs = scope.inputs(node)
        self._changing = [
            place
            for place, value in enumerate(self._inputs)
            if not _is_invariant(self._body, place)
        ]
        for place in self._changing:
            if not isinstance(self._inputs[place], tf.Tensor):
                raise PassError(
                    f"The loop {node.name!r} changes {node.inputs[place]}, which is "
                    "no tensor.",
                    fix="run the graph with the session executor.",
                )

    def build(self) -> list[Any]:
        """Builds the loop; with the shapes that are recorded, or less exact ones."""
        start = [self._inputs[place] for place in self._changing]
        attempts = [self._recorded_shapes(start), *_relaxed(start)]
        for last, shapes in enumerate(attempts, start=1 - len(attempts)):
            try:
                outputs = self._loop(start, shapes)
                break
            except ValueError:
                if not last:
                    raise
        self._scope.done(self._node, [output.op for output in outputs])
        values = list(self._inputs)
        for place, output in zip(self._changing, outputs, strict=True):
            values[place] = output
        return values

    def _loop(self, start: list[Any], shapes: list[tf.TensorShape]) -> list[Any]:
        """One try: loop variables whose shape varies need shapes that allow it."""
        attrs = self._node.attrs
        parallel = (
            attrs["parallel_iterations"].i if "parallel_iterations" in attrs else 0
        )
        outputs = tf.while_loop(
            self._run_condition,
            lambda *values: self._run_body(values, shapes),
            start,
            shape_invariants=shapes,
            parallel_iterations=parallel or 10,
        )
        return list(outputs)

    def _arguments(self, values: Sequence[Any]) -> list[Any]:
        arguments = list(self._inputs)
        for place, value in zip(self._changing, values, strict=True):
            arguments[place] = value
        return arguments

    def _run_condition(self, *values: Any) -> Any:
        results, operations = self._builder.call(
            self._condition.name, self._arguments(values)
        )
        with tf.control_dependencies(operations):
            return _as_bool(tf.identity(results[0]))

    def _run_body(
        self, values: Sequence[Any], shapes: list[tf.TensorShape]
    ) -> list[Any]:
        results, operations = self._builder.call(
            self._body.name, self._arguments(values)
        )
        following = []
        with tf.control_dependencies(operations):
            for place, shape in zip(self._changing, shapes, strict=True):
                value = tf.identity(results[place])
                if value.dtype != tf.variant and value.shape.is_compatible_with(shape):
                    # Known to the exporter, though not always inferred again.
                    value.set_shape(shape)
                following.append(value)
        return following

    def _recorded_shapes(self, start: list[Any]) -> list[tf.TensorShape]:
        attrs = self._node.attrs
        recorded = attrs["output_shapes"].list.shape if "output_shapes" in attrs else ()
        shapes = []
        for place, value in zip(self._changing, start, strict=True):
            shape = value.shape
            if place < len(recorded) and value.dtype != tf.variant:
                shape = _most_general(shape, tf.TensorShape(recorded[place]))
            shapes.append(shape)
        return shapes


def _is_invariant(body: Function, place: int) -> bool:
    """Whether a loop gives an argument back as it is."""
    tensor = body.results[place]
    while body.graph.nodes[tensor.node].op == "Identity":
        tensor = body.graph.nodes[tensor.node].inputs[0]
    return tensor == TensorName(body.arguments[place])


def _relaxed(start: list[Any]) -> list[list[tf.TensorShape]]:
    """Shapes to try where those before are too exact: ranks only, then nothing."""
    ranks = [tf.TensorShape([None] * (v.shape.rank or 0)) for v in start]
    known = [
        v.shape if v.dtype == tf.variant or v.shape.rank is None else rank
        for v, rank in zip(start, ranks, strict=True)
    ]
    nothing = [
        v.shape if v.dtype == tf.variant else tf.TensorShape(None) for v in start
    ]
    return [known, nothing]


def _most_general(first: tf.TensorShape, second: tf.TensorShape) -> tf.TensorShape:
    """The most exact shape that allows both."""
    if first.rank is None or first.rank != second.rank:
        return tf.TensorShape(None)
    pairs = zip(first.as_list(), second.as_list(), strict=True)
    return tf.TensorShape([a if a == b else None for a, b in pairs])


def _as_bool(value: Any) -> Any:
    """A predicate of any type as `If` takes it: not zero, or not empty."""
    if value.dtype == tf.bool and value.shape.rank == 0:
        return value
    if value.shape.rank == 0:
        empty = "" if value.dtype == tf.string else 0
        return tf.not_equal(value, tf.constant(empty, value.dtype))
    if value.dtype == tf.bool:
        return tf.reshape(value, []) if value.shape.rank is None else value
    return tf.size(value) > 0


def _truth(known: Any) -> bool:
    return bool(known) if known.ndim == 0 else known.size > 0


def _operations(values: Sequence[Any]) -> list[Any]:
    return [value.op for value in values if isinstance(value, tf.Tensor)]
