"""Finds the backward part of a graph, and what it is the gradient of.

`tf.gradients` names what it adds after the op that it differentiates,
`<scope>/<op>_grad/...`, and starts from ones in the shape of the loss: `<scope>/Fill`.
"""

import re
from collections import deque
from collections.abc import Iterable

from keras_metagraph.graph.ir import Graph, Node, TensorName

_MARK = "_grad/"
_SCOPE = re.compile(r"(?:^|.*/)(?:gradients|gradient_tape)(?:_\d+)?(?=/)")
_SUMS = frozenset({"Add", "AddV2", "AddN", "Sub", "Identity"})
_START = re.compile(r"(Fill|grad_ys|ones_like|OnesLike)(_\d+)?")


def gradient_scopes(graph: Graph) -> list[str]:
    """Names of the scopes that hold gradients, in the order of the file."""
    scopes: dict[str, None] = {}
    for name in graph.nodes:
        if _MARK in name:
            scope = _scope_of(graph, name)
            if scope is not None:
                scopes.setdefault(scope)
        elif name.startswith("gradient_tape/"):
            scopes.setdefault("gradient_tape")
    return list(scopes)


def backward_nodes(graph: Graph, scopes: list[str]) -> dict[str, str]:
    """The nodes that compute gradients, each with its scope."""
    wanted = set(scopes)
    found: dict[str, str] = {}
    for name in graph.nodes:
        end = name.find("/")
        while end != -1:
            if name[:end] in wanted:
                found[name] = name[:end]
                break
            end = name.find("/", end + 1)
    for name in _accumulators(graph, found):
        del found[name]
    return found


def _accumulators(graph: Graph, backward: Iterable[str]) -> set[str]:
    """Empty lists that a loop of the forward part fills for its gradient.

    `while_v2` makes them in the scope of the gradients, and passes them to the loop.
    """
    lists = [name for name in backward if graph.nodes[name].op == "EmptyTensorList"]
    return graph.ancestors(lists) & set(backward)


def differentiated(graph: Graph, scope: str) -> list[TensorName]:
    """The tensors that the gradients of a scope are gradients of.

    Args:
        graph: The graph.
        scope: One of `gradient_scopes`.

    Returns:
        The losses; empty where the caller of `tf.gradients` gave other starting values.
    """
    users: dict[str, list[Node]] = {}
    starts = []
    for node in graph.nodes.values():
        if not node.name.startswith(f"{scope}/"):
            continue
        if node.op in ("Fill", "OnesLike") and _START.fullmatch(
            node.name[len(scope) + 1 :]
        ):
            starts.append(node)
        for name in node.predecessors():
            users.setdefault(name, []).append(node)
    losses: dict[TensorName, None] = {}
    for start in starts:
        loss = _shaped_like(graph, start) or _first_differentiated(
            graph, scope, users.get(start.name, [])
        )
        if loss is not None:
            losses.setdefault(loss)
    return list(losses)


def _shaped_like(graph: Graph, start: Node) -> TensorName | None:
    """The tensor whose shape the ones have, where that is not a constant."""
    if not start.inputs:
        return None
    if start.op == "OnesLike":
        return start.inputs[0]
    shape = graph.nodes.get(start.inputs[0].node)
    if shape is not None and shape.op == "Shape" and shape.inputs:
        return shape.inputs[0]
    return None


def _first_differentiated(
    graph: Graph, scope: str, users: list[Node]
) -> TensorName | None:
    """The op after which the first nodes of the backward part are named.

    The gradient of a sum adds no node, so that several ops may come first: then it is
    the sum of them all.
    """
    first: dict[str, None] = {}
    for user in users:
        rest = user.name[len(scope) + 1 :]
        if _MARK in rest:
            name = _longest_node(graph, scope, rest[: rest.rindex(_MARK)])
            if name is not None:
                first.setdefault(name)
    if not first:
        return None
    return TensorName(_sum_of(graph, list(first)))


def _sum_of(graph: Graph, terms: list[str]) -> str:
    """The nearest node that is a sum of all `terms`; the first one if none is."""
    if len(terms) == 1:
        return terms[0]
    users: dict[str, list[str]] = {}
    for node in graph.nodes.values():
        if node.op in _SUMS:
            for tensor in node.inputs:
                users.setdefault(tensor.node, []).append(node.name)
    queue = deque(terms)
    seen = set(terms)
    while queue:
        name = queue.popleft()
        if set(terms) <= _terms(graph, name):
            return name
        for user in users.get(name, ()):
            if user not in seen:
                seen.add(user)
                queue.append(user)
    return terms[0]


def _terms(graph: Graph, name: str) -> set[str]:
    """A node and what it is a sum of."""
    queue, seen = deque([name]), {name}
    while queue:
        node = graph.nodes.get(queue.popleft())
        if node is None or node.op not in _SUMS:
            continue
        # The gradient of a difference is passed on to its first operand alone.
        inputs = node.inputs[:1] if node.op == "Sub" else node.inputs
        for tensor in inputs:
            if tensor.node not in seen:
                seen.add(tensor.node)
                queue.append(tensor.node)
    return seen


def _scope_of(graph: Graph, name: str) -> str | None:
    """The gradient scope of a node `<scope>/<op>_grad/...`."""
    prefix = name[: name.rindex(_MARK)]
    start = prefix.find("/")
    while start != -1:
        if prefix[start + 1 :] in graph.nodes:
            return prefix[:start]
        start = prefix.find("/", start + 1)
    match = _SCOPE.match(name)
    return match.group(0) if match else None


def _longest_node(graph: Graph, scope: str, text: str) -> str | None:
    """The op that `text` names; an import may have put both under one prefix."""
    if text in graph.nodes:
        return text
    head = scope.rpartition("/")[0]
    while head:
        if f"{head}/{text}" in graph.nodes:
            return f"{head}/{text}"
        head = head.rpartition("/")[0]
    return None
