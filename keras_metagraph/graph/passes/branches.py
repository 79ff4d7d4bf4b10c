"""Makes the `If` node of one condition: cuts out both branches."""

import dataclasses
from collections.abc import Iterable, Mapping

from keras_metagraph.graph.ir import Graph, Node, TensorName
from keras_metagraph.graph.passes import build
from keras_metagraph.graph.passes.conditions import (
    Condition,
    predicate_copies,
    predicate_of,
)
from keras_metagraph.graph.passes.regions import cut_region, make_function
from keras_metagraph.graph.specs import tensor_spec


@dataclasses.dataclass(frozen=True, slots=True)
class Wanted:
    """What an `If` shall do on one side.

    Attributes:
        results: Tensors that it returns.
        effects: Operations that it runs besides.
    """

    results: list[TensorName]
    effects: list[str] = dataclasses.field(default_factory=list)


def make_if(
    graph: Graph,
    conditions: Mapping[str, Condition],
    predicate: TensorName,
    outer: Condition,
    sides: tuple[Wanted, Wanted],
    name: str,
) -> Node:
    """Makes an `If` node, and its branches in the graph's library.

    Args:
        graph: The graph; its library gets two functions.
        conditions: Conditions of its nodes.
        predicate: What decides.
        outer: The condition under which the `If` runs itself.
        sides: What it does if the predicate is false, and if it is true.
        name: Name of the node.

    Returns:
        The node, not yet in the graph; `Tout` and `output_shapes` are the caller's.
    """
    captured: dict[TensorName, str] = {}
    switches: set[str] = set()
    regions = [
        cut_region(
            graph,
            wanted.results,
            wanted.effects,
            _Branch(graph, conditions, (predicate, branch), outer, captured, switches),
        )
        for branch, wanted in enumerate(sides)
    ]
    constants = {
        tensor: dataclasses.replace(node, name=argument)
        for tensor, argument in captured.items()
        for node in [graph.nodes[tensor.node]]
        if node.op == "Const" and not node.control_inputs
    }
    taken = [tensor for tensor in captured if tensor not in constants]
    types = [tensor_spec(graph, tensor).dtype.as_datatype_enum for tensor in taken]
    arguments = [(captured[t], kind) for t, kind in zip(taken, types, strict=True)]
    false, true = (
        make_function(
            f"{name}_{side}", arguments, constants.values(), region, graph.functions
        )
        for side, region in zip(("false", "true"), regions, strict=True)
    )
    attrs = {
        "Tcond": build.type_attr(build.BOOL),
        "Tin": build.types_attr(types),
        "else_branch": build.function_attr(false.name),
        "then_branch": build.function_attr(true.name),
    }
    waited = [name for region in regions for name in region.outer_controls]
    waited += [name for switch in switches for name in _waited(graph, switch)]
    controls = _outer_controls(graph, conditions, outer, waited)
    return Node(name, "If", [predicate, *taken], controls, attrs)


class _Branch:
    """One side of a condition: the boundary of its region."""

    def __init__(
        self,
        graph: Graph,
        conditions: Mapping[str, Condition],
        decision: tuple[TensorName, int],
        outer: Condition,
        captured: dict[TensorName, str],
        switches: set[str],
    ) -> None:
        self._graph = graph
        self._conditions = conditions
        self._predicate = decision[0]
        self._here = outer | {decision}
        self._captured = captured  # outer tensor -> argument, shared by both sides
        self._used = switches

    def argument(self, tensor: TensorName) -> TensorName | None:
        """What stands for a tensor that comes from outside."""
        if self._switches(tensor.node):
            self._used.add(tensor.node)
            tensor = self._graph.nodes[tensor.node].inputs[0]
        elif self._conditions[tensor.node] >= self._here:
            return None
        if tensor not in self._captured:
            suffix = f"/output_{tensor.index}" if tensor.index else ""
            self._captured[tensor] = f"{tensor.node}{suffix}"
        return TensorName(self._captured[tensor])

    def inside(self, name: str) -> bool:
        """Whether a node belongs to this side; a bare pivot of it need not run."""
        node = self._graph.nodes[name]
        if node.op == "Identity" and self._switches(node.inputs[0].node):
            return False
        return self._conditions[name] >= self._here

    def _switches(self, name: str) -> bool:
        """Whether a node is a `Switch` on the condition's own predicate."""
        node = self._graph.nodes[name]
        if node.op != "Switch":
            return False
        return predicate_of(self._graph, node) == self._predicate


def _waited(graph: Graph, switch: str) -> list[str]:
    """What a switch waits for, itself or by its predicate."""
    node = graph.nodes[switch]
    waited = list(node.control_inputs)
    for tensor in (node.inputs[1], *predicate_copies(graph, node)):
        copy = graph.nodes[tensor.node]
        if copy.op == "Identity":
            waited.extend(copy.control_inputs)
    return waited


def _outer_controls(
    graph: Graph,
    conditions: Mapping[str, Condition],
    outer: Condition,
    waited: Iterable[str],
) -> list[str]:
    """Of what is waited for, the nodes that run whatever is decided here."""
    kept: dict[str, None] = {}
    for name in waited:
        node = graph.nodes[name]
        before = node.inputs[0].node if node.op == "Switch" else name
        if conditions[before] <= outer:
            kept[before] = None
    return list(kept)
