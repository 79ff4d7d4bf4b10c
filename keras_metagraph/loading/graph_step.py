"""A training step of Keras on a loss that the graph computes."""

from collections.abc import Mapping, Sequence
from typing import Any

import tensorflow as tf

from keras_metagraph.graph.ir import Graph, Node, TensorName
from keras_metagraph.graph.variables import graph_variables
from keras_metagraph.layers.island import Island
from keras_metagraph.loading.infer.analysis import GraphAnalysis
from keras_metagraph.loading.infer.updates import Training
from keras_metagraph.loading.meta_graph import LoadedMetaGraph
from keras_metagraph.session.executor import SessionExecutor
from keras_metagraph.training.graph_loss import LossStep

_LOSS = "keras_metagraph/loss"


class GraphStep:
    """What a graph does in a training step around the update of the weights.

    Keras differentiates the loss and updates the trained variables and their slots.
    The rest of what the train op does stays the graph's own: what it writes on the way
    (moving averages of batch normalization) runs with the loss; what it writes after
    the update (step counters, averages of the weights) runs when the weights are new.

    Args:
        meta_graph: The graph, with the model's variables.
        step: The loss, the variables that it trains, and the train op.
    """

    def __init__(self, meta_graph: LoadedMetaGraph, step: LossStep) -> None:
        interface = meta_graph.interface
        tensors = (*interface.inputs.values(), *interface.labels.values())
        parts = _Parts(meta_graph, step, tensors)
        self.step = step
        self.variables = [meta_graph.variables[name] for name in step.variables]
        self._losses = {
            f"{_LOSS}/{place}": loss for place, (loss, _) in enumerate(step.gradients)
        }
        self._trained = [
            [meta_graph.variables[name] for name in names]
            for _, names in step.gradients
        ]
        self._fed = tensors
        self._island = Island(
            meta_graph.graph,
            inputs={tensor: tensor for tensor in tensors},
            outputs={**interface.outputs, _LOSS: step.loss, **self._losses},
            updates=parts.on_the_way,
            training_values=interface.training_values,
            weights_from=meta_graph.variables,
        )
        self._rest = SessionExecutor(
            parts.rest(),
            {name: variable.value for name, variable in meta_graph.variables.items()},
        )

    def run(self, optimizer: Any, feeds: Mapping[str, Any]) -> tuple[Any, Any]:
        """Takes one step.

        Args:
            optimizer: The Keras optimizer.
            feeds: Values by tensor name.

        Returns:
            The loss before the update, and the outputs by name.
        """
        values = [variable.value for variable in self.variables]
        with tf.GradientTape(
            persistent=len(self._losses) > 1, watch_accessed_variables=False
        ) as tape:
            tape.watch(values)
            inputs = {tensor: feeds[tensor] for tensor in self._fed}
            outputs = self._island(inputs, training=True)
            loss = outputs.pop(_LOSS)
            # As `tf.gradients` differentiates: the sum, where the loss is no scalar.
            totals = [
                optimizer.scale_loss(tf.reduce_sum(outputs.pop(key)))
                for key in self._losses
            ]
        optimizer.apply(self._gradients(tape, totals), self.variables)
        if self.step.operations:
            run = self._rest.function(list(self.step.operations), list(feeds))
            run(list(feeds.values()))
        return loss, outputs

    def _gradients(self, tape: Any, losses: Sequence[Any]) -> list[Any]:
        """The gradient of each variable, by the losses that train it."""
        found: dict[str, list[Any]] = {variable.path: [] for variable in self.variables}
        for loss, trained in zip(losses, self._trained, strict=True):
            gradients = tape.gradient(loss, [variable.value for variable in trained])
            for variable, gradient in zip(trained, gradients, strict=True):
                if gradient is not None:
                    found[variable.path].append(gradient)
        return [_sum(gradients) for gradients in found.values()]


def _sum(gradients: Sequence[Any]) -> Any:
    """The sum of gradients, dense or not; `None` of none."""
    return tf.add_n(gradients) if len(gradients) > 1 else next(iter(gradients), None)


class _Parts:
    """Which nodes of a train op run with the loss, and which after the update."""

    def __init__(
        self, meta_graph: LoadedMetaGraph, step: LossStep, fed: Sequence[str]
    ) -> None:
        self._graph = meta_graph.graph
        variables = graph_variables(meta_graph.meta_graph_def, self._graph)
        analysis = GraphAnalysis(self._graph, variables)
        self._after_gradients = Training(analysis).after
        run = analysis.ancestors(TensorName(name) for name in step.operations)
        updates = analysis.writes.keys() & run & self._after_gradients
        late = analysis.reach(updates, control=True)
        following = analysis.reach(
            user.name
            for tensor in fed
            for user in analysis.tensor_users.get(TensorName.parse(tensor), [])
        )
        # What follows the data, but not the gradients.
        self.on_the_way = [
            name
            for name in analysis.writes
            if name in run & following and name not in self._after_gradients | late
        ]
        # Weight decay, which the optimizer does before its update.
        before = analysis.ancestors(TensorName(name) for name in updates)
        decays = {n for n in before if analysis.writes.get(n) in step.variables}
        self._done = self._after_gradients | analysis.reach(self.on_the_way) | decays

    def rest(self) -> Graph:
        """The graph without what Keras and the loss have done already."""
        nodes = {
            name: Node(name, "NoOp") if name in self._done else node
            for name, node in self._graph.nodes.items()
        }
        return Graph(nodes, self._graph.functions, self._graph.producer)
