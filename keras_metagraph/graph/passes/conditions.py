"""Finds under which conditions the nodes of a graph run.

`Switch` sends its input to one of two outputs, and what takes the other one does not
run. The condition of a node is the set of decisions on its way: pairs of a predicate
and a branch. `Merge` runs if either input is there, and so takes a decision back.
"""

import dataclasses

from keras_metagraph.errors import PassError
from keras_metagraph.graph import walk
from keras_metagraph.graph.ir import Graph, Node, TensorName

Condition = frozenset[tuple[TensorName, int]]
"""Decisions (predicate, branch); branch 1 is taken where the predicate is true."""

ALWAYS: Condition = frozenset()


@dataclasses.dataclass(frozen=True, slots=True)
class Join:
    """A `Merge` of two branches.

    Attributes:
        node: The `Merge`.
        predicate: What decides.
        branches: Its inputs: the one for false, the one for true.
        outer: The condition under which it runs itself.
    """

    node: Node
    predicate: TensorName
    branches: tuple[TensorName, TensorName]
    outer: Condition


@dataclasses.dataclass(slots=True)
class Conditions:
    """The conditions of all nodes of a graph.

    Attributes:
        of: Condition by node name; that of a `Switch` is that of its inputs.
        joins: The merges, each after those that it depends on.
    """

    of: dict[str, Condition]
    joins: list[Join]


def find_conditions(graph: Graph) -> Conditions:
    """Finds the conditions of a graph without loops.

    Args:
        graph: A graph after `functionalize_while`.

    Raises:
        PassError: If a `Merge` does not join the two branches of one condition.
    """
    found = Conditions({}, [])
    wrong: list[str] = []
    for node in walk.schedule(graph):
        if node.op == "Merge":
            join = _join(graph, node, found.of)
            if join is None:
                wrong.append(f"{node.name} joins {', '.join(map(str, node.inputs))}")
                found.of[node.name] = ALWAYS
                continue
            found.joins.append(join)
            found.of[node.name] = join.outer
            continue
        condition = ALWAYS
        for tensor in node.inputs:
            condition |= condition_of(graph, tensor, found.of)
        for name in node.control_inputs:
            condition |= found.of[name]
        found.of[node.name] = condition
    if wrong:
        raise PassError(
            "The graph joins branches that are not those of one condition.",
            findings=wrong,
            fix="run the graph with the session executor.",
        )
    return found


def condition_of(
    graph: Graph, tensor: TensorName, conditions: dict[str, Condition]
) -> Condition:
    """The condition under which a tensor is there."""
    condition = conditions[tensor.node]
    node = graph.nodes[tensor.node]
    if node.op == "Switch":
        return condition | {(predicate_of(graph, node), tensor.index)}
    return condition


def predicate_of(graph: Graph, switch: Node) -> TensorName:
    """What a `Switch` decides by; copies of a predicate are the predicate itself."""
    return [switch.inputs[1], *predicate_copies(graph, switch)][-1]


def predicate_copies(graph: Graph, switch: Node) -> list[TensorName]:
    """The tensors that the predicate of a `Switch` is a copy of, the first one last."""
    found = []
    node = graph.nodes[switch.inputs[1].node]
    while node.op == "Identity":
        found.append(node.inputs[0])
        node = graph.nodes[node.inputs[0].node]
    return found


def _join(graph: Graph, node: Node, conditions: dict[str, Condition]) -> Join | None:
    """The decision that a `Merge` takes back; `None` if there is not one."""
    if len(node.inputs) != 2:
        return None
    first, second = (condition_of(graph, t, conditions) for t in node.inputs)
    waits = frozenset().union(*(conditions[name] for name in node.control_inputs))
    both = first & second
    deciding = sorted(
        decision for decision in first if (decision[0], 1 - decision[1]) in second
    )
    for predicate, branch in deciding:
        rest = (first - {(predicate, branch)}) ^ (second - {(predicate, 1 - branch)})
        if len(deciding) == 1 or not rest:
            false, true = node.inputs if branch == 0 else node.inputs[::-1]
            return Join(node, predicate, (false, true), both | waits)
    return None
