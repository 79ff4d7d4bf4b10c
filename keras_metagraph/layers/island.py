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

from keras_metagraph.audit.policy import require_safe
from keras_metagraph.errors import (
    FormatError,
    ShapeMismatchError,
    SignatureError,
    nearest,
)
from keras_metagraph.graph.from_proto import graph_from_proto
from keras_metagraph.graph.ir import Graph, TensorName
from keras_metagraph.graph.passes.feeds import cut_feeds
from keras_metagraph.graph.passes.structure import prune
from keras_metagraph.graph.specs import tensor_spec
from keras_metagraph.graph.to_proto import graph_to_proto
from keras_metagraph.layers.graph_function import (
    Wanted,
    make_function,
    table_initializers,
)

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
        self._runner = _Runner(*self._needed(graph, constants or {}, initializers))
        if weights_from is None:
            self._weights_by_name = {
                variable.name: self._create(variable)
                for variable in map(_island_variable, variables)
            }
        else:
            if isinstance(weights_from, Island):
                weights_from = weights_from.variable_map
            self._weights_by_name = {
                name: weights_from[name]
                for name in self._runner.graph.nodes
                if name in weights_from
            }
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
                lambda: self._run(False, tensors),
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
        shapes = self._function(False).structured_outputs
        return {
            key: keras.KerasTensor(
                tuple(shapes[place].shape.as_list())
                if shapes[place].shape.rank is not None
                else (None,),
                dtype=shapes[place].dtype.name,
                name=key,
            )
            for place, key in enumerate(self.output_names)
        }

    def get_config(self) -> dict[str, Any]:
        """The configuration: the needed part of the graph, but no values."""
        config: dict[str, Any] = super().get_config()
        config.pop("autocast", None)
        graph_def = graph_to_proto(self._runner.graph)
        data = zlib.compress(graph_def.SerializeToString(deterministic=True), 9)
        config["graph"] = base64.b64encode(data).decode("ascii")
        config["inputs"] = dict(self.input_names)
        config["outputs"] = dict(self.output_names)
        config["variables"] = [
            {
                "name": name,
                "dtype": variable.dtype,
                "shape": [int(size) for size in variable.shape],
                "trainable": bool(variable.trainable),
            }
            for name, variable in self._weights_by_name.items()
        ]
        config["updates"] = list(self.update_names)
        config["losses"] = list(self.loss_names)
        config["training_values"] = {
            name: list(values) for name, values in self.training_values.items()
        }
        config["initializers"] = list(self._runner.initializers)
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
