"""Orders step counters as TensorFlow 1 ran them, where the graph does not.

`global_step.assign(global_step + 1)` beside an optimizer that reads the step for its
learning rate (BERT's, for one) is a race: nothing orders the two, and the reads of a
reference see the variable as it is when they run. TensorFlow 1 starts with the
consumer of `global_step/read` that stands last in the graph, so the increment, made
after the learning rate, runs first, every time (1.15.5, any number of threads). A read
that only precedes its consumers would give the step before.

An order is an edge, and an edge makes the update run. So this is for a graph that is
cut down to what a run needs.
"""

import dataclasses
from collections import deque

from keras_metagraph.graph.ir import Graph, Node, TensorName
from keras_metagraph.graph.passes import build
from keras_metagraph.graph.passes.result import PassResult

FORMER_REFERENCE = "_former_reference"
"""Marks reads that other ops used as a reference, wherever they ran."""

_INTEGERS = (build.INT32, build.INT64)
_ARITHMETIC = {"Add", "AddV2", "Cast", "Const", "Identity", "Maximum", "Minimum", "Sub"}


def early_updates(graph: Graph) -> PassResult:
    """Puts the other readers of a counter behind its update.

    Args:
        graph: The part of a graph without references that one run needs.

    Returns:
        The graph with one more read of each such counter.
    """
    places = {name: place for place, name in enumerate(graph.nodes)}
    rewriter = build.Rewriter(graph)
    users = None
    for update in graph.nodes.values():
        read = _counted(graph, update)
        if read is None:
            continue
        users = graph.consumers() if users is None else users
        own = _own_ancestors(graph, update, read)
        first = min((places[name] for name in own), default=0)
        late = {
            user.name: user
            for user in users[read.name]
            if user.name not in own and places[user.name] < first
        }
        if late:
            _move(rewriter, update, read, list(late.values()))
    return PassResult(rewriter.graph(), rewriter.modified)


def _counted(graph: Graph, update: Node) -> Node | None:
    """The read that an update counts on from, if the update is of the racing kind."""
    if update.op != "AssignVariableOp" or update.control_inputs:
        return None
    if build.dtype_of(update, "dtype") not in _INTEGERS:
        return None
    reads = set()
    queue, seen = deque([update.inputs[1].node]), set()
    while queue:
        name = queue.popleft()
        node = graph.nodes.get(name)
        if name in seen:
            continue
        seen.add(name)
        if node is None or node.control_inputs:
            return None
        if node.op == "ReadVariableOp":
            if FORMER_REFERENCE not in node.attrs or node.inputs != update.inputs[:1]:
                return None
            reads.add(name)
        elif node.op in _ARITHMETIC:
            queue.extend(tensor.node for tensor in node.inputs)
        else:
            return None
    return graph.nodes[reads.pop()] if len(reads) == 1 else None


def _own_ancestors(graph: Graph, update: Node, read: Node) -> set[str]:
    """The consumers of the read that the update itself needs."""
    names = graph.ancestors([update.inputs[1].node], stop=[read.name]) - {read.name}
    return {
        name
        for name in names
        if any(tensor.node == read.name for tensor in graph.nodes[name].inputs)
    }


def _move(
    rewriter: build.Rewriter, update: Node, read: Node, users: list[Node]
) -> None:
    late = rewriter.add(
        dataclasses.replace(
            read, name=f"{update.name}/ReadVariableOp", control_inputs=[update.name]
        )
    )
    early = TensorName(read.name)
    for user in users:
        current = rewriter.nodes[user.name]
        inputs = [late if tensor == early else tensor for tensor in current.inputs]
        rewriter.replace(dataclasses.replace(current, inputs=inputs))
