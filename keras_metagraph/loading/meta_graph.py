"""`model.meta_graph`: the graph behind a loaded model."""

import functools
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any

import keras
import tensorflow as tf
from google.protobuf import message
from tensorflow.core.framework import variable_pb2

from keras_metagraph.audit.structure import check_structure
from keras_metagraph.errors import SignatureError, nearest
from keras_metagraph.graph.from_proto import graph_from_proto
from keras_metagraph.graph.ir import Graph, TensorName
from keras_metagraph.graph.passes import repair
from keras_metagraph.graph.specs import tensor_spec
from keras_metagraph.graph.variables import GraphVariable, graph_variables
from keras_metagraph.layers.island import Island
from keras_metagraph.loading.infer import Interface
from keras_metagraph.loading.infer.analysis import GraphAnalysis
from keras_metagraph.loading.infer.signatures import (
    TRAINING_METHOD,
    signature_defs,
    train_ops,
)
from keras_metagraph.loading.infer.updates import Training, TrainingStep
from keras_metagraph.loading.optimizers import TrainingPhase, keras_optimizers
from keras_metagraph.loading.report import LoadReport
from keras_metagraph.loading.signatures import LoadedSignature
from keras_metagraph.session.executor import SessionExecutor, cone
from keras_metagraph.training.graph_loss import GraphLoss, LossStep
from keras_metagraph.training.optimizers import OptimizerGroup


def symbolic_inputs(graph: Graph, inputs: Mapping[str, str]) -> dict[str, Any]:
    """Keras inputs for tensors of a graph.

    Keras knows no tensor of unknown rank, and none without a batch axis: those get the
    shape `(None,)`, and the models around them do not check it.

    Args:
        graph: A repaired graph.
        inputs: Tensor names by input name.

    Returns:
        Symbolic tensors by input name.
    """
    symbols = {}
    for key, tensor in inputs.items():
        spec = tensor_spec(graph, tensor)
        shape = tuple(spec.shape.as_list()) if spec.shape.rank else (None,)
        symbols[key] = keras.Input(batch_shape=shape, dtype=spec.dtype.name, name=key)
    return symbols


class LoadedMetaGraph:
    """The MetaGraph of a loaded model, with the model's variables in it.

    Attributes:
        meta_graph_def: The proto, as loaded.
        interface: Which tensors are inputs, outputs, labels, loss and so on.
        variables: Keras variables by TensorFlow name.
        report: What became of what.

    Example:
        ```python
        model = keras_metagraph.load_from_meta_graph("run/model-1000")
        hidden = model.meta_graph.fetch("dense/Relu:0")
        hidden.predict(x)
        model.meta_graph.run(["loss:0", "accuracy:0"], {"x:0": x, "y:0": y})
        ```
    """

    def __init__(
        self,
        meta_graph_def: Any,
        variables: Mapping[str, Any],
        interface: Interface,
        report: LoadReport | None = None,
        graph: Graph | None = None,
        safe_mode: bool = True,
    ) -> None:
        self.meta_graph_def = meta_graph_def
        self.interface = interface
        self.variables = dict(variables)
        self.report = report
        self._graph = graph
        self._safe_mode = safe_mode
        self._optimizer: Any = None
        self._phases: tuple[TrainingPhase, ...] = ()

    @classmethod
    def from_bytes(
        cls, data: bytes, variables: Mapping[str, Any], interface: Interface
    ) -> "LoadedMetaGraph":
        """Parses and checks a serialized MetaGraphDef."""
        meta_graph_def = tf.compat.v1.MetaGraphDef.FromString(data)
        check_structure(meta_graph_def)
        return cls(meta_graph_def, variables, interface)

    @functools.cached_property
    def graph(self) -> Graph:
        """The graph as parsed and repaired, with the file's own node names."""
        if self._graph is not None:
            return self._graph
        return repair(graph_from_proto(self.meta_graph_def.graph_def))

    @property
    def graph_def(self) -> Any:
        """The `GraphDef` of the file."""
        return self.meta_graph_def.graph_def

    @property
    def variable_map(self) -> dict[str, str]:
        """Keras variable paths by TensorFlow variable name."""
        return {name: variable.path for name, variable in self.variables.items()}

    @functools.cached_property
    def executor(self) -> SessionExecutor:
        """Runs the graph on the model's own variables, as a session did."""
        return SessionExecutor(
            self.graph,
            {name: variable.value for name, variable in self.variables.items()},
            early=self._readers_of_weights(),
            safe_mode=self._safe_mode,
        )

    def _readers_of_weights(self) -> list[str]:
        """Nodes of losses and gradients that read a trained variable.

        The gradient is that of the weights before the update. Programs that called
        `tf.gradients` themselves left it to chance whether some op read them after it.
        """
        training = Training(GraphAnalysis(self.graph, self._all_variables))
        analysis = training.analysis
        losses = [loss for found in training.losses.values() for loss in found]
        return [
            name
            for name in analysis.ancestors(losses) | training.backward.keys()
            if any(
                analysis.variable_behind(tensor) in analysis.trained
                for tensor in analysis.graph.nodes[name].inputs
            )
        ]

    @property
    def global_step(self) -> Any:
        """The Keras variable that counts the graph's steps, or `None`.

        That of the collection `global_step`; else one called so, or as the optimizers
        of tf.keras call theirs.
        """
        listed = self.collections.get("global_step", [])
        for name in listed:
            variable = self.variables.get(TensorName.parse(str(name)).node)
            if variable is not None:
                return variable
        for called in ("global_step", "iterations", "iter"):
            for name, variable in self.variables.items():
                if name.rpartition("/")[2] == called and len(variable.shape) == 0:
                    return variable
        return None

    def optimizer(self) -> Any:
        """A Keras optimizer that goes on where the graph's own optimizer stands.

        Class, hyper-parameters, learning-rate schedule, slots and step are read off the
        operations of the train op, and the variables as they are now.

        Returns:
            A built Keras optimizer; an `OptimizerGroup` where the graph has several.

        Raises:
            SignatureError: If the graph has no train op, or none was chosen.
            LoweringError: If the updates are those of no optimizer that is known.
            MissingVariableError: If slots have no value; lists all of them.
            ShapeMismatchError: If slots do not fit their variables; lists all of them.

        Example:
            ```python
            model.compile(model.meta_graph.optimizer(), loss=model.meta_graph.loss())
            model.optimizer.learning_rate = 1e-4
            model.fit(x, y)
            ```
        """
        self._require_train_op()
        phases = keras_optimizers(
            self.graph,
            self._all_variables,
            self.interface,
            {n: keras.ops.convert_to_numpy(v) for n, v in self.variables.items()},
            self.variables,
        )
        self._phases = tuple(phases)
        self._optimizer = phases[0].optimizer
        if len(phases) > 1:  # networks that are trained in turn
            places: dict[str, list[int]] = {}
            for place, phase in enumerate(phases):
                for name in phase.variables:
                    places.setdefault(name, []).append(place)
            self._optimizer = OptimizerGroup(
                [phase.optimizer for phase in phases],
                {
                    self.variables[name].path: own if len(own) > 1 else own[0]
                    for name, own in places.items()
                },
            )
            self._optimizer.build([self.variables[name] for name in places])
        return self._optimizer

    def loss(self) -> GraphLoss:
        """The loss that the graph's own training minimizes, for `compile`.

        Returns:
            A loss that only this model can compute.

        Raises:
            SignatureError: If the graph has no train op, or its loss was not found.
        """
        steps = [step for step in self.training_runs if step.variables]
        unknown = [name for s in steps if not s.loss for name in s.operations]
        if unknown or not steps:
            raise SignatureError(
                "The loss that the training of the graph minimizes is not known.",
                findings=unknown,
                fix="name both: load_from_meta_graph(..., train_op='train_op', "
                "loss='loss:0').",
            )
        return GraphLoss(steps)

    def written_back(self, optimizer: Any) -> dict[str, Any] | None:
        """The values of all variables after a Keras optimizer trained them.

        Args:
            optimizer: What `optimizer()` returned last.

        Returns:
            Arrays by variable name: slots as the graph keeps them; `None` for any
            other optimizer.
        """
        if self._optimizer is None or optimizer is not self._optimizer:
            return None
        values = {n: keras.ops.convert_to_numpy(v) for n, v in self.variables.items()}
        for phase in self._phases:
            values |= phase.write_back(self.variables)
        return values

    @functools.cached_property
    def training_runs(self) -> list[LossStep]:
        """What the train op runs, one after the other where it has several losses."""
        analysis = GraphAnalysis(self.graph, self._all_variables)
        training = Training(analysis)
        runs = training.runs(self.interface.train_op)
        losses = [str(run.losses[0]) if run.losses else "" for run in runs]
        if self.interface.loss:
            losses[:1] = [self.interface.loss]  # by the name that the user gave it
        return [
            LossStep(
                loss,
                self._in_order(run.variables),
                run.operations,
                tuple(self._parts(training.parts(run))),
            )
            for run, loss in zip(runs, losses, strict=False)
        ]

    def _parts(
        self, steps: Sequence[TrainingStep]
    ) -> Iterator[tuple[str, tuple[str, ...]]]:
        """What a run minimizes, where that is more than the one loss it reports."""
        for step in steps if len(steps) > 1 else ():
            yield str(step.losses[0]), self._in_order(step.variables)

    @functools.cached_property
    def _all_variables(self) -> dict[str, GraphVariable]:
        """What the file says of its variables, also of those the model has not."""
        return graph_variables(self.meta_graph_def, self.graph)

    def _in_order(self, names: Collection[str]) -> tuple[str, ...]:
        """Names of variables in the graph's order, in which optimizers are built."""
        return tuple(name for name in self.variables if name in names)

    def _require_train_op(self) -> None:
        if not self.interface.train_op:
            found = self.interface.alternatives.get("train_op", [])
            raise SignatureError(
                "The model has no train op of its graph to read an optimizer off.",
                findings=found,
                fix="name one: load_from_meta_graph(..., train_op='train_op').",
            )

    @functools.cached_property
    def gradient_overrides(self) -> list[str]:
        """Nodes of the model whose gradient was Python code, which no file holds.

        The graph's own train op has that gradient in it; Keras differentiates these
        nodes as they are (`tf.custom_gradient`, `Graph.gradient_override_map`).
        """
        outputs = [TensorName.parse(t) for t in self.interface.outputs.values()]
        fed = {TensorName.parse(t) for t in self.interface.inputs.values()}
        names, _ = cone(self.graph, outputs, fed)
        nodes = self.graph.nodes
        return sorted(n for n in names if "_gradient_op_type" in nodes[n].attrs)

    @functools.cached_property
    def collections(self) -> dict[str, list[Any]]:
        """The collections of the file by name.

        Nodes are names, numbers and bytes are themselves, variables are their names,
        messages of other types are the protos.
        """
        return {
            name: _members(name, collection)
            for name, collection in sorted(self.meta_graph_def.collection_def.items())
        }

    @functools.cached_property
    def signatures(self) -> dict[str, LoadedSignature]:
        """The signatures of the file by name, those of a session_bundle too.

        Each is a callable from inputs to NumPy arrays. Names that TensorFlow reserves
        (`__saved_model_init_op`) are left out.

        Example:
            ```python
            model.meta_graph.signatures["serving_default"](x=[[1.0, 2.0]])["scores"]
            ```
        """
        defs = signature_defs(self.meta_graph_def)
        return {name: self.callable(each, name) for name, each in defs.items()}

    def callable(self, signature_def: Any, name: str = "signature") -> LoadedSignature:
        """Makes any signature on this graph callable.

        Args:
            signature_def: A `SignatureDef` that names tensors of the graph.
            name: What errors call it. With the name `"train"`, or the method name
                `"tensorflow/supervised/training"`, it runs the train op of the graph.

        Returns:
            A callable from inputs to outputs.

        Example:
            ```python
            info = tf.compat.v1.saved_model.build_tensor_info
            signature_def.outputs["hidden"].name = "hidden/Relu:0"
            model.meta_graph.callable(signature_def)(x=x)["hidden"]
            ```
        """
        trains = name == "train" or signature_def.method_name == TRAINING_METHOD
        train_op = train_ops(self.meta_graph_def) if trains else []
        constants = {
            tensor: values[not train_op]
            for tensor, values in self.interface.training_values.items()
            if self._is_fed(tensor)
        }
        return LoadedSignature(name, signature_def, self.executor, constants, train_op)

    def _is_fed(self, tensor: str) -> bool:
        """Whether a flag is fed to signatures: a session takes defaults by itself."""
        node = self.graph.nodes.get(TensorName.parse(tensor).node)
        training, otherwise = self.interface.training_values[tensor]
        constant = training == otherwise
        return node is not None and (constant or node.op != "PlaceholderWithDefault")

    def run(self, fetches: Any, feeds: Mapping[str, Any] | None = None) -> Any:
        """Runs tensors and operations of the graph, as `Session.run` did.

        Args:
            fetches: A tensor name, an operation name, or a nested structure of them.
            feeds: Values by tensor name. Training flags that are not fed have their
                defaults, as in a session; those without a default their value for
                inference, or for training where an operation that trains is run.

        Returns:
            Arrays in the structure of `fetches`; `None` for operations.

        Raises:
            SignatureError: If a name is unknown, or a placeholder is not fed.

        Example:
            ```python
            loss = model.meta_graph.run("loss:0", {"x:0": x, "y:0": y})
            ```
        """
        given = {str(TensorName.parse(k)): v for k, v in (feeds or {}).items()}
        flags = {
            tensor: pair
            for tensor, pair in self.interface.training_values.items()
            if tensor not in given and self._is_fed(tensor)
        }
        trains = bool(flags) and self._trains(fetches)
        values = {tensor: pair[not trains] for tensor, pair in flags.items()}
        return self.executor.run(fetches, values | given)

    def _trains(self, fetches: Any) -> bool:
        """Whether updates of trained variables are among what is run."""
        names = (TensorName.parse(str(name)).node for name in tf.nest.flatten(fetches))
        return not self._training_nodes.isdisjoint(names)

    @functools.cached_property
    def _training_nodes(self) -> frozenset[str]:
        """The nodes that run updates of trained variables."""
        analysis = GraphAnalysis(self.graph, self._all_variables)
        return frozenset(analysis.reach(Training(analysis).updates, control=True))

    def fetch(self, *tensors: str, inputs: Mapping[str, str] | None = None) -> Any:
        """A Keras model from inputs of the graph to any of its tensors.

        The model shares its weights with the loaded one.

        Args:
            *tensors: Tensor names such as `"block3/Relu:0"`.
            inputs: Tensor names by input name; by default those of the model's inputs
                and labels that the tensors need.

        Returns:
            A functional model. It takes a dict, or the array if one input was found;
            it gives the tensor if one is fetched, else a dict by tensor name.

        Raises:
            SignatureError: If a name is not in the graph.

        Example:
            ```python
            features = model.meta_graph.fetch("block3/Relu:0").predict(x)
            ```
        """
        names = [str(TensorName.parse(tensor)) for tensor in tensors]
        self._require(names)
        given, inputs = inputs, inputs or self._needed_inputs(names)
        island = Island(
            self.graph,
            inputs=inputs,
            outputs={name: name for name in names},
            variables=[],
            training_values=self.interface.training_values,
            weights_from=self.variables,
        )
        symbols = symbolic_inputs(self.graph, inputs)
        outputs = island(symbols)
        single = given is None and len(symbols) == 1
        return keras.Model(
            next(iter(symbols.values())) if single else symbols,
            outputs if len(names) > 1 else outputs[names[0]],
            name="fetch",
        )

    def _needed_inputs(self, names: list[str]) -> dict[str, str]:
        """The inputs and labels, and other placeholders, that some tensors need."""
        known = {**self.interface.inputs, **self.interface.labels}
        fed = {TensorName.parse(tensor): key for key, tensor in known.items()}
        given = self.interface.training_values
        roots = [TensorName.parse(name) for name in names]
        stops = fed.keys() | {TensorName.parse(name) for name in given}
        nodes, used = cone(self.graph, roots, set(stops))
        needed = {fed[tensor]: str(tensor) for tensor in sorted(used & fed.keys())}
        needed |= {fed[root]: str(root) for root in roots if root in fed}
        for name in sorted(nodes):
            if self.graph.nodes[name].op in ("Placeholder", "PlaceholderV2"):
                needed[name.replace("/", "_")] = f"{name}:0"
        return needed

    def _require(self, names: list[str]) -> None:
        unknown = [
            f"{name}{nearest(TensorName.parse(name).node, self.graph.nodes)}"
            for name in names
            if TensorName.parse(name).node not in self.graph.nodes
        ]
        if unknown:
            raise SignatureError(
                "The graph has no such tensors:",
                findings=unknown,
                fix="take names that inspect_meta_graph lists.",
            )


def _members(name: str, collection: Any) -> list[Any]:
    """The members of a `CollectionDef` as plain values (TF `meta_graph.proto`)."""
    kind = collection.WhichOneof("kind")
    if kind is None:
        return []
    values = list(getattr(collection, kind).value)
    if kind != "bytes_list" or not name.endswith(("variables", "global_step")):
        return values
    try:
        protos = [variable_pb2.VariableDef.FromString(value) for value in values]
    except message.DecodeError:
        return values
    return [proto.variable_name for proto in protos]
