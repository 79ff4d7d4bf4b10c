"""Steps in SavedModels: each metric as a value to read and an update that runs.

The keys are those of Estimator (`_SupervisedOutput` of TF estimator/export).
"""

from collections.abc import Mapping
from typing import Any

import tensorflow as tf

from keras_metagraph.export.flatten import Placed
from keras_metagraph.export.outputs import (
    Outputs,
    is_prediction,
    output_keys,
    renamed,
)
from keras_metagraph.export.trace import TracedOutput, trace_function
from keras_metagraph.export.tracing import TracedGraph
from keras_metagraph.graph.ir import Graph, TensorName

METRIC_VALUES = "metric_values"


def trace_metric_values(model: Any) -> TracedGraph:
    """Traces the reading of a model's metrics, which updates none of them."""
    function = tf.function(model.get_metrics_result, input_signature=[])
    _, trace = trace_function(function, "the metrics")
    return TracedGraph(METRIC_VALUES, METRIC_VALUES, trace, (), {})


def metric_values(graph: Graph, placed: Placed) -> Outputs:
    """Names the values of the metrics: `metrics/accuracy/value`."""
    values = {_key(output): output for output in placed.outputs}
    return {
        key: renamed(graph, output, f"metrics/{key}/value")
        for key, output in values.items()
    }


def supervised_outputs(
    graph: Graph,
    scope: str,
    placed: Placed,
    outputs: Mapping[str, TracedOutput],
    values: Mapping[str, TracedOutput],
) -> Outputs:
    """What the signature of a step gives besides its loss.

    Args:
        graph: The flat graph.
        scope: `"train"` or `"eval"`.
        placed: The step's graph.
        outputs: Its outputs as they are named already.
        values: The values of the metrics.

    Returns:
        `metrics/<name>/value`, which is that of before the step; and with the step
        taken `metrics/<name>/update_op`, and `predictions/<name>` if they were traced.
    """
    logs = [output for output in placed.outputs if not is_prediction(output)]
    found = {f"metrics/{key}/value": value for key, value in values.items()}
    for output in logs:
        key = _key(output)
        # The log called loss is the running mean of what the output of that name is.
        if key in outputs and (key != "loss" or placed.loss is None):
            found[f"metrics/{key}/update_op"] = outputs[key]
        elif len(output.tensors) == 1:
            name = f"{scope}/metrics/{key}"
            found[f"metrics/{key}/update_op"] = renamed(graph, output, name)
    return found


def prediction_outputs(placed: Placed, names: list[str]) -> Outputs:
    """The predictions of a step, by key: `predictions/<name>`."""
    predictions = [output for output in placed.outputs if is_prediction(output)]
    keys = output_keys([output.path[1:] for output in predictions], names)
    return {
        f"predictions/{key}": output
        for key, output in zip(keys, predictions, strict=True)
    }


def read_before(graph: Graph, values: Outputs, effects: list[str]) -> None:
    """Lets the values of metrics be read before the effects of a step.

    Else it were left to chance whether a run that fetches both reads before or after.
    """
    reads = [TensorName.parse(t).node for out in values.values() for t in out.tensors]
    for name in effects:
        node = graph.nodes[name]
        node.control_inputs += [
            read for read in reads if read not in node.control_inputs
        ]


def _key(output: TracedOutput) -> str:
    return "_".join(str(part) for part in output.path) or "output"
