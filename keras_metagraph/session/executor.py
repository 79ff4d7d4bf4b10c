"""Runs fetches and train ops of a graph as `tf.Session.run` did.

The part of the graph that a run needs is imported into a wrapped function, with the
variables captured from outside. The import adds no control dependencies, so that the
order of effects is the one that TensorFlow 1 had (`tf.compat.v1.wrap_function`).
"""

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from keras_metagraph.audit.policy import require_safe
from keras_metagraph.errors import SignatureError, nearest
from keras_metagraph.graph.ir import Graph, Node, TensorName
from keras_metagraph.graph.passes import prepare_for_session
from keras_metagraph.graph.passes.resource_handles import resource_handles
from keras_metagraph.graph.passes.resource_variables import resource_variables
from keras_metagraph.graph.specs import tensor_spec
from keras_metagraph.graph.tables import (
    new_resource_scope,
    private_resources,
    table_fills,
    used_tables,
)
from keras_metagraph.graph.to_proto import graph_to_proto

_PLACEHOLDERS = {"Placeholder", "PlaceholderV2"}

Runner = Callable[[Sequence[Any]], list[Any]]


class SessionExecutor:
    """A graph and its variables, run by fetches and feeds.

    Args:
        graph: A repaired graph (`graph.passes.repair`).
        variables: TensorFlow variables by the name of their `VarHandleOp` node.
        early: Names of nodes that take the values of reference variables before all
            updates that the graph does not order before them. Of others it is
            estimated which came first in a session.
        safe_mode: Whether ops that reach beyond the graph are refused.
    """

    def __init__(
        self,
        graph: Graph,
        variables: Mapping[str, Any],
        early: Collection[str] = (),
        safe_mode: bool = True,
    ) -> None:
        self.graph = graph
        self.safe_mode = safe_mode
        self._early = frozenset(early)
        self.variables = dict(variables)
        self._functions: dict[tuple[Any, ...], Runner] = {}
        self._fills = table_fills(graph)
        self._initialized: set[str] = set()
        # Tables live in TensorFlow's resource manager under process-wide names.
        self._scope = new_resource_scope()

    def run(
        self,
        fetches: Any,
        feeds: Mapping[str, Any] | None = None,
        before: Sequence[str] = (),
    ) -> Any:
        """Runs `fetches` once, as `Session.run(fetches, feed_dict)`.

        Args:
            fetches: A tensor name (`"loss:0"`), an operation name (`"train_op"`), or
                a nested structure of them.
            feeds: Values by tensor name.
            before: Those of the fetches that are wanted as they were before the
                updates of the run.

        Returns:
            The structure with arrays in the place of tensors and `None` in the place
            of operations.

        Raises:
            SignatureError: If a name is not in the graph, or a placeholder that the
                fetches need is not fed.
            UntrustedContentError: If the fetches need ops that are not run.
        """
        feeds = dict(feeds or {})
        names = tf.nest.flatten(fetches)
        with tf.init_scope():  # the caller may be inside a graph of TensorFlow 1
            runner = self.function(names, list(feeds), before)
            values = runner(list(feeds.values()))
            arrays = [None if value is None else value.numpy() for value in values]
        return tf.nest.pack_sequence_as(fetches, arrays)

    def function(
        self, fetches: Sequence[str], feeds: Sequence[str], before: Sequence[str] = ()
    ) -> Runner:
        """A callable from fed values to fetched ones, usable in a `tf.function`.

        Args:
            fetches: Tensor names (`name:index`) and operation names.
            feeds: Tensor names; `name` alone stands for `name:0`.
            before: Those of the fetches that are wanted as they were before the
                updates of the run. A session left that to chance where the graph does
                not say it.

        Returns:
            A callable that takes the values in the order of `feeds` and returns one
            tensor a fetch, `None` for operations.

        Raises:
            SignatureError: If a name is not in the graph, or a placeholder that the
                fetches need is not fed.
            UntrustedContentError: If the fetches need ops that are not run.
        """
        key = (tuple(fetches), tuple(feeds), tuple(before))
        if key not in self._functions:
            with tf.init_scope():
                self._functions[key] = self._make_function(*key)
        return self._functions[key]

    def reads(self, fetches: Sequence[str], feeds: Sequence[str] = ()) -> set[str]:
        """Names of the variables that `fetches` depend on, given the fed tensors."""
        fed = {TensorName.parse(name) for name in feeds}
        names, _ = cone(self.graph, self._roots(fetches), fed)
        return names & self.variables.keys()

    def fit(self, name: str, value: Any) -> Any:
        """A value as the tensor `name` takes it: its dtype, and a last axis of 1.

        Keras gives numbers as float32 or int64, and labels as vectors or as columns,
        whatever the placeholder is.

        Args:
            name: Name of the fed tensor.
            value: An array or tensor.

        Returns:
            A tensor.
        """
        spec = tensor_spec(self.graph, name)
        value = tf.convert_to_tensor(value)
        if value.dtype != spec.dtype and tf.string not in (value.dtype, spec.dtype):
            value = tf.cast(value, spec.dtype)
        rank, expected = value.shape.rank, spec.shape.rank
        if None not in (rank, expected):
            if rank == expected + 1 and value.shape[-1] == 1:
                return tf.squeeze(value, -1)
            if rank + 1 == expected and spec.shape[-1] in (1, None):
                return tf.expand_dims(value, -1)
        return value

    def _roots(self, fetches: Sequence[str]) -> list[TensorName]:
        """The fetches as tensors of the graph; all unknown names in one error."""
        unknown = [
            f"{name}{nearest(TensorName.parse(name).node, self.graph.nodes)}"
            for name in fetches
            if TensorName.parse(name).node not in self.graph.nodes
        ]
        if unknown:
            raise SignatureError(
                "The graph has no such tensors or operations:",
                findings=unknown,
                fix="take names that inspect_meta_graph lists.",
            )
        return [TensorName.parse(name) for name in fetches]

    def _make_function(
        self, fetches: Sequence[str], feeds: Sequence[str], before: Sequence[str]
    ) -> Runner:
        fed = [TensorName.parse(name) for name in feeds]
        roots = self._roots([*fetches, *feeds])[: len(fetches)]
        names, used = cone(self.graph, roots, set(fed))
        early, _ = cone(self.graph, self._roots(before), set(fed))
        if _updated_first(self.graph.subgraph(names), early, self._early):
            return self._in_turn(fetches, feeds, before)
        part = self._importable(names, roots, fed)
        if self.safe_mode:
            require_safe(part)
        _require_fed(part, fed)
        self._initialize_tables(names)
        # A feed that nothing needs is accepted and ignored, as in TensorFlow 1.
        wanted = [tensor for tensor in fed if tensor in used or tensor in roots]
        specs = [tensor_spec(self.graph, tensor) for tensor in wanted]
        graph_def = graph_to_proto(part)
        handles = {
            name: self.variables[name].handle for name in names & self.variables.keys()
        }

        def build(*arguments: Any) -> list[Any]:
            graph = tf.compat.v1.get_default_graph()
            values = dict(zip(wanted, arguments, strict=True))
            input_map = {str(t): v for t, v in values.items() if t in used}
            # capture() is a method of every FuncGraph, which wrap_function makes.
            input_map |= {f"{n}:0": graph.capture(h) for n, h in handles.items()}
            tf.graph_util.import_graph_def(graph_def, input_map=input_map, name="")
            return [
                self._element(graph, text, root, values)
                for text, root in zip(fetches, roots, strict=True)
            ]

        elements: list[Any] = []

        def collect(*arguments: Any) -> None:
            elements.extend(build(*arguments))

        wrapped = tf.compat.v1.wrap_function(collect, specs)
        inputs = wrapped.graph.inputs[: len(specs)]
        pruned = wrapped.prune(inputs, elements)
        positions = [fed.index(tensor) for tensor in wanted]

        def runner(values: Sequence[Any]) -> list[Any]:
            arguments = [
                _fed(values[position], spec.dtype)
                for position, spec in zip(positions, specs, strict=True)
            ]
            return list(pruned(*arguments))

        return runner

    def _in_turn(
        self, fetches: Sequence[str], feeds: Sequence[str], before: Sequence[str]
    ) -> Runner:
        """Runs what is wanted as it was before, and then all the rest."""
        rest = [name for name in fetches if name not in before]
        first, second = self.function(before, feeds), self.function(rest, feeds)

        def runner(values: Sequence[Any]) -> list[Any]:
            found = dict(zip(before, first(values), strict=True))
            found |= zip(rest, second(values), strict=True)
            return [found[name] for name in fetches]

        return runner

    def _importable(
        self, names: set[str], roots: Sequence[TensorName], fed: Sequence[TensorName]
    ) -> Graph:
        """The nodes to import: no variables, no fed placeholders, private tables."""
        part = self.graph.subgraph(names)
        cut = {tensor.node for tensor in fed}
        for name, node in part.nodes.items():
            if any(before in cut for before in node.control_inputs):
                controls = [n for n in node.control_inputs if n not in cut]
                part.nodes[name] = Node(
                    name, node.op, node.inputs, controls, node.attrs, node.device
                )
        part = prepare_for_session(part, self._early)
        part = private_resources(
            part.subgraph(part.nodes.keys() - self.variables.keys()), self._scope
        )
        for root in roots:
            if root.node in self.variables:
                self._add_read(part, root.node)
        return part

    def _add_read(self, part: Graph, name: str) -> None:
        read = f"{name}/keras_metagraph_read"
        dtype = tf.compat.v1.AttrValue(type=self.variables[name].dtype.as_datatype_enum)
        part.nodes[read] = Node(
            read, "ReadVariableOp", [TensorName(name)], attrs={"dtype": dtype}
        )

    def _element(
        self,
        graph: Any,
        text: str,
        root: TensorName,
        values: Mapping[TensorName, Any],
    ) -> Any:
        """What to fetch for a name: the fed value, a variable's value, or the op."""
        if root in values:
            return values[root]
        if root.node in self.variables:
            return graph.get_tensor_by_name(f"{root.node}/keras_metagraph_read:0")
        if ":" in text:
            return graph.get_tensor_by_name(str(root))
        return graph.get_operation_by_name(text)

    def _initialize_tables(self, names: set[str]) -> None:
        """Fills the tables that the nodes `names` use, once each."""
        used = used_tables(self.graph, names) & self._fills.keys()
        for table in sorted(used - self._initialized):
            self._initialized.add(table)
            for operation in self._fills[table]:
                self.function([operation], [])([])


def _require_fed(part: Graph, fed: Sequence[TensorName]) -> None:
    """Refuses placeholders that are not fed."""
    cut = {tensor.node for tensor in fed}
    unfed = [
        f"{name}:0"
        for name, node in part.nodes.items()
        if node.op in _PLACEHOLDERS and name not in cut
    ]
    if unfed:
        raise SignatureError(
            "Placeholders that the run needs are not fed:",
            findings=unfed,
            fix="feed them, or bake values in: "
            f"load_from_meta_graph(..., feeds={{{unfed[0]!r}: value}}).",
        )


def _updated_first(graph: Graph, early: set[str], always: frozenset[str]) -> bool:
    """Whether a session updated a variable before some of `early` had read it."""
    if not early:
        return False
    graph = resource_handles(graph).graph
    asked = resource_variables(graph, early | always).graph
    usual = resource_variables(graph, always).graph
    return bool(graph_to_proto(asked) != graph_to_proto(usual))


def _fed(value: Any, dtype: tf.DType) -> Any:
    """A fed value; numbers of another type are converted, as a session did."""
    if not tf.is_tensor(value) and dtype != tf.string:
        value = np.asarray(value, dtype.as_numpy_dtype)
    return tf.convert_to_tensor(value, dtype)


def cone(
    graph: Graph, roots: Sequence[TensorName], fed: set[TensorName]
) -> tuple[set[str], set[TensorName]]:
    """What a run needs.

    Args:
        graph: The graph.
        roots: Fetched tensors; an operation stands as its output 0.
        fed: Tensors that are given, so that what computes them is not needed.

    Returns:
        The names of the nodes that run, and the fed tensors that they take.
    """
    names: set[str] = set()
    used: set[TensorName] = set()
    cut = {tensor.node for tensor in fed}
    stack = [root.node for root in roots if root not in fed]
    while stack:
        name = stack.pop()
        if name in names:
            continue
        names.add(name)
        node = graph.node(name)
        for tensor in node.inputs:
            if tensor in fed:
                used.add(tensor)
            else:
                stack.append(tensor.node)
        stack.extend(before for before in node.control_inputs if before not in cut)
    return names, used
