"""One flat graph of everything that is exported of a model."""

import dataclasses
from collections.abc import Sequence
from typing import Any

from keras_metagraph.export.captures import bind_captures, copies_of
from keras_metagraph.export.downgrade import (
    downgrade,
    explain,
    keep_functional,
    strip_notes,
)
from keras_metagraph.export.flatten import Placed, place_trace
from keras_metagraph.export.names import (
    NamedVariable,
    handles_of,
    is_global_step,
    node_name,
)
from keras_metagraph.export.op_list import strip_default_attributes
from keras_metagraph.export.options import ExportOptions
from keras_metagraph.export.outputs import (
    Outputs,
    learning_rate,
    predict_outputs,
    step_outputs,
)
from keras_metagraph.export.placeholders import add_placeholders, placeholder_tensors
from keras_metagraph.export.replicas import clear_placements, drop_copies
from keras_metagraph.export.saver import add_group
from keras_metagraph.export.supervised import (
    METRIC_VALUES,
    metric_values,
    prediction_outputs,
    read_before,
    supervised_outputs,
)
from keras_metagraph.export.tables import AddedTable
from keras_metagraph.export.trace import TracedOutput
from keras_metagraph.export.tracing import TracedGraph, is_of_estimator
from keras_metagraph.export.variables import VariableNodes, add_variable
from keras_metagraph.graph.ir import Graph

_RUN = {
    "train": "train/train_op",
    "eval": "eval/update_op",
    "main_op": "main_op/run",
}


@dataclasses.dataclass(frozen=True, slots=True)
class PlacedGraph:
    """A traced graph in the flat one.

    Attributes:
        traced: What it was made of.
        outputs: What it gives, by key.
        run: Name of the operation that takes the step, for train and eval.
        learning_rate: The learning rate of the next step, for train.
        further: What its signature in a SavedModel gives besides.
    """

    traced: TracedGraph
    outputs: Outputs
    run: str | None
    learning_rate: TracedOutput | None = None
    further: Outputs = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True, slots=True)
class FlatModel:
    """The flat graph of a model.

    Attributes:
        graph: The graph.
        variables: The variables in it.
        graphs: The traced graphs in it.
        tables: Its lookup tables.
        unsupported: What the TensorFlow that it is for cannot run, a line each.
    """

    graph: Graph
    variables: list[VariableNodes]
    graphs: list[PlacedGraph]
    tables: list[AddedTable]
    unsupported: list[str]


def flatten_model(
    model: Any,
    traced: Sequence[TracedGraph],
    variables: Sequence[NamedVariable],
    options: ExportOptions,
) -> FlatModel:
    """Puts traced graphs and the variables they need into one graph.

    Args:
        model: The model.
        traced: Its traced graphs.
        variables: All variables that it has or uses.
        options: What to export.

    Returns:
        The graph, in the ops of the TensorFlow that it is for.
    """
    graph = Graph()
    for each in traced:
        for structure in each.arguments:
            add_placeholders(graph, structure)
    needed = [v for v in variables if _is_needed(v, traced, options)]
    nodes = [add_variable(graph, variable) for variable in needed]
    traces = [each.trace for each in traced]
    copies = copies_of(variable.variable for variable in needed)
    for trace in traces:
        others = [name for name, handle in trace.captures if id(handle) in copies]
        if others:
            drop_copies(trace.graph, others)
    bound = bind_captures(
        graph,
        traces,
        needed,
        model.name,
        tables_in_files=options.saved_model is not None,
    )
    graphs, placements, layers = [], [], {}
    for each in traced:
        if each.kind not in _RUN:
            keep_functional(each.trace.graph)
        placed = place_trace(
            graph,
            each.trace,
            prefix=f"{node_name(each.key)}/" if each.key else "",
            model_name=model.name,
            arguments=[t for s in each.arguments for t in placeholder_tensors(s)],
            captures=bound.of(each.trace),
        )
        layers.update(placed.layers)
        placements.append(placed)
        graphs.append(_with_outputs(graph, model, each, placed))
        graph.producer = max(graph.producer, each.trace.graph.producer)
    graphs = _with_metrics(graph, model, graphs, placements)
    if any(len(list(handles_of(v.variable))) > 1 for v in needed):
        clear_placements(graph)
    unsupported = downgrade(graph) if options.target is not None else []
    strip_notes(graph)
    if options.clear_devices:
        _clear_devices(graph)
    if options.strip_default_attrs:
        strip_default_attributes(graph)
    return FlatModel(graph, nodes, graphs, bound.tables, explain(unsupported, layers))


def _is_needed(
    variable: NamedVariable, traced: Sequence[TracedGraph], options: ExportOptions
) -> bool:
    """Whether a variable belongs into the graph, with these graphs in it."""
    if variable.role in ("weight", "seed"):
        return True
    if is_of_estimator(options) and is_global_step(variable.name, variable.role):
        return True  # Estimator's graphs that predict have it, too.
    kinds = {each.kind for each in traced}
    if variable.role == "metric" and kinds & {"train", "eval"}:
        return True
    if variable.role in ("optimizer", "derived") and "train" in kinds:
        return True
    used = {id(external) for each in traced for _, external in each.trace.captures}
    return any(id(handle) in used for handle in handles_of(variable.variable))


def _with_outputs(
    graph: Graph, model: Any, traced: TracedGraph, placed: Placed
) -> PlacedGraph:
    """Names what a placed graph gives, and the operation that takes its step."""
    if traced.kind not in _RUN:
        if traced.kind == METRIC_VALUES:
            return PlacedGraph(traced, metric_values(graph, placed), None)
        names = list(getattr(model, "output_names", ())) if not traced.key else []
        return PlacedGraph(traced, predict_outputs(graph, names, placed), None)
    outputs = step_outputs(graph, traced.key, placed)
    rate = learning_rate(graph, traced.key, placed)
    run = add_group(graph, _RUN[traced.kind], placed.effects)
    return PlacedGraph(traced, outputs, run, rate)


def _with_metrics(
    graph: Graph, model: Any, graphs: list[PlacedGraph], placements: list[Placed]
) -> list[PlacedGraph]:
    """Gives the steps of a SavedModel the values of the metrics, apart from updates."""
    values = next((g.outputs for g in graphs if g.traced.kind == METRIC_VALUES), None)
    if values is None:
        return graphs
    found = []
    for each, placed in zip(graphs, placements, strict=True):
        if each.run is not None and each.traced.kind != "main_op":
            read_before(graph, values, placed.effects)
            further = supervised_outputs(
                graph, each.traced.key, placed, each.outputs, values
            )
            names = list(getattr(model, "output_names", ()))
            further |= prediction_outputs(placed, names)
            each = dataclasses.replace(each, further=further)
        found.append(each)
    return found


def _clear_devices(graph: Graph) -> None:
    for body in (graph, *(function.graph for function in graph.functions.values())):
        for node in body.nodes.values():
            node.device = ""
