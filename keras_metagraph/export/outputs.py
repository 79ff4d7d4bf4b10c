"""What the graphs give: keys for outputs, losses and metrics."""

import dataclasses
from collections.abc import Sequence

from keras_metagraph.export.flatten import Placed
from keras_metagraph.export.names import node_name
from keras_metagraph.export.nodes import make_node
from keras_metagraph.export.trace import TracedOutput
from keras_metagraph.graph.ir import Graph

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
    outputs: Outputs = {}
    for place, output in enumerate(placed.outputs):
        if any(isinstance(part, str) for part in output.path):
            key = "_".join(str(part) for part in output.path)
        elif len(names) == len(placed.outputs):
            key = names[place]
        else:
            key = "output" if len(placed.outputs) == 1 else f"output_{place}"
        if placed.effects:
            output = _renamed(graph, output, f"output/{key}", placed.effects)
        outputs[key] = output
    return outputs


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
        outputs["loss"] = _renamed(graph, placed.loss, f"{scope}/loss")
    for output in placed.outputs:
        key = "_".join(str(part) for part in output.path) or "output"
        # The log called loss is the running mean of what `loss` is.
        if key not in outputs and len(output.tensors) == 1:
            outputs[key] = _renamed(graph, output, f"{scope}/metrics/{key}")
    return outputs


def learning_rate(graph: Graph, scope: str, placed: Placed) -> TracedOutput | None:
    """Names the learning rate of a step: `train/learning_rate`."""
    if placed.learning_rate is None:
        return None
    return _renamed(graph, placed.learning_rate, f"{scope}/learning_rate")


def _renamed(
    graph: Graph, output: TracedOutput, name: str, control: list[str] | None = None
) -> TracedOutput:
    """The output under another name, and after some nodes."""
    tensors = []
    for tensor, spec in zip(output.tensors, output.part_specs, strict=True):
        unique = graph.unique_name(node_name(name))
        graph.add(make_node(unique, "Identity", [tensor], control or (), T=spec.dtype))
        tensors.append(f"{unique}:0")
    return dataclasses.replace(output, tensors=tuple(tensors))
