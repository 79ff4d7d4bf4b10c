"""The graph as this package works on it: nodes by name, inputs by tensor.

A light form of `GraphDef` (TF proto `graph.proto`, `node_def.proto`): the inputs of a
node are parsed, functions are graphs themselves, attributes stay the protos they are.
Nothing here runs TensorFlow.
"""

import dataclasses
from collections import deque
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

from keras_metagraph.errors import SignatureError, nearest

AttrValue = Any  # tensorflow.AttrValue; TensorFlow ships no types


class TensorName(NamedTuple):
    """An output of a node; prints as TensorFlow prints it, `node:index`."""

    node: str
    index: int = 0  # type: ignore[assignment]  # hides tuple.index, which nobody needs

    def __str__(self) -> str:
        return f"{self.node}:{self.index}"

    @classmethod
    def parse(cls, text: str) -> "TensorName":
        """Parses `node` or `node:index`, as `NodeDef.input` and users write them."""
        node, colon, index = text.rpartition(":")
        if colon and index.isdecimal():
            return cls(node, int(index))
        return cls(text, 0)


@dataclasses.dataclass(slots=True)
class Node:
    """One operation of a graph.

    Attributes:
        name: Unique in its graph.
        op: The op type, or the name of a function that the node calls.
        inputs: Data inputs, in the order of the op's definition.
        control_inputs: Names of the nodes that must run before this one.
        attrs: `AttrValue` protos by attribute name.
        device: As requested in the file; empty for anywhere.
    """

    name: str
    op: str
    inputs: list[TensorName] = dataclasses.field(default_factory=list)
    control_inputs: list[str] = dataclasses.field(default_factory=list)
    attrs: dict[str, AttrValue] = dataclasses.field(default_factory=dict)
    device: str = ""

    def predecessors(self) -> Iterator[str]:
        """Names of all nodes that this one waits for; may repeat."""
        for tensor in self.inputs:
            yield tensor.node
        yield from self.control_inputs


@dataclasses.dataclass(slots=True)
class Graph:
    """A graph: nodes in the file's order, and the functions that they may call.

    Attributes:
        nodes: Nodes by name.
        functions: The function library, shared by the bodies of its functions.
        producer: `VersionDef.producer` of the file; 0 where it has none.
    """

    nodes: dict[str, Node] = dataclasses.field(default_factory=dict)
    functions: dict[str, "Function"] = dataclasses.field(default_factory=dict)
    producer: int = 0

    def add(self, node: Node) -> Node:
        """Adds a node under its name, which must be free."""
        if node.name in self.nodes:
            raise SignatureError(
                f"The graph already has a node {node.name!r}.",
                fix="give the new node another name (Graph.unique_name).",
            )
        self.nodes[node.name] = node
        return node

    def node(self, name: str) -> Node:
        """The node called `name`.

        Raises:
            SignatureError: If there is none; names the nearest ones.
        """
        try:
            return self.nodes[name]
        except KeyError:
            raise SignatureError(
                f"The graph has no node {name!r}{nearest(name, self.nodes)}.",
                fix="take a name that inspect_meta_graph lists.",
            ) from None

    def unique_name(self, name: str) -> str:
        """`name`, or `name_1`, `name_2` ... if it is taken."""
        candidate, count = name, 0
        while candidate in self.nodes:
            count += 1
            candidate = f"{name}_{count}"
        return candidate

    def consumers(self) -> dict[str, list[Node]]:
        """Which nodes wait for each node, by data or control; one entry per edge."""
        users: dict[str, list[Node]] = {name: [] for name in self.nodes}
        for node in self.nodes.values():
            for name in node.predecessors():
                if name in users:
                    users[name].append(node)
        return users

    def ancestors(self, roots: Iterable[str], stop: Iterable[str] = ()) -> set[str]:
        """Names of the nodes that `roots` need, themselves included.

        Args:
            roots: Names of nodes.
            stop: Nodes whose inputs are not followed (they are fed).
        """
        stop, seen = set(stop), set(roots)
        queue = deque(seen)
        while queue:
            name = queue.popleft()
            if name in stop:
                continue
            for before in self.node(name).predecessors():
                if before not in seen:
                    seen.add(before)
                    queue.append(before)
        return seen

    def descendants(self, roots: Iterable[str]) -> set[str]:
        """Names of the nodes that wait for any of `roots`, themselves included."""
        users, seen = self.consumers(), set(roots)
        queue = deque(seen)
        while queue:
            for user in users.get(queue.popleft(), ()):
                if user.name not in seen:
                    seen.add(user.name)
                    queue.append(user.name)
        return seen

    def subgraph(self, names: Iterable[str]) -> "Graph":
        """A graph of some of the nodes, in this graph's order; nodes are shared."""
        wanted = set(names)
        return Graph(
            {name: node for name, node in self.nodes.items() if name in wanted},
            self.functions,
            self.producer,
        )


@dataclasses.dataclass(slots=True)
class Function:
    """A function of the library: a graph with arguments and results.

    Attributes:
        name: Its name in the library.
        arguments: Names of the body's argument nodes (op `_Arg`), in order.
        results: The tensors that it returns, in order.
        graph: The body; its `functions` is the library's own dict.
        control_results: Nodes that run whatever is fetched (stateful ones).
        gradient: Name of the function's custom gradient function, if it has one.
        attrs: Attributes of the `FunctionDef`.
        header: The `FunctionDef` of the file without its body: names and types of
            arguments and results. None for a function that a pass made.
    """

    name: str
    arguments: list[str]
    results: list[TensorName]
    graph: Graph
    control_results: list[str] = dataclasses.field(default_factory=list)
    gradient: str = ""
    attrs: dict[str, AttrValue] = dataclasses.field(default_factory=dict)
    header: Any = None
