"""Orders the nodes of a graph for whoever goes through it.

All of it is iterative: real graphs have tens of thousands of nodes in a row.
"""

import heapq
from collections.abc import Callable, Iterable, Iterator

from keras_metagraph.errors import PassError
from keras_metagraph.graph.ir import Graph, Node

BACK_EDGES = frozenset({"NextIteration", "RefNextIteration"})
"""Ops whose output closes a v1 while loop."""


def schedule(
    graph: Graph, roots: Iterable[str] | None = None, *, loops: bool = False
) -> list[Node]:
    """The nodes that `roots` need, each after all that it waits for.

    Args:
        graph: The graph.
        roots: Names of nodes; by default all.
        loops: Whether v1 while loops are allowed; what closes a loop is then not
            waited for.

    Returns:
        Nodes, in the graph's own order wherever that is free.

    Raises:
        PassError: If nodes wait for each other.
    """
    wanted = set(graph.nodes) if roots is None else graph.ancestors(roots)
    names = [name for name in graph.nodes if name in wanted]
    places = {name: place for place, name in enumerate(names)}
    waiting: dict[str, int] = {}
    users: dict[str, list[str]] = {name: [] for name in names}
    for name in names:
        before = [
            other
            for other in set(graph.nodes[name].predecessors())
            if other in places and not (loops and graph.nodes[other].op in BACK_EDGES)
        ]
        waiting[name] = len(before)
        for other in before:
            users[other].append(name)
    ready = [places[name] for name, count in waiting.items() if not count]
    heapq.heapify(ready)
    order: list[Node] = []
    while ready:
        name = names[heapq.heappop(ready)]
        order.append(graph.nodes[name])
        for user in users[name]:
            waiting[user] -= 1
            if not waiting[user]:
                heapq.heappush(ready, places[user])
    if len(order) < len(names):
        raise PassError(
            f"{len(names) - len(order)} nodes wait for each other, so that none of "
            "them can run first.",
            findings=[name for name in names if waiting[name]][:20],
            fix="export the model again; or run it with the session executor, if "
            "these are loops of TensorFlow 1.",
        )
    return order


def batches(
    order: Iterable[Node], alone: Callable[[Node], bool]
) -> Iterator[list[Node]]:
    """Groups nodes in order, so that few groups hold many of them.

    Args:
        order: Nodes, each after all that it waits for.
        alone: Whether a node makes a group of its own.

    Yields:
        Groups; what a node waits for is in its own group or an earlier one.
    """
    stage: dict[str, int] = {}
    single: set[str] = set()
    together: dict[int, list[Node]] = {}
    singles: dict[int, list[Node]] = {}
    for node in order:
        own = alone(node)
        level = 0
        for name in node.predecessors():
            level = max(level, stage.get(name, 0) + (name in single and not own))
        stage[node.name] = level
        if own:
            single.add(node.name)
        (singles if own else together).setdefault(level, []).append(node)
    for level in range(max([*together, *singles], default=-1) + 1):
        if level in together:
            yield together[level]
        for node in singles.get(level, ()):
            yield [node]
