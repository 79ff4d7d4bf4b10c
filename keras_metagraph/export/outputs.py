"""What the graphs give: keys for outputs, losses and metrics."""

import dataclasses
from collections.abc import Sequence
from typing import Any

from keras_metagraph.export.flatten import Placed
from keras_metagraph.export.names import node_name
from keras_metagraph.export.nodes import make_node
from keras_metagraph.export.trace import PREDICTIONS, TracedOutput
from keras_metagraph.graph.ir import Graph, TensorName

Outputs = dict[str, TracedOutput]


def predict_outputs(graph: Graph, names: Sequence[str], placed: Placed) -> Outputs:
    """Gives the outputs of a call keys: dict key, output name or place.

    Where predicting changes state, the outputs are read behind the change.

    Args:
        graph: The flat graph.
        names: Names of the outputs, if they have any.
        placed: The graph of the call.

    Returns:
        The outputs by key.
    """
    keys = output_keys([output.path for output in placed.outputs], names)
    outputs: Outputs = {}
    for key, output in zip(keys, placed.outputs, strict=True):
        if placed.effects or _is_fed(graph, output):
            output = renamed(graph, output, f"output/{key}", placed.effects)
        outputs[key] = output
    return outputs


def _is_fed(graph: Graph, output: TracedOutput) -> bool:
    """Whether an output is an input: a session in C++ refuses to fetch what it fed."""
    nodes = (graph.nodes[TensorName.parse(name).node] for name in output.tensors)
    return any(node.op == "Placeholder" for node in nodes)


def output_keys(paths: Sequence[tuple[Any, ...]], names: Sequence[str]) -> list[str]:
    """Keys for what a function returns: dict key, output name or place.

    Args:
        paths: Keys and places on the way to each output.
        names: Names of the outputs, if they have any.

    Returns:
        A key for each.

    Example:
        >>> output_keys([("a", 0), ("a", 1)], []), output_keys([()], [])
        (['a_0', 'a_1'], ['output'])
    """
    keys = []
    for place, path in enumerate(paths):
        if any(isinstance(part, str) for part in path):
            keys.append("_".join(str(part) for part in path))
        elif len(names) == len(paths):
            keys.append(names[place])
        else:
            keys.append("output" if len(paths) == 1 else f"output_{place}")
    return keys


def step_outputs(graph: Graph, scope: str, placed: Placed) -> Outputs:
    """Names loss and metrics of a step: `train/loss`, `train/metrics/accuracy`.

    Args:
        graph: The flat graph; an `Identity` is added for each.
        scope: `"train"` or `"eval"`.
        placed: The step's graph.

    Returns:
        `loss`, the loss of the batch, if the step has one, and the metrics.
    """
    outputs: Outputs = {}
    if placed.loss is not None:
        outputs["loss"] = renamed(graph, placed.loss, f"{scope}/loss")
    for output in placed.outputs:
        if is_prediction(output):
            continue
        key = "_".join(str(part) for part in output.path) or "output"
        # The log called loss is the running mean of what `loss` is.
        if key not in outputs and len(output.tensors) == 1:
            outputs[key] = renamed(graph, output, f"{scope}/metrics/{key}")
    return outputs


def learning_rate(graph: Graph, scope: str, placed: Placed) -> TracedOutput | None:
    """Names the learning rate of a step: `train/learning_rate`."""
    if placed.learning_rate is None:
        return None
    return renamed(graph, placed.learning_rate, f"{scope}/learning_rate")


def is_prediction(output: TracedOutput) -> bool:
    """Whether a step gives a prediction, and no log."""
    return output.path[:1] == (PREDICTIONS,)


def renamed(
    graph: Graph, output: TracedOutput, name: str, control: list[str] | None = None
) -> TracedOutput:
    """The output under another name, and after some nodes."""
    tensors = []
    for tensor, spec in zip(output.tensors, output.part_specs, strict=True):
        unique = graph.unique_name(node_name(name))
        graph.add(make_node(unique, "Identity", [tensor], control or (), T=spec.dtype))
        tensors.append(f"{unique}:0")
    return dataclasses.replace(output, tensors=tuple(tensors))
