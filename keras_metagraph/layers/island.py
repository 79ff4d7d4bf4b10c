"""A subgraph of a TensorFlow 1 graph as a Keras layer."""

import dataclasses
import re
from collections.abc import Mapping, Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from keras_metagraph.errors import (
    PassError,
    ShapeMismatchError,
    SignatureError,
    nearest,
)
from keras_metagraph.graph.ir import Graph
from keras_metagraph.layers.subgraph import Request, Subgraph, pack, parse, unpack

_NO_GRADIENT = re.compile(r"No gradient defined for operation.*\(op type: (\w+)\)")
_KERAS_NAME = str.maketrans({"/": ">", ">": "\\"})
"""Keras allows no slash in a name. Both others are legal in SavedModels, and the names
of TensorFlow 1 hold neither."""


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
    training it also runs the updates. The losses are added in every mode, as Keras adds
    penalties.

    Args:
        graph: A repaired graph (`graph.passes.repair`), or a serialized `GraphDef` of
            one, all of whose ops are looked at. The layer keeps what it needs of it.
        inputs: Names of the tensors that are fed, by input name.
        outputs: Names of the tensors that are returned, by output name.
        variables: All variables of the model, each of which becomes a weight, in this
            order; also those that no output needs. Their shapes are fully known.
        updates: Names of operations or tensors to run in training.
        losses: Names of tensors to pass to `add_loss`.
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
        modes = {
            name: (_plain(train), _plain(other))
            for name, (train, other) in (training_values or {}).items()
        }
        if isinstance(graph, bytes):
            graph = parse(graph)
        request = Request(
            inputs, outputs, updates, losses, modes, constants or {}, initializers
        )
        # One object that Keras does not look into for weights and layers.
        self._subgraph = Subgraph(graph, request)
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
        if isinstance(training, tf.Tensor) and tf.get_static_value(training) is None:
            values = tf.cond(
                tf.cast(training, tf.bool),
                lambda: self._run(True, tensors),
                lambda: self._run(False, tensors),
            )
        else:
            values = self._run(bool(training), tensors)
        names = self._subgraph.request.outputs
        for loss in values[len(names) :]:
            self.add_loss(tf.reduce_sum(loss))
        return dict(zip(names, values, strict=False))

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
        for key, spec in zip(self._subgraph.request.outputs, specs, strict=False):
            known = spec.shape.rank is not None
            shape = tuple(spec.shape.as_list()) if known else (None,)
            symbols[key] = keras.KerasTensor(shape, dtype=spec.dtype.name, name=key)
        return symbols

    def get_config(self) -> dict[str, Any]:
        """The configuration: the needed part of the graph, but no values."""
        config: dict[str, Any] = super().get_config()
        config.pop("autocast", None)
        request = self._subgraph.request
        config["graph"] = pack(self._subgraph.graph)
        config["inputs"] = dict(request.inputs)
        config["outputs"] = dict(request.outputs)
        config["variables"] = [
            {**dataclasses.asdict(record), "shape": list(record.shape)}
            for record in self._records
        ]
        config["updates"] = list(request.updates)
        config["losses"] = list(request.losses)
        config["training_values"] = {
            name: list(values) for name, values in request.modes.items()
        }
        config["initializers"] = list(request.initializers)
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
        graph = unpack(config.pop("graph"))
        config["training_values"] = {
            name: tuple(values) for name, values in config["training_values"].items()
        }
        return cls(graph, **config)

    def _create(self, variable: IslandVariable) -> Any:
        """A weight for a variable."""
        return self.add_weight(
            name=variable.name.translate(_KERAS_NAME),
            shape=variable.shape,
            dtype=variable.dtype,
            initializer="zeros",
            trainable=variable.trainable,
            autocast=False,
        )

    def _run(self, training: bool, tensors: Sequence[Any]) -> list[Any]:
        try:
            return list(self._function(training)(*tensors))[:-1]
        except LookupError as error:  # of TensorFlow's registry of gradients
            found = _NO_GRADIENT.search(str(error))
            if found is None or not self._subgraph.stop_gradient(found[1]):
                raise PassError(
                    f"The outputs cannot be differentiated: {error}",
                    fix="name outputs that do not need the op.",
                ) from error
        return self._run(training, tensors)

    def _function(self, training: bool) -> Any:
        variables = {name: v.value for name, v in self._weights_by_name.items()}
        return self._subgraph.function(training, variables)

    def _tensors(self, inputs: Any) -> list[Any]:
        """The inputs in order, of the dtypes that the graph takes."""
        specs = self._subgraph.specs
        if not isinstance(inputs, Mapping):
            flat = list(inputs) if isinstance(inputs, list | tuple) else [inputs]
            inputs = dict(zip(specs, flat, strict=len(flat) > 1))
        wrong = [f"missing input: {name}" for name in specs if name not in inputs]
        wrong += [f"unknown input: {name}" for name in inputs if name not in specs]
        tensors = []
        for name, spec in specs.items():
            if name in inputs:
                tensor = _convert(inputs[name], spec.dtype)
                tensors.append(tensor)
                if not spec.shape.is_compatible_with(tensor.shape):
                    wrong.append(f"{name} has shape {tensor.shape}, not {spec.shape}")
        if wrong:
            raise SignatureError(
                f"The inputs of the layer are {list(specs)}.",
                findings=wrong,
                fix="pass exactly these, as a dict.",
            )
        return tensors


def _island_variable(variable: Any) -> IslandVariable:
    """A record of a variable: of a `GraphVariable`, or of a configuration."""
    if isinstance(variable, Mapping):
        return IslandVariable(**{**variable, "shape": tuple(variable["shape"])})
    if variable.shape is None or None in variable.shape:
        raise ShapeMismatchError(
            f"The shape of the variable {variable.name!r} is not known: "
            f"{variable.shape}.",
            fix="take it from the value in the checkpoint.",
        )
    dtype = tf.as_dtype(variable.dtype)
    trains = variable.trainable and (dtype.is_floating or dtype.is_complex)
    return IslandVariable(variable.name, dtype.name, tuple(variable.shape), trains)


def _plain(value: Any) -> Any:
    """A value as JSON has it."""
    return np.asarray(value).tolist()


def _convert(value: Any, dtype: tf.DType) -> Any:
    tensor = tf.convert_to_tensor(value)
    if tensor.dtype == dtype or tf.string in (tensor.dtype, dtype):
        return tensor
    return tf.cast(tensor, dtype)
