"""Gives a graph its structure: calls, `If` and `While` nodes, no v1 control flow."""

import dataclasses
from collections import deque
from collections.abc import Iterable

from keras_metagraph.graph.ir import Function, Graph
from keras_metagraph.graph.passes.fold_conditions import fold_conditions
from keras_metagraph.graph.passes.functionalize_cond import functionalize_cond
from keras_metagraph.graph.passes.functionalize_while import functionalize_while
from keras_metagraph.graph.to_proto import called_functions


def prune(graph: Graph, roots: Iterable[str]) -> Graph:
    """The part of a graph that some nodes need."""
    return graph.subgraph(graph.ancestors(roots))


def structure(
    graph: Graph, fetches: Iterable[str] = (), targets: Iterable[str] = ()
) -> Graph:
    """Structures a graph and all functions that it can call.

    Args:
        graph: A graph without references.
        fetches: Names of nodes whose tensors are fetched.
        targets: Names of operations that are run for their effect.

    Returns:
        The part that fetches and targets need.

    Raises:
        PassError: If the control flow is not what TensorFlow 1's Python API makes.
    """
    fetches, targets = list(fetches), list(targets)
    graph = prune(graph, [*fetches, *targets])
    graph = functionalize_while(graph).graph  # its loops are then single nodes,
    graph = functionalize_cond(graph, fetches, targets).graph  # in branches or not
    graph = prune(graph, [*fetches, *targets])
    library = dict(graph.functions)
    queue = deque(called_functions(graph.nodes.values(), library))
    structured: dict[str, Function] = {}
    while queue:
        name = queue.popleft()
        if name not in structured:
            structured[name] = _structure_body(library, library[name])
            body = structured[name].graph
            queue.extend(called_functions(body.nodes.values(), library))
    for function in structured.values():
        function.graph.functions = structured
    return Graph(graph.nodes, structured, graph.producer)


def _structure_body(library: dict[str, Function], function: Function) -> Function:
    """Structures one function; what its body calls is added to the library."""
    results = [tensor.node for tensor in function.results]
    roots = [*results, *function.control_results, *function.arguments]
    body = Graph(function.graph.nodes, library, function.graph.producer)
    body = prune(fold_conditions(body).graph, roots)
    body = functionalize_while(body).graph
    body = functionalize_cond(body, results, function.control_results).graph
    library.update(body.functions)
    return dataclasses.replace(function, graph=prune(body, roots))
