"""Groups joins that can become one `If` node."""

from collections import deque
from collections.abc import Hashable, Mapping

from keras_metagraph.graph import walk
from keras_metagraph.graph.ir import Graph
from keras_metagraph.graph.passes.conditions import Join

Groups = dict[Hashable, list[Join]]


def group_joins(graph: Graph, joins: list[Join]) -> list[list[Join]]:
    """Groups joins of one predicate, unless one waits for another by way of a third.

    Many conditions may have one predicate (whether to train), one behind the other.
    Those of one `tf.cond` have one name scope, and are kept together if they can be.

    Args:
        graph: The graph.
        joins: Joins under conditions of one depth, in the order they run.

    Returns:
        Groups; made a node each, they wait for each other in no circle.
    """
    groups: Groups = {}
    for join in joins:
        groups.setdefault((join.predicate, join.outer), []).append(join)
    scopes = {join.node.name: join.node.name.rpartition("/")[0] for join in joins}
    groups = _split(groups, _circular(graph, groups), scopes)
    circular = _circular(graph, groups)
    if circular:
        groups = _split(groups, circular, _levels(graph, set(scopes)))
    return list(groups.values())


def _split(
    groups: Groups, keys: set[Hashable], parts: Mapping[str, Hashable]
) -> Groups:
    """Splits some groups by what is said of their joins' names."""
    split: Groups = {}
    for key, joins in groups.items():
        for join in joins:
            part = parts[join.node.name] if key in keys else None
            split.setdefault((key, part), []).append(join)
    return split


def _circular(graph: Graph, groups: Groups) -> set[Hashable]:
    """Groups that would wait for themselves, were each one node."""
    group_of = {join.node.name: key for key, group in groups.items() for join in group}
    users: dict[Hashable, list[Hashable]] = {}
    waiting: dict[Hashable, int] = {}
    for node in graph.nodes.values():
        own = group_of.get(node.name, node.name)
        waiting.setdefault(own, 0)
        for name in node.predecessors():
            users.setdefault(group_of.get(name, name), []).append(own)
            waiting[own] += 1
    ready = deque(key for key, count in waiting.items() if not count)
    while ready:
        for user in users.get(ready.popleft(), ()):
            waiting[user] -= 1
            if not waiting[user]:
                ready.append(user)
    return {key for key in groups if waiting[key]}


def _levels(graph: Graph, names: set[str]) -> dict[str, int]:
    """How many of `names` lie on the longest way to each node."""
    levels: dict[str, int] = {}
    for node in walk.schedule(graph):
        before = (levels[name] + (name in names) for name in node.predecessors())
        levels[node.name] = max(before, default=0)
    return levels
