"""Reduces the trace of a distributed model to its first replica.

Under `tf.distribute` a variable has a copy a replica, and a step that is traced outside
of the replicas updates every copy. The exported graph has one variable, which must be
updated once: changes of the other copies go, and reads of them become reads of the
first.
"""

from collections import deque
from collections.abc import Iterable

from keras_metagraph.export.effects import has_effect
from keras_metagraph.graph.ir import Graph, Node
from keras_metagraph.graph.to_proto import called_functions

_PLACED = "/job:"


def drop_copies(graph: Graph, copies: Iterable[str]) -> None:
    """Removes what changes copies of variables, in the graph and in its functions.

    Args:
        graph: A traced graph, without calls; changed in place.
        copies: Placeholders that stand for copies on other replicas than the first.
    """
    seen: set[tuple[str, str]] = set()
    queue = deque([(graph, set(copies))])
    while queue:
        body, handles = queue.popleft()
        dropped = set()
        for node in list(body.nodes.values()):
            taken = [place for place, t in enumerate(node.inputs) if t.node in handles]
            functions = list(called_functions([node], graph.functions))
            if taken and functions:
                queue.extend(_inside(graph, node, taken, functions, seen))
            elif taken and has_effect(node, graph.functions):
                dropped.add(node.name)
                del body.nodes[node.name]
        for node in body.nodes.values():
            node.control_inputs = [c for c in node.control_inputs if c not in dropped]
        for function in graph.functions.values():
            if function.graph is body:
                function.control_results = [
                    name for name in function.control_results if name not in dropped
                ]


def clear_placements(graph: Graph) -> None:
    """Removes devices of one job and replica, which a strategy put there."""
    for body in (graph, *(function.graph for function in graph.functions.values())):
        for node in body.nodes.values():
            if node.device.startswith(_PLACED):
                node.device = ""


def _inside(
    graph: Graph,
    node: Node,
    places: list[int],
    functions: list[str],
    seen: set[tuple[str, str]],
) -> list[tuple[Graph, set[str]]]:
    """The bodies that a node calls, with the arguments that are copies there."""
    found = []
    for name in functions:
        function = graph.functions[name]
        # `If` and `Case` hand on what comes after the predicate.
        skipped = len(node.inputs) - len(function.arguments)
        arguments = {function.arguments[p - skipped] for p in places if p >= skipped}
        new = {a for a in arguments if (name, a) not in seen}
        seen.update((name, argument) for argument in new)
        if new:
            found.append((function.graph, new))
    return found
