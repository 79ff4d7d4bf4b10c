"""Finds which tensors of a graph stand for a variable, and where updates reach.

In TensorFlow 1 a reference is the variable's own buffer, and so is what `Identity`,
`Reshape` and the like make of it: an op that reads such a tensor after an update has
run sees the updated value.
"""

import dataclasses
from collections import deque
from collections.abc import Collection

from keras_metagraph.graph.ir import Graph, Node, TensorName
from keras_metagraph.graph.passes import ref_ops
from keras_metagraph.graph.passes.session_order import (
    conditional_nodes,
    session_order,
)

_SWITCHES = {"RefSwitch", "Switch"}
_ENTERS = {"Enter", "Switch"}


@dataclasses.dataclass(frozen=True, slots=True)
class Reference:
    """A reference tensor: the handle that it becomes.

    Attributes:
        handle: The tensor that holds the variable's handle.
        after: The update whose result the reference is, if any.
    """

    handle: TensorName
    after: str | None = None


class References:
    """What a graph's reference tensors and their aliases stand for.

    Sets of variables are bit masks, so that they move through large graphs quickly.

    Args:
        graph: A graph with reference variables.
        early: Names of nodes that take the values before all updates that the graph
            does not order before them.
    """

    def __init__(self, graph: Graph, early: Collection[str] = ()) -> None:
        self._graph = graph
        self._early = early
        self._users = graph.consumers()
        self.origins: dict[TensorName, int] = {}
        self.updates: dict[str, int] = {}
        self.reached: dict[str, int] = {}
        self.aliases: dict[TensorName, int] = {}
        self._find_origins()
        self._find_aliases()
        self._find_reached()
        # Bits of variables -> updates that run in every run of the graph.
        self._updates_of: dict[int, list[str]] = {}
        self._conditional: set[str] = set()
        self._positions: dict[str, int] = {}
        if self.updates:
            self._find_order()

    def is_reference(self, tensor: TensorName) -> bool:
        """Whether a tensor is a reference to a variable."""
        return tensor in self.origins

    def resolve(self, tensor: TensorName) -> Reference:
        """The handle behind a reference tensor."""
        node = self._graph.nodes[tensor.node]
        after = node.name if node.op in ref_ops.REF_INPUTS else None
        while node.op in ref_ops.REF_INPUTS:
            tensor = node.inputs[0]
            node = self._graph.nodes[tensor.node]
        return Reference(tensor, after)

    def updated_before(self, node: Node, tensor: TensorName) -> bool:
        """Whether an update of what `tensor` aliases has run before `node`."""
        mask = self.origins.get(tensor, 0) | self.aliases.get(tensor, 0)
        reached = bool(mask & self.reached.get(node.name, 0))
        return reached or bool(self._earlier_updates(node, mask))

    def late_predecessors(self, node: Node, tensor: TensorName) -> list[str]:
        """What of a node's inputs comes after updates of what `tensor` aliases."""
        mask = self.origins.get(tensor, 0) | self.aliases.get(tensor, 0)
        late = (
            name
            for name in node.predecessors()
            if (self.reached.get(name, 0) | self.updates.get(name, 0)) & mask
        )
        return list(dict.fromkeys([*late, *self._earlier_updates(node, mask)]))

    def runs_always(self, name: str) -> bool:
        """Whether a node runs in every run, once."""
        return name not in self._conditional

    def chain(self, tensor: TensorName) -> list[tuple[Node, int]]:
        """The ops between a reference and its alias `tensor`, in the order they run.

        Returns:
            Each op with the index of its output that is the alias; empty for a
            reference itself.
        """
        ops: list[tuple[Node, int]] = []
        while tensor not in self.origins:
            node = self._graph.nodes[tensor.node]
            ops.append((node, tensor.index))
            tensor = node.inputs[0]
        return ops[::-1]

    def _find_origins(self) -> None:
        queue: deque[TensorName] = deque()
        for node in self._graph.nodes.values():
            if node.op in ref_ops.VARIABLES:
                tensor = TensorName(node.name)
                self.origins[tensor] = 1 << len(self.origins)
                queue.append(tensor)
        while queue:
            tensor = queue.popleft()
            mask = self.origins[tensor]
            for user in self._users[tensor.node]:
                for output in self._outputs(user, tensor, mask):
                    known = self.origins.get(output, 0)
                    if known | mask != known:
                        self.origins[output] = known | mask
                        queue.append(output)

    def _outputs(self, user: Node, tensor: TensorName, mask: int) -> list[TensorName]:
        """References that `user` gives where it takes the reference `tensor`."""
        if user.op in ref_ops.FLOW:
            taken = user.inputs[:1] if user.op == "RefSwitch" else user.inputs
            if tensor not in taken:
                return []
            count = 2 if user.op == "RefSwitch" else 1
            return [TensorName(user.name, index) for index in range(count)]
        count = ref_ops.REF_INPUTS.get(user.op, user.op == "CountUpTo")
        if tensor not in user.inputs[:count]:
            return []
        self.updates[user.name] = self.updates.get(user.name, 0) | mask
        first = tensor == user.inputs[0] and user.op != "CountUpTo"
        return [TensorName(user.name)] if first else []

    def _find_aliases(self) -> None:
        queue = deque(self.origins)
        while queue:
            tensor = queue.popleft()
            mask = self.origins.get(tensor) or self.aliases[tensor]
            for user in self._users[tensor.node]:
                passes_on = user.op in ref_ops.VIEWS or user.op in _ENTERS
                if not passes_on or user.inputs[:1] != [tensor]:
                    continue
                for index in range(2 if user.op == "Switch" else 1):
                    output = TensorName(user.name, index)
                    if output not in self.aliases:
                        self.aliases[output] = mask
                        queue.append(output)

    def _find_reached(self) -> None:
        queue = deque(self.updates)
        while queue:
            name = queue.popleft()
            mask = self.updates.get(name, 0) | self.reached.get(name, 0)
            for user in self._users[name]:
                known = self.reached.get(user.name, 0)
                if known | mask != known:
                    self.reached[user.name] = known | mask
                    queue.append(user.name)

    def _find_order(self) -> None:
        self._conditional = conditional_nodes(self._graph)
        self._positions = session_order(self._graph)
        for name, mask in self.updates.items():
            if name in self._conditional:
                continue
            for bit in _bits(mask):
                self._updates_of.setdefault(bit, []).append(name)

    def _earlier_updates(self, node: Node, mask: int) -> list[str]:
        """Updates that a session ran before `node`, ordered by the graph or not."""
        if not mask or node.name in self._conditional or node.name in self._early:
            return []
        position = self._positions.get(node.name, -1)
        return [
            name
            for bit in _bits(mask)
            for name in self._updates_of.get(bit, ())
            if self._positions.get(name, position) < position
        ]


def _bits(mask: int) -> list[int]:
    """The single bits of a mask."""
    bits = []
    while mask:
        bits.append(mask & -mask)
        mask &= mask - 1
    return bits
