"""A subgraph of a TensorFlow 1 graph as a Keras layer."""

import base64
import dataclasses
import itertools
import zlib
from collections.abc import Mapping, Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from google.protobuf.message import DecodeError

from keras_metagraph.audit.policy import require_safe
from keras_metagraph.audit.structure import check_structure
from keras_metagraph.errors import (
    FormatError,
    ShapeMismatchError,
    SignatureError,
    nearest,
)
from keras_metagraph.graph.from_proto import graph_from_proto
from keras_metagraph.graph.ir import Graph, TensorName
from keras_metagraph.graph.passes.feeds import cut_feeds
from keras_metagraph.graph.passes.fold_conditions import fold_conditions
from keras_metagraph.graph.passes.repair_attributes import RECORDED_SHAPES
from keras_metagraph.graph.passes.structure import prune
from keras_metagraph.graph.specs import tensor_spec
from keras_metagraph.graph.to_proto import graph_to_proto
from keras_metagraph.layers.graph_function import (
    Wanted,
    make_function,
    table_initializers,
)

_SHAPED = {"Enter", "Merge", "RefMerge"}
_MAX_GRAPH_BYTES = 2**31 - 1
_namespaces = itertools.count()


@dataclasses.dataclass(frozen=True, slots=True)
class IslandVariable:
    """What the layer knows of a variable; a `GraphVariable` has these and more.

    Attributes:
        name: Name of the variable's node.
        dtype: As Keras calls it.
        shape: Fully known.
        trainable: Whether Keras trains it.
    """

    name: str
    dtype: str
    shape: tuple[int, ...]
    trainable: bool


@keras.saving.register_keras_serializable("keras_metagraph")
class Island(keras.layers.Layer):
    """A subgraph run by TensorFlow as it is, differentiable.

    The weights of the layer are the variables of the graph. A call returns a dict; in
    training it also runs the updates and adds the losses.

    Args:
        graph: A repaired graph (`graph.passes.repair`), or a serialized `GraphDef` of
            one. The layer keeps what it needs of it.
        inputs: Names of the tensors that are fed, by input name.
        outputs: Names of the tensors that are returned, by output name.
        variables: All variables of the model, each of which becomes a weight, in this
            order; also those that no output needs. Their shapes are fully known.
        updates: Names of operations or tensors to run in training.
        losses: Names of tensors to pass to `add_loss` in training.
        training_values: For tensors that depend on the mode: the values in training
            and otherwise.
        constants: Values of tensors, which are put into the graph.
        initializers: Names of operations to run once, before the first call. Those of
            lookup tables are found without.
        weights_from: Keras variables by TensorFlow name, or the layer that has them:
            weights that are shared instead of created.
        **kwargs: As for any layer.

    Example:
        ```python
        island = Island(
            repair(graph), {"x": "x:0"}, {"y": "logits:0"}, variables.values()
        )
        island.assign(values)
        island({"x": batch})["y"]
        ```
    """

    def __init__(
        self,
        graph: Graph | bytes,
        inputs: Mapping[str, str],
        outputs: Mapping[str, str],
        variables: Sequence[Any] = (),
        updates: Sequence[str] = (),
        losses: Sequence[str] = (),
        training_values: Mapping[str, tuple[Any, Any]] | None = None,
        constants: Mapping[str, Any] | None = None,
        initializers: Sequence[str] = (),
        weights_from: "Island | Mapping[str, Any] | None" = None,
        **kwargs: Any,
    ) -> None:
        kwargs["autocast"] = False
        super().__init__(**kwargs)
        self.supports_jit = False  # XLA compiles neither strings nor tables
        self.input_names = dict(inputs)
        self.output_names = dict(outputs)
        self.update_names = list(updates)
        self.loss_names = list(losses)
        self.training_values = {
            name: (_plain(train), _plain(other))
            for name, (train, other) in (training_values or {}).items()
        }
        if isinstance(graph, bytes):
            graph = graph_from_proto(tf.compat.v1.GraphDef.FromString(graph))
        self._subgraph = self._cut(graph, constants or {}, initializers)
        if isinstance(weights_from, Island):
            weights_from = weights_from.variable_map
        if weights_from is None:
            records = [_island_variable(variable) for variable in variables]
            self._weights_by_name = {v.name: self._create(v) for v in records}
        else:
            self._weights_by_name = {
                name: weights_from[name]
                for name in self._subgraph.graph.nodes
                if name in weights_from
            }
            records = [
                IslandVariable(name, v.dtype, tuple(v.shape), v.trainable)
                for name, v in self._weights_by_name.items()
            ]
        self._records = tuple(records)
        self.built = True

    @property
    def variable_map(self) -> dict[str, Any]:
        """The Keras variables by TensorFlow name."""
        return dict(self._weights_by_name)

    def variable(self, name: str) -> Any:
        """The Keras variable of a variable of the graph.

        Args:
            name: Its TensorFlow name, such as `"dense/kernel"`.

        Returns:
            A `keras.Variable`.

        Raises:
            SignatureError: If the layer has no such variable.
        """
        if name not in self._weights_by_name:
            known = nearest(name, self._weights_by_name)
            raise SignatureError(
                f"The layer has no variable {name!r}{known}.",
                fix="take a name of variable_map.",
            )
        return self._weights_by_name[name]

    def assign(self, values: Mapping[str, Any]) -> None:
        """Gives variables their values.

        Args:
            values: Arrays by TensorFlow name; variables not named keep theirs.

        Raises:
            SignatureError: If the layer has no such variable.
            ShapeMismatchError: If shapes differ; lists all of them. Nothing is
                assigned then.
        """
        arrays = {name: np.asarray(value) for name, value in values.items()}
        wrong = [
            f"{name}: {tuple(array.shape)}, expected {tuple(self.variable(name).shape)}"
            for name, array in arrays.items()
            if tuple(array.shape) != tuple(self.variable(name).shape)
        ]
        if wrong:
            raise ShapeMismatchError(
                "Values have other shapes than the variables.",
                findings=wrong,
                fix="pass the values of this graph's own checkpoint.",
            )
        for name, array in arrays.items():
            self.variable(name).assign(array)

    def call(self, inputs: Any, training: Any = None) -> dict[str, Any]:
        """Runs the subgraph.

        Args:
            inputs: A tensor for each input name; one tensor where there is one input.
            training: Whether to train; `None` is `False`.

        Returns:
            A tensor for each output name.

        Raises:
            SignatureError: If inputs are missing, unknown, or of a wrong shape.
        """
        tensors = self._tensors(inputs)
        mode = None if training is None else tf.get_static_value(training)
        if training is None or mode is not None:
            values = self._run(bool(mode), tensors)
        else:
            # Known when it runs only: a tensor.
            values = tf.cond(
                tf.cast(training, tf.bool),
                lambda: self._run(True, tensors),
                lambda: self._run(False, tensors) + self._no_losses(),
            )
        count = len(self.output_names)
        for loss in values[count:]:
            self.add_loss(tf.reduce_sum(loss))
        return dict(zip(self.output_names, values[:count], strict=True))

    def compute_output_spec(
        self, inputs: Any, training: Any = None
    ) -> dict[str, keras.KerasTensor]:
        """The outputs as symbolic tensors, of the exact dtypes.

        Args:
            inputs: Symbolic inputs, as for `call`.
            training: Not used: the outputs are the same.

        Returns:
            A symbolic tensor for each output name. Keras knows no unknown rank; it is
            given as `(None,)`.
        """
        specs = self._function(training=False).structured_outputs
        symbols = {}
        for key, spec in zip(self.output_names, specs, strict=False):
            known = spec.shape.rank is not None
            shape = tuple(spec.shape.as_list()) if known else (None,)
            symbols[key] = keras.KerasTensor(shape, dtype=spec.dtype.name, name=key)
        return symbols

    def get_config(self) -> dict[str, Any]:
        """The configuration: the needed part of the graph, but no values."""
        config: dict[str, Any] = super().get_config()
        config.pop("autocast", None)
        config["graph"] = _pack(self._subgraph.graph)
        config["inputs"] = {k: str(t) for k, t in self._subgraph.inputs.items()}
        config["outputs"] = {k: str(t) for k, t in self._subgraph.outputs.items()}
        config["variables"] = [
            {**dataclasses.asdict(record), "shape": list(record.shape)}
            for record in self._records
        ]
        config["updates"] = list(self._subgraph.updates)
        config["losses"] = list(map(str, self._subgraph.losses))
        config["training_values"] = {
            str(self._subgraph.modes[name]): list(values)
            for name, values in self.training_values.items()
        }
        config["initializers"] = list(self._subgraph.initializers)
        return config

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> "Island":
        """Makes a layer of its configuration, once all of its ops are looked at.

        Args:
            config: What `get_config` returned.

        Returns:
            The layer; its weights are zeros until they are loaded.

        Raises:
            FormatError: If the graph cannot be read.
            UntrustedContentError: If the graph holds ops that are not run.
        """
        config = dict(config)
        graph = _unpack(config.pop("graph"))
        require_safe(graph)
        config["training_values"] = {
            name: tuple(values) for name, values in config["training_values"].items()
        }
        return cls(graph, **config)

    def _cut(
        self, graph: Graph, constants: Mapping[str, Any], initializers: Sequence[str]
    ) -> "_Subgraph":
        """What the layer needs of a graph, with placeholders where it is fed."""
        inputs = {key: TensorName.parse(t) for key, t in self.input_names.items()}
        modes = {name: TensorName.parse(name) for name in self.training_values}
        known = {TensorName.parse(name): value for name, value in constants.items()}
        fed = [*inputs.values(), *modes.values()]
        graph, replaced = cut_feeds(
            graph,
            {tensor: tensor_spec(graph, tensor) for tensor in fed},
            {t: _array(graph, t, value) for t, value in known.items()},
        )

        def now(text: str) -> TensorName:
            tensor = TensorName.parse(text)
            return replaced.get(tensor, tensor)

        outputs = {key: now(text) for key, text in self.output_names.items()}
        losses = [now(text) for text in self.loss_names]
        updates = [TensorName.parse(text).node for text in self.update_names]
        roots = [tensor.node for tensor in (*outputs.values(), *losses)] + updates
        graph = fold_conditions(graph).graph
        tables = table_initializers(graph)
        needed = graph.ancestors(roots)
        runs = [*initializers]
        runs += [name for table in tables.keys() & needed for name in tables[table]]
        kept = [replaced[tensor].node for tensor in fed]
        return _Subgraph(
            _without_shapes(prune(graph, [*roots, *runs, *kept])),
            {key: replaced[tensor] for key, tensor in inputs.items()},
            outputs,
            losses,
            updates,
            {name: replaced[tensor] for name, tensor in modes.items()},
            sorted(dict.fromkeys(runs)),
        )

    def _create(self, variable: IslandVariable) -> Any:
        """A weight for a variable; Keras allows no slash, TensorFlow no bar."""
        return self.add_weight(
            name=variable.name.replace("/", "|"),
            shape=variable.shape,
            dtype=variable.dtype,
            initializer="zeros",
            trainable=variable.trainable,
            autocast=False,
        )

    def _no_losses(self) -> list[Any]:
        specs = self._function(training=True).structured_outputs
        losses = specs[len(self.output_names) : -1]
        return [tf.zeros([], loss.dtype) for loss in losses]

    def _tensors(self, inputs: Any) -> list[Any]:
        """The inputs in order, of the dtypes that the graph takes."""
        names = list(self._subgraph.inputs)
        if not isinstance(inputs, Mapping):
            flat = list(inputs) if isinstance(inputs, list | tuple) else [inputs]
            inputs = (
                dict(zip(names, flat, strict=False)) if len(flat) == len(names) else {}
            )
        wrong = [f"missing input: {name}" for name in names if name not in inputs]
        wrong += [f"unknown input: {name}" for name in inputs if name not in names]
        tensors = []
        for name in names:
            if name not in inputs:
                continue
            spec = tensor_spec(self._subgraph.graph, self._subgraph.inputs[name])
            tensor = _convert(inputs[name], spec.dtype)
            if not spec.shape.is_compatible_with(tensor.shape):
                wrong.append(f"{name} has shape {tensor.shape}, expected {spec.shape}")
            tensors.append(tensor)
        if wrong:
            raise SignatureError(
                f"The inputs of the layer are {names}.",
                findings=wrong,
                fix="pass exactly these, as a dict.",
            )
        return tensors

    def _run(self, training: bool, tensors: Sequence[Any]) -> list[Any]:
        function = self._function(training)
        return list(function(*tensors))[:-1]

    def _function(self, training: bool) -> Any:
        """The function of one mode; made when it is first needed."""
        subgraph = self._subgraph
        if training not in subgraph.functions:
            variables = {n: v.value for n, v in self._weights_by_name.items()}
            constants = {
                tensor: _array(
                    subgraph.graph, tensor, self.training_values[name][not training]
                )
                for name, tensor in subgraph.modes.items()
            }
            subgraph.initialize(variables, constants)
            wanted = Wanted(
                {t: tensor_spec(subgraph.graph, t) for t in subgraph.inputs.values()},
                [*subgraph.outputs.values(), *(subgraph.losses if training else [])],
                constants,
                subgraph.updates if training else [],
            )
            subgraph.functions[training] = make_function(
                subgraph.graph, wanted, variables, subgraph.namespace
            )
        return subgraph.functions[training]


@dataclasses.dataclass(eq=False)
class _Subgraph:
    """What an island needs of a graph, and the functions made of it.

    A plain object, so that Keras does not look for weights inside.
    """

    graph: Graph
    inputs: dict[str, TensorName]
    outputs: dict[str, TensorName]
    losses: list[TensorName]
    updates: list[str]
    modes: dict[str, TensorName]
    initializers: list[str]
    functions: dict[bool, Any] = dataclasses.field(default_factory=dict)
    namespace: str = ""
    initialized: bool = False

    def __post_init__(self) -> None:
        self.namespace = f"keras_metagraph_island_{next(_namespaces)}"

    def initialize(
        self, variables: Mapping[str, Any], constants: Mapping[TensorName, Any]
    ) -> None:
        """Fills the tables, once."""
        if self.initialized or not self.initializers:
            return
        self.initialized = True
        wanted = Wanted({}, [], constants, self.initializers)
        with tf.init_scope():
            make_function(self.graph, wanted, variables, self.namespace)()


def _island_variable(variable: Any) -> IslandVariable:
    """A record of a variable: of a `GraphVariable`, or of a configuration."""
    if isinstance(variable, Mapping):
        return IslandVariable(**{**variable, "shape": tuple(variable["shape"])})
    if variable.shape is None or None in variable.shape:
        raise ShapeMismatchError(
            f"The shape of the variable {variable.name!r} is not known: "
            f"{variable.shape}.",
            fix="take it from the checkpoint (dataclasses.replace(variable, shape=...)).",
        )
    dtype = tf.as_dtype(variable.dtype)
    trains = variable.trainable and (dtype.is_floating or dtype.is_complex)
    return IslandVariable(variable.name, dtype.name, tuple(variable.shape), trains)


def _plain(value: Any) -> Any:
    """A value as JSON has it."""
    return np.asarray(value).tolist()


def _array(graph: Graph, tensor: TensorName, value: Any) -> Any:
    """A value as an array of a tensor's dtype."""
    return np.asarray(value, tensor_spec(graph, tensor).dtype.as_numpy_dtype)


def _convert(value: Any, dtype: tf.DType) -> Any:
    tensor = tf.convert_to_tensor(value)
    if tensor.dtype == dtype or tf.string in (tensor.dtype, dtype):
        return tensor
    return tf.cast(tensor, dtype)


def _without_shapes(graph: Graph) -> Graph:
    """Drops recorded shapes but those of joins and placeholders, which are used."""
    nodes = {}
    for name, node in graph.nodes.items():
        if RECORDED_SHAPES in node.attrs and node.op not in _SHAPED:
            attrs = {k: v for k, v in node.attrs.items() if k != RECORDED_SHAPES}
            node = dataclasses.replace(node, attrs=attrs)
        nodes[name] = node
    return Graph(nodes, graph.functions, graph.producer)


def _pack(graph: Graph) -> str:
    data = graph_to_proto(graph).SerializeToString(deterministic=True)
    return base64.b64encode(zlib.compress(data, 9)).decode("ascii")


def _unpack(text: str) -> Graph:
    unpacker = zlib.decompressobj()
    try:
        data = unpacker.decompress(base64.b64decode(text), _MAX_GRAPH_BYTES)
        graph_def = tf.compat.v1.GraphDef.FromString(data)
    except (ValueError, zlib.error, DecodeError) as error:
        raise FormatError(
            f"The graph in the configuration of an island cannot be read: {error}.",
            fix="save the model again; the file is damaged.",
        ) from error
    check_structure(tf.compat.v1.MetaGraphDef(graph_def=graph_def))
    return graph_from_proto(graph_def)
