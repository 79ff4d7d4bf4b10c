"""Lays traced graphs side by side into one flat graph.

What a trace captured from outside becomes a node that TensorFlow 1 has a name for:
variables, lookup tables, constants. All traces share them, and the placeholders.
"""

import dataclasses
import re
from collections import deque
from collections.abc import Iterable, Mapping
from typing import Any

from keras_metagraph.export.effects import side_effects
from keras_metagraph.export.scopes import layer_of, plain_names
from keras_metagraph.export.trace import Trace, TracedOutput
from keras_metagraph.graph.ir import Function, Graph, Node, TensorName
from keras_metagraph.graph.to_proto import attr_functions, called_functions

_NOT_IN_FUNCTION_NAMES = re.compile(r">\d+|\W")
_SERIAL_NUMBERS = re.compile(r"_\d+(?=_|$)")


@dataclasses.dataclass(frozen=True, slots=True)
class Placed:
    """Where the parts of a trace are in the flat graph.

    Attributes:
        outputs: Its outputs, flat, with the new names of their tensors.
        loss: The batch loss, if there is one.
        learning_rate: The learning rate, of a train step.
        effects: Names of the nodes to run for its side effects.
        layers: The layer's scope of each node that came with it.
    """

    outputs: tuple[TracedOutput, ...]
    loss: TracedOutput | None
    learning_rate: TracedOutput | None
    effects: list[str]
    layers: dict[str, str]


def place_trace(
    graph: Graph,
    trace: Trace,
    *,
    prefix: str,
    model_name: str,
    arguments: Iterable[TensorName],
    captures: Mapping[str, TensorName],
) -> Placed:
    """Adds a traced graph to the flat one.

    Args:
        graph: The flat graph, which has the variables and placeholders already.
        trace: What to add; its nodes are taken over.
        prefix: Scope of the new nodes: `""`, `"eval/"` or `"train/"`.
        model_name: Name of the model; its scope is left out.
        arguments: Tensors to take for the trace's placeholders, in order.
        captures: Tensors to take for its captures, by placeholder.

    Returns:
        Where to find the trace's outputs.
    """
    source = trace.graph
    bound = dict(zip(trace.arguments, arguments, strict=True)) | dict(captures)
    effects = side_effects(source, trace.effects)
    further = [out for out in (trace.loss, trace.learning_rate) if out is not None]
    returned = [*trace.outputs, *further]
    roots = {TensorName.parse(name).node for out in returned for name in out.tensors}
    wanted = source.ancestors([*roots, *effects], stop=bound)
    kept = [name for name in source.nodes if name in wanted and name not in bound]
    taken = {name.lower() for name in graph.nodes}
    names = plain_names(kept, model_name, prefix, taken)
    functions = _take_functions(graph, source, kept, prefix)

    def moved(tensor: TensorName) -> TensorName:
        if tensor.node in bound:
            return bound[tensor.node]
        return TensorName(names[tensor.node], tensor.index)

    for name in kept:
        node = source.nodes[name]
        node.name = names[name]
        node.inputs = [moved(tensor) for tensor in node.inputs]
        node.control_inputs = [names[c] for c in node.control_inputs if c in names]
        _rename_functions(node, functions)
        graph.add(node)

    def placed(output: TracedOutput) -> TracedOutput:
        tensors = (str(moved(TensorName.parse(name))) for name in output.tensors)
        return dataclasses.replace(output, tensors=tuple(tensors))

    return Placed(
        outputs=tuple(placed(output) for output in trace.outputs),
        loss=placed(trace.loss) if trace.loss else None,
        learning_rate=placed(trace.learning_rate) if trace.learning_rate else None,
        effects=[names[name] for name in effects if name in names],
        layers={names[name]: layer_of(name, model_name) for name in kept},
    )


def _take_functions(
    graph: Graph, source: Graph, kept: list[str], prefix: str
) -> dict[str, str]:
    """Moves the functions that the kept nodes call; returns their new names."""
    scope = prefix.rstrip("/") or "predict"
    renamed: dict[str, str] = {}
    for name in _called_in_order(source, kept):
        base = _NOT_IN_FUNCTION_NAMES.sub("", name.removeprefix("__inference_"))
        base = candidate = f"{scope}_{_SERIAL_NUMBERS.sub('', base)}"
        count = 0
        while candidate in graph.functions:
            count += 1
            candidate = f"{base}_{count}"
        renamed[name] = candidate
        graph.functions[candidate] = source.functions[name]
    for name, new_name in renamed.items():
        _rename_function(source.functions[name], new_name, renamed, graph)
    return renamed


def _called_in_order(source: Graph, kept: list[str]) -> list[str]:
    """Names of the functions that nodes need, callers before what they call.

    The library of a trace has them in another order each time.
    """
    found: dict[str, None] = {}
    queue = deque([[source.nodes[name] for name in kept]])
    while queue:
        for node in queue.popleft():
            for name in sorted(set(called_functions([node], source.functions))):
                if name not in found:
                    found[name] = None
                    queue.append(list(source.functions[name].graph.nodes.values()))
    return list(found)


def _rename_function(
    function: Function, name: str, renamed: Mapping[str, str], graph: Graph
) -> None:
    """Gives a function, those that it calls and the nodes in it their new names."""
    function.name = name
    # Notes of the newer TensorFlow: kernels in 1.15 take what the signature says.
    function.header, function.gradient, function.attrs = None, "", {}
    body = function.graph
    names = plain_names(body.nodes, "", "", set())
    nodes = list(body.nodes.values())
    body.functions = graph.functions
    body.nodes.clear()
    for node in nodes:
        node.name = names[node.name]
        node.inputs = [TensorName(names[t.node], t.index) for t in node.inputs]
        node.control_inputs = [names[c] for c in node.control_inputs]
        _rename_functions(node, renamed)
        body.add(node)
    function.arguments = [names[argument] for argument in function.arguments]
    function.results = [TensorName(names[t.node], t.index) for t in function.results]
    function.control_results = [names[c] for c in function.control_results]


def _rename_functions(node: Node, renamed: Mapping[str, str]) -> None:
    """Renames the functions that a node calls, in a copy of its attributes."""
    for key, value in node.attrs.items():
        if any(name in renamed for name in attr_functions(value)):
            node.attrs[key] = _renamed_value(value, renamed)


def _renamed_value(value: Any, renamed: Mapping[str, str]) -> Any:
    copy = type(value)()
    copy.CopyFrom(value)
    for func in [copy.func] if copy.HasField("func") else copy.list.func:
        func.name = renamed.get(func.name, func.name)
    return copy
