"""Which tensors depend on which feeds, for the whole graph at once."""

from collections import deque
from collections.abc import Iterable, Mapping

from keras_metagraph.graph.ir import Node, TensorName
from keras_metagraph.loading.infer.analysis import SHAPE_OPS, GraphAnalysis


class Dependence:
    """Sets of sources that the value of each tensor depends on, as bit masks.

    A tensor that tells only the shape of another one does not depend on its value, and
    what a variable is assigned does not count as read.

    Args:
        analysis: The graph.
        sources: Bit masks of the tensors that values come from.
        cut: Nodes whose own inputs do not count: they are fed.
    """

    def __init__(
        self,
        analysis: GraphAnalysis,
        sources: Mapping[TensorName, int],
        cut: Iterable[str] = (),
    ) -> None:
        self._analysis = analysis
        self._sources = dict(sources)
        self._masks = dict.fromkeys(analysis.graph.nodes, 0)
        self._cut = frozenset(cut)
        self._propagate()

    def __getitem__(self, tensor: TensorName) -> int:
        return self._masks.get(tensor.node, 0) | self._sources.get(tensor, 0)

    def node(self, name: str) -> int:
        """The mask of a node: of all its inputs, and of its first output."""
        return self[TensorName(name)]

    def _propagate(self) -> None:
        nodes = self._analysis.graph.nodes
        users = self._analysis.tensor_users
        queue = deque(nodes)
        waiting = set(nodes)
        while queue:
            name = queue.popleft()
            waiting.discard(name)
            node = nodes[name]
            mask = 0 if self._opaque(node) else self._incoming(node)
            # The first visit settles what a source itself passes on.
            if mask == self._masks[name]:
                continue
            self._masks[name] = mask
            for tensor in self._analysis.output_tensors[name]:
                for user in users.get(tensor, ()):
                    if user.name not in waiting:
                        waiting.add(user.name)
                        queue.append(user.name)

    def _incoming(self, node: Node) -> int:
        mask = self._masks[node.name]
        for tensor in node.inputs:
            mask |= self[tensor]
        return mask

    def _opaque(self, node: Node) -> bool:
        return (
            node.op in SHAPE_OPS
            or node.name in self._cut
            or self._analysis.is_write(node)
        )
