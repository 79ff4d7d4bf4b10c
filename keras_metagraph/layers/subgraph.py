"""What an island needs of a graph: cut out, stored, made into functions."""

import base64
import dataclasses
import warnings
import zlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import tensorflow as tf
from google.protobuf.message import DecodeError

from keras_metagraph.audit.policy import require_safe
from keras_metagraph.audit.structure import check_structure
from keras_metagraph.errors import FormatError
from keras_metagraph.graph.from_proto import graph_from_proto
from keras_metagraph.graph.ir import Graph, TensorName
from keras_metagraph.graph.passes.feeds import cut_feeds
from keras_metagraph.graph.passes.fold_conditions import fold_conditions
from keras_metagraph.graph.passes.repair_attributes import (
    GRADIENT_OVERRIDE,
    RECORDED_SHAPES,
)
from keras_metagraph.graph.passes.structure import prune
from keras_metagraph.graph.specs import tensor_spec
from keras_metagraph.graph.tables import (
    new_resource_scope,
    table_fills,
    used_tables,
)
from keras_metagraph.graph.to_proto import graph_to_proto
from keras_metagraph.layers.graph_function import Wanted, make_function

_MAX_GRAPH_BYTES = 2**31 - 1  # as protobuf has it
_DAMAGED = "The graph in the configuration of a layer cannot be read"
_SAVE_AGAIN = "save the model again; the file is damaged."
_SHAPED = {"Enter", "Merge", "RefMerge"}


@dataclasses.dataclass(frozen=True, slots=True)
class Request:
    """What shall go in and out of a graph, by the names that the file has.

    Attributes:
        inputs: Tensors that are fed, by input name.
        outputs: Tensors that are returned, by output name.
        updates: Operations or tensors to run in training.
        losses: Scalars to add to the loss.
        modes: Values of tensors in training and otherwise.
        constants: Values of tensors.
        initializers: Operations to run once.
    """

    inputs: Mapping[str, str]
    outputs: Mapping[str, str]
    updates: Sequence[str] = ()
    losses: Sequence[str] = ()
    modes: Mapping[str, tuple[Any, Any]] = dataclasses.field(default_factory=dict)
    constants: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    initializers: Sequence[str] = ()


class Subgraph:
    """The part of a graph that a request needs, fed through placeholders.

    Args:
        graph: A repaired graph.
        request: What shall go in and out of it.

    Attributes:
        graph: The part.
        request: The request, by the names that the part has.
    """

    def __init__(self, graph: Graph, request: Request) -> None:
        self.graph, self.request = _cut(graph, request)
        self._namespace = new_resource_scope()
        self._functions: dict[bool, Any] = {}
        self._constant_ops: set[str] = set()
        self._initialized = not self.request.initializers

    @property
    def specs(self) -> dict[str, tf.TensorSpec]:
        """Dtypes and shapes of the inputs, by input name."""
        inputs = self.request.inputs
        return {key: tensor_spec(self.graph, name) for key, name in inputs.items()}

    def function(self, training: bool, variables: Mapping[str, Any]) -> Any:
        """The function of one mode, made when it is first needed.

        Args:
            training: Whether it runs the updates.
            variables: `tf.Variable` by TensorFlow name.

        Returns:
            A function of the inputs, in order, to a list: the outputs, the losses,
            and one tensor more.
        """
        if training not in self._functions:
            self._initialize(variables)
            if training:
                self._warn_of_gradients()
            request = self.request
            outputs = [*request.outputs.values(), *request.losses]
            wanted = Wanted(
                {
                    TensorName.parse(request.inputs[key]): spec
                    for key, spec in self.specs.items()
                },
                [TensorName.parse(name) for name in outputs],
                self._mode(training),
                request.updates if training else (),
                frozenset(self._constant_ops),
            )
            self._functions[training] = make_function(
                self.graph, wanted, variables, self._namespace
            )
        return self._functions[training]

    def stop_gradient(self, op: str) -> bool:
        """Makes ops of a type constants to gradient tapes: they have no gradient.

        Args:
            op: The type, of which TensorFlow said so.

        Returns:
            Whether they were not constants already.
        """
        if op in self._constant_ops:
            return False
        warnings.warn(
            f"TensorFlow has no gradient for the op {op!r}. Its outputs are constants "
            "in training, as if by tf.stop_gradient.",
            stacklevel=2,
        )
        self._constant_ops.add(op)
        self._functions.clear()
        return True

    def _warn_of_gradients(self) -> None:
        """Warns of gradients of the graph's Python program, which no file holds."""
        bodies = [function.graph for function in self.graph.functions.values()]
        names = [
            f"{node.name} ({node.attrs[GRADIENT_OVERRIDE].s.decode()})"
            for graph in (self.graph, *bodies)
            for node in graph.nodes.values()
            if GRADIENT_OVERRIDE in node.attrs
        ]
        if names:
            warnings.warn(
                "The program that made the graph defined gradients of its own for "
                f"{len(names)} ops; here they have the gradients of their op types: "
                f"{', '.join(names[:5])}{' ...' if len(names) > 5 else ''}.",
                stacklevel=2,
            )

    def _mode(self, training: bool) -> dict[TensorName, Any]:
        """The tensors that depend on the mode, with their values."""
        return {
            TensorName.parse(name): _array(self.graph, name, values[not training])
            for name, values in self.request.modes.items()
        }

    def _initialize(self, variables: Mapping[str, Any]) -> None:
        """Fills the tables, once."""
        if not self._initialized:
            self._initialized = True
            wanted = Wanted({}, [], self._mode(False), self.request.initializers)
            with tf.init_scope():
                make_function(self.graph, wanted, variables, self._namespace)()


def pack(graph: Graph) -> str:
    """A graph as text, for a configuration."""
    data = graph_to_proto(graph).SerializeToString(deterministic=True)
    return base64.b64encode(zlib.compress(data, 9)).decode("ascii")


def unpack(text: str) -> Graph:
    """Reads a graph that `pack` wrote, and looks at all that would run.

    Args:
        text: What `pack` returned.

    Returns:
        The graph.

    Raises:
        FormatError: If it cannot be read.
        UntrustedContentError: If it holds ops that are not run.
        UnsupportedOpError: If it holds ops that nobody knows.
    """
    unpacker = zlib.decompressobj()
    reason: Any = "its end is missing"
    try:
        data = unpacker.decompress(base64.b64decode(text), _MAX_GRAPH_BYTES)
    except (ValueError, zlib.error) as error:
        reason = error
    if not unpacker.eof:
        raise FormatError(f"{_DAMAGED}: {reason}.", fix=_SAVE_AGAIN)
    return parse(data)


def parse(data: bytes) -> Graph:
    """Reads a serialized `GraphDef`, and looks at all that would run.

    Args:
        data: The bytes.

    Returns:
        The graph.

    Raises:
        FormatError: If it cannot be read.
        UntrustedContentError: If it holds ops that are not run.
        UnsupportedOpError: If it holds ops that nobody knows.
    """
    try:
        graph_def = tf.compat.v1.GraphDef.FromString(data)
    except DecodeError as error:
        raise FormatError(f"{_DAMAGED}: {error}.", fix=_SAVE_AGAIN) from error
    check_structure(tf.compat.v1.MetaGraphDef(graph_def=graph_def))
    graph = graph_from_proto(graph_def)
    require_safe(graph)
    return graph


def _cut(graph: Graph, request: Request) -> tuple[Graph, Request]:
    """Cuts out what a request needs, and renames the request accordingly."""
    fed = [
        TensorName.parse(name) for name in (*request.inputs.values(), *request.modes)
    ]
    graph, replaced = cut_feeds(
        graph,
        {tensor: tensor_spec(graph, tensor) for tensor in fed},
        {
            TensorName.parse(name): _array(graph, name, value)
            for name, value in request.constants.items()
        },
    )
    graph = fold_conditions(graph).graph

    def now(name: str) -> str:
        tensor = TensorName.parse(name)
        return str(replaced.get(tensor, tensor))

    renamed = Request(
        inputs={key: now(name) for key, name in request.inputs.items()},
        outputs={key: now(name) for key, name in request.outputs.items()},
        updates=[TensorName.parse(name).node for name in request.updates],
        losses=[now(name) for name in request.losses],
        modes={now(name): values for name, values in request.modes.items()},
    )
    names = [*renamed.outputs.values(), *renamed.losses]
    roots = [TensorName.parse(name).node for name in names] + [*renamed.updates]
    needed = graph.ancestors(roots)
    filled, used = table_fills(graph, files=False), used_tables(graph, needed)
    fills = [name for table in filled if table in used for name in filled[table]]
    runs = list(dict.fromkeys([*request.initializers, *fills]))
    kept = [replaced[tensor].node for tensor in fed]
    part = _without_shapes(prune(graph, [*roots, *runs, *kept]), set(roots))
    return part, dataclasses.replace(renamed, initializers=runs)


def _array(graph: Graph, name: str, value: Any) -> Any:
    """A value as an array of a tensor's dtype."""
    return np.asarray(value, tensor_spec(graph, name).dtype.as_numpy_dtype)


def _without_shapes(graph: Graph, roots: set[str]) -> Graph:
    """Drops recorded shapes but those of outputs, and of joins for loops."""
    nodes = {}
    for name, node in graph.nodes.items():
        kept = node.op in _SHAPED or name in roots
        if RECORDED_SHAPES in node.attrs and not kept:
            attrs = {k: v for k, v in node.attrs.items() if k != RECORDED_SHAPES}
            node = dataclasses.replace(node, attrs=attrs)
        nodes[name] = node
    return Graph(nodes, graph.functions, graph.producer)
