"""The Keras model that a legacy graph becomes."""

import base64
import dataclasses
import warnings
import zlib
from collections.abc import Mapping, Sequence
from typing import Any

import keras
import tensorflow as tf

from keras_metagraph.errors import SignatureError
from keras_metagraph.export.specs import SAMPLE_WEIGHT
from keras_metagraph.graph.ir import TensorName
from keras_metagraph.graph.specs import tensor_spec
from keras_metagraph.graph.variables import graph_variables
from keras_metagraph.layers.island import Island
from keras_metagraph.loading.batches import require_rows, with_strings
from keras_metagraph.loading.graph_step import GraphStep
from keras_metagraph.loading.infer import Interface
from keras_metagraph.loading.meta_graph import LoadedMetaGraph
from keras_metagraph.loading.restoration import merge_slices
from keras_metagraph.training.graph_loss import GraphLoss
from keras_metagraph.training.optimizers import OptimizerGroup
from keras_metagraph.training.train_op import TrainOp


@keras.saving.register_keras_serializable("keras_metagraph")
class MetaGraphModel(keras.Model):
    """A functional model around the graph of a legacy file.

    Compiled with `TrainOp` (as it is after loading), `fit` runs the graph's own train
    op; after `compile` with a Keras optimizer, it trains as any Keras model does.

    Attributes:
        meta_graph: The graph behind the model, a `LoadedMetaGraph`.
    """

    meta_graph: LoadedMetaGraph
    _graph_steps: Sequence[GraphStep] = ()

    @property
    def island(self) -> Island:
        """The layer that runs the graph and holds all of its variables."""
        return next(layer for layer in self.layers if isinstance(layer, Island))

    @property
    def trains_with_graph(self) -> bool:
        """Whether `fit` runs the train op of the graph."""
        return isinstance(self.optimizer, TrainOp)

    def attach(self, meta_graph: LoadedMetaGraph) -> None:
        """Gives the model the graph that it was built from."""
        self.meta_graph = meta_graph

    @property
    def input_spec(self) -> None:
        """None: the graph itself checks, as old files often leave the rank open."""
        return None

    def call(self, inputs: Any, training: Any = None, mask: Any = None) -> Any:
        """Runs the graph from its inputs to its outputs.

        Args:
            inputs: A dict by input name, a list in their order, or the one tensor.
            training: Whether training flags are on and updates run.
            mask: Not used.

        Returns:
            The outputs in the structure of `model.output`.

        Raises:
            SignatureError: If the inputs do not fit.
        """
        interface = self.meta_graph.interface
        feeds = _bind(interface.inputs, inputs, "input")
        values = {
            key: self._fit(tensor, feeds[tensor])
            for key, tensor in interface.inputs.items()
        }
        outputs = self.island(values, training=training)
        if isinstance(self.output, dict):
            return outputs
        return next(iter(outputs.values()))

    def compile(self, optimizer: Any = "rmsprop", *args: Any, **kwargs: Any) -> None:
        """Configures training, as `keras.Model.compile` does.

        Args:
            optimizer: A Keras optimizer, or a `TrainOp` to train with the graph's own
                operations.
            *args: As in `keras.Model.compile`.
            **kwargs: As in `keras.Model.compile`.
        """
        if self.compiled:
            self._write_back()
        super().compile(optimizer, *args, **kwargs)
        loss = self.loss
        steps = loss.steps if isinstance(loss, GraphLoss) else ()
        # Not setattr: Keras would track what it holds.
        self.__dict__["_graph_steps"] = [GraphStep(self.meta_graph, s) for s in steps]
        if steps and not self.optimizer.built:
            self.optimizer.build(self._trained_variables())
        if not self.trains_with_graph:
            self._warn_of_gradients()
        elif self.meta_graph.global_step is not None:
            self.optimizer.bind(self.meta_graph.global_step)

    def compile_from_config(self, config: dict[str, Any]) -> None:
        """Compiles as the model was when its config was made.

        Args:
            config: What `get_compile_config` returned.
        """
        self.compile(**keras.saving.deserialize_keras_object(config))
        unbuilt = self.optimizer is not None and not self.optimizer.built
        if unbuilt and not self.trains_with_graph:
            self.optimizer.build(self._trained_variables())

    def fit(self, x: Any = None, y: Any = None, *args: Any, **kwargs: Any) -> Any:
        """Trains as `keras.Model.fit` does; arrays of strings are taken too.

        Args:
            x: The inputs.
            y: The labels.
            *args: As in `keras.Model.fit`.
            **kwargs: As in `keras.Model.fit`.

        Returns:
            The history.
        """
        require_rows("fit", x, y)
        if "validation_data" in kwargs:
            kwargs["validation_data"] = with_strings(kwargs["validation_data"])
        return super().fit(with_strings(x), with_strings(y), *args, **kwargs)

    def evaluate(self, x: Any = None, y: Any = None, *args: Any, **kwargs: Any) -> Any:
        """Evaluates as `keras.Model.evaluate` does; arrays of strings are taken too.

        Args:
            x: The inputs.
            y: The labels.
            *args: As in `keras.Model.evaluate`.
            **kwargs: As in `keras.Model.evaluate`.

        Returns:
            The loss, or a list or dict of the metrics.
        """
        require_rows("evaluate", x, y)
        return super().evaluate(with_strings(x), with_strings(y), *args, **kwargs)

    def predict(self, x: Any, *args: Any, **kwargs: Any) -> Any:
        """Predicts as `keras.Model.predict` does; arrays of strings are taken too.

        Args:
            x: The inputs.
            *args: As in `keras.Model.predict`.
            **kwargs: As in `keras.Model.predict`.

        Returns:
            Arrays in the structure of the model's output.
        """
        require_rows("predict", x)
        return super().predict(with_strings(x), *args, **kwargs)

    def train_on_batch(self, x: Any, y: Any = None, *args: Any, **kwargs: Any) -> Any:
        """Trains as `keras.Model.train_on_batch` does; strings are taken too.

        The arrays may have first axes of different lengths: what is one batch to the
        graph need not be a row for each example (sparse tensors, whole graphs).

        Args:
            x: The inputs.
            y: The labels.
            *args: As in `keras.Model.train_on_batch`.
            **kwargs: As in `keras.Model.train_on_batch`.

        Returns:
            The loss, or a list or dict of the metrics.
        """
        x, y = with_strings(x), with_strings(y)
        return super().train_on_batch(x, y, *args, **kwargs)

    def test_on_batch(self, x: Any, y: Any = None, *args: Any, **kwargs: Any) -> Any:
        """Evaluates as `keras.Model.test_on_batch` does; strings are taken too.

        Args:
            x: The inputs.
            y: The labels.
            *args: As in `keras.Model.test_on_batch`.
            **kwargs: As in `keras.Model.test_on_batch`.

        Returns:
            The loss, or a list or dict of the metrics.
        """
        x, y = with_strings(x), with_strings(y)
        return super().test_on_batch(x, y, *args, **kwargs)

    def predict_on_batch(self, x: Any) -> Any:
        """Predicts as `keras.Model.predict_on_batch` does; strings are taken too.

        Args:
            x: The inputs.

        Returns:
            Arrays in the structure of the model's output.
        """
        return super().predict_on_batch(with_strings(x))

    def train_step(self, data: Any) -> Any:
        """One step on a batch; returns the metrics.

        Args:
            data: A batch as `fit` passes it: `x`, `(x, y)` or `(x, y, weights)`.

        Returns:
            Metric values by name; `loss` is the mean over the batches of the epoch.

        Raises:
            SignatureError: If the batch does not fit the graph's placeholders.
        """
        if self.trains_with_graph:
            return self._run_train_op(data)
        if self._graph_steps:
            return self._minimize_graph_loss(data)
        return super().train_step(data)

    def test_step(self, data: Any) -> Any:
        """Evaluates a batch; returns the metrics.

        Args:
            data: A batch as `evaluate` passes it.

        Returns:
            Metric values by name.

        Raises:
            SignatureError: If the batch does not fit the graph's placeholders.
        """
        if not self.trains_with_graph and not self._graph_steps:
            return super().test_step(data)
        losses = [loss for loss in self._graph_losses() if loss]
        if not losses:
            raise SignatureError(
                "The loss of the graph is not known, so it cannot be evaluated.",
                fix="name it: load_from_meta_graph(..., loss='loss:0').",
            )
        feeds = self._feeds(data, training=False)
        measured = any(metric.name != "loss" for metric in self.metrics)
        outputs = list(self.meta_graph.interface.outputs.values()) if measured else []
        runner = self.meta_graph.executor.function([*losses, *outputs], list(feeds))
        values = runner(list(feeds.values()))
        logs = dict(zip(losses, values, strict=False))
        return self._logs(data, logs, values[len(losses) :])

    def original_meta_graph(self) -> tuple[Any, dict[str, Any]] | None:
        """The graph that the model goes on with, and the state it has now.

        Returns:
            The MetaGraphDef of the file and arrays by checkpoint key, as TensorFlow's
            own Saver would write them; `None` once Keras trains the model.
        """
        values = self._graph_values()
        if values is None:
            return None
        meta_graph_def = self.meta_graph.meta_graph_def
        found = graph_variables(meta_graph_def, self.meta_graph.graph)
        return meta_graph_def, merge_slices({n: found[n] for n in values}, values)

    def expected_labels(self) -> Any:
        """The labels that a training step on the graph's own loss takes.

        Returns:
            Specs by label name, or the one spec; `None` where the graph's loss is not
            used.
        """
        if not isinstance(self.loss, GraphLoss):
            return None
        labels = {
            key: tensor_spec(self.meta_graph.graph, tensor)
            for key, tensor in self.meta_graph.interface.labels.items()
        }
        return next(iter(labels.values())) if len(labels) == 1 else labels

    def _graph_values(self) -> dict[str, Any] | None:
        """The values with which the graph's own training goes on, by variable name."""
        variables = self.meta_graph.variables
        if self.compiled and not self.trains_with_graph:
            return self.meta_graph.written_back(self.optimizer)
        return {n: keras.ops.convert_to_numpy(v) for n, v in variables.items()}

    def get_config(self) -> dict[str, Any]:
        """The functional config, with the graph and how it is fed."""
        config: dict[str, Any] = super().get_config()
        packed = zlib.compress(self.meta_graph.meta_graph_def.SerializeToString())
        config["meta_graph"] = base64.b64encode(packed).decode("ascii")
        config["interface"] = dataclasses.asdict(self.meta_graph.interface)
        return config

    @classmethod
    def from_config(
        cls, config: dict[str, Any], custom_objects: Mapping[str, Any] | None = None
    ) -> "MetaGraphModel":
        """Rebuilds the model; the graph is checked as one from a file is."""
        config = dict(config)
        packed = base64.b64decode(config.pop("meta_graph"))
        interface = Interface(**config.pop("interface"))
        model: MetaGraphModel = super().from_config(config, custom_objects)
        model.attach(
            LoadedMetaGraph.from_bytes(
                zlib.decompress(packed), model.island.variable_map, interface
            )
        )
        return model

    def _write_back(self) -> None:
        """Gives the graph the slots of the Keras optimizer that has gone on from it."""
        values = self.meta_graph.written_back(self.optimizer)
        if values is not None:
            self.island.assign(values)

    def _trained_variables(self) -> list[Any]:
        """What the optimizer trains: all, or what the graph trains by its own loss."""
        if not isinstance(self.loss, GraphLoss):
            return list(self.trainable_variables)
        return [self.meta_graph.variables[name] for name in self.loss.trained]

    def _warn_of_gradients(self) -> None:
        names = self.meta_graph.gradient_overrides
        if names:
            warnings.warn(
                "Keras differentiates these nodes as they are, but the program that "
                "wrote the graph gave them gradients of its own, which are in no file: "
                f"{names}. Only the graph's own train op has them.",
                stacklevel=3,
            )

    def _feeds(self, data: Any, *, training: bool) -> dict[str, Any]:
        """The feeds of a batch: inputs, labels, flags and constants."""
        x, y, weights = keras.utils.unpack_x_y_sample_weight(data)
        interface = self.meta_graph.interface
        if weights is not None:
            y = _weighted(interface.labels, y, weights)
        feeds = _bind(interface.inputs, x, "input")
        feeds |= _bind(interface.labels, y, "label")
        feeds = {name: self._fit(name, value) for name, value in feeds.items()}
        for name, (when_training, otherwise) in interface.training_values.items():
            feeds[name] = when_training if training else otherwise
        return feeds

    def _fit(self, tensor: str, value: Any) -> Any:
        """A value as the graph's tensor takes it; symbolic ones as they are."""
        if isinstance(value, keras.KerasTensor):
            return value
        return self.meta_graph.executor.fit(tensor, value)

    def _run_train_op(self, data: Any) -> dict[str, Any]:
        """Trains as the graph does."""
        feeds = self._feeds(data, training=True)
        values = list(feeds.values())
        optimizer = self.optimizer
        losses = {}
        for run, loss in zip(optimizer.runs, optimizer.losses, strict=True):
            before = [loss] if loss else []
            fetches = [*run, *before]
            function = self.meta_graph.executor.function(fetches, list(feeds), before)
            found = function(values)
            if loss:
                losses[loss] = found[-1]
        if optimizer.counts_itself:
            optimizer.iterations.assign_add(1)
        return self._logs(data, losses)

    def _minimize_graph_loss(self, data: Any) -> dict[str, Any]:
        """Trains with a Keras optimizer on what the graph computes."""
        feeds = self._feeds(data, training=True)
        losses: dict[str, Any] = {}
        outputs: dict[str, Any] = {}
        group = self.optimizer
        turns = isinstance(group, OptimizerGroup) and group.takes_turns
        for place, step in enumerate(self._graph_steps):
            optimizer = group.optimizers[place] if turns else group
            loss, found = step.run(optimizer, feeds)
            losses[step.step.loss] = loss
            outputs = outputs or found
        if turns:
            group.iterations.assign_add(1)
        return self._logs(data, losses, list(outputs.values()))

    def _graph_losses(self) -> tuple[str | None, ...]:
        """Names of the loss tensors that the graph computes."""
        if self.trains_with_graph:
            return tuple(self.optimizer.losses)
        return tuple(step.step.loss for step in self._graph_steps)

    def _logs(
        self, data: Any, losses: Mapping[str, Any], outputs: Sequence[Any] = ()
    ) -> dict[str, Any]:
        """The losses, the first as `loss`, and the metrics that the model has.

        Where no loss is known, the number of steps.
        """
        tracker = next(metric for metric in self.metrics if metric.name == "loss")
        means = [
            tf.reduce_mean(tf.cast(loss, keras.config.floatx()))
            for loss in losses.values()
        ]
        for mean in means[:1]:
            tracker.update_state(mean)
        # A loss that nobody knows is not 0, and Keras wants to log something.
        steps = {"step": tf.convert_to_tensor(self.optimizer.iterations)}
        logs = {"loss": tracker.result()} if means else steps
        if outputs:
            x, y, weights = keras.utils.unpack_x_y_sample_weight(data)
            predicted = keras.tree.pack_sequence_as(self.output, list(outputs))
            logs |= self.compute_metrics(x, y, predicted, weights)
        for name, mean in zip(list(losses)[1:], means[1:], strict=True):
            logs[TensorName.parse(name).node] = mean
        return logs


def _weighted(names: Mapping[str, str], y: Any, weights: Any) -> Any:
    """Labels with the sample weights, which graphs of own files take beside them.

    Raises:
        SignatureError: If the graph has no place for weights.
    """
    others = [key for key in names if key != SAMPLE_WEIGHT]
    if len(others) == len(names) or keras.tree.is_nested(weights):
        raise SignatureError(
            "Sample weights were given, but the graph has no place for them.",
            fix="leave them out, or compile the model with a Keras optimizer.",
        )
    if isinstance(y, list | tuple):
        y = dict(zip(others, y, strict=False))
    elif not isinstance(y, Mapping):
        y = {} if y is None else dict.fromkeys(others[:1], y)
    return {**y, SAMPLE_WEIGHT: weights}


def _bind(names: Mapping[str, str], values: Any, kind: str) -> dict[str, Any]:
    """Values by tensor name, from what `fit` was given for `names`."""
    if not names:
        return {}
    if isinstance(values, Mapping):
        given = dict(values)
    elif isinstance(values, (list, tuple)):
        given = dict(zip(names, values, strict=False))
    else:
        given = {} if values is None else {next(iter(names)): values}
    missing = [f"{key} ({names[key]})" for key in names if key not in given]
    unknown = sorted(given.keys() - names.keys())
    if missing or unknown:
        raise SignatureError(
            f"The batch does not fit the {kind}s of the graph, {list(names)}.",
            findings=[f"missing {kind}: {name}" for name in missing]
            + [f"unknown {kind}: {name}" for name in unknown],
            fix=f"pass a dict with exactly these {kind} names.",
        )
    return {names[key]: given[key] for key in names}
