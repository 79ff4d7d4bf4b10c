"""Bodies of functions in the place of the nodes that call them.

TensorFlow 2 keeps in functions what TensorFlow 1 had in the graph itself: what
restores the variables of a SavedModel, and what fills its tables.
"""

import dataclasses
from collections import deque
from collections.abc import Collection

from keras_metagraph.graph.ir import Function, Graph, Node, TensorName
from keras_metagraph.graph.passes import build
from keras_metagraph.graph.passes.result import PassResult

CALLS = frozenset({"PartitionedCall", "StatefulPartitionedCall"})
# Functions that call one another twice grow without bound: the rest stays a call.
_MAX_NODES = 1_000_000


def inline_calls(graph: Graph, roots: Collection[str]) -> PassResult:
    """Inlines all calls that some nodes wait for, and the calls inside of them.

    A call becomes an `IdentityN` under its own name; its body stands before it, under
    `call/node`. As in a call, everything stateful in the body runs.

    Args:
        graph: The graph; it is not changed.
        roots: Names of nodes.

    Returns:
        The graph.
    """
    rewriter = build.Rewriter(graph)
    queue = deque(
        name
        for name in graph.ancestors([name for name in roots if name in graph.nodes])
        if graph.nodes[name].op in CALLS
    )
    while queue and len(rewriter.nodes) < _MAX_NODES:
        call = rewriter.nodes[queue.popleft()]
        function = graph.functions.get(call.attrs["f"].func.name)
        if function is not None and len(function.arguments) == len(call.inputs):
            queue.extend(_inline(rewriter, call, function))
    return PassResult(rewriter.graph(), rewriter.modified)


def _inline(rewriter: build.Rewriter, call: Node, function: Function) -> list[str]:
    """Inlines one call; returns the names of the calls in its body."""
    given = dict(zip(function.arguments, call.inputs, strict=True))
    body = [n for n in function.graph.nodes.values() if n.name not in given]
    names = {
        node.name: rewriter.unique_name(f"{call.name}/{node.name}") for node in body
    }

    def now(tensor: TensorName) -> TensorName:
        if tensor.node in given:
            return given[tensor.node]
        return TensorName(names[tensor.node], tensor.index)

    for node in body:
        controls = [names[name] for name in node.control_inputs if name in names]
        rewriter.replace(
            dataclasses.replace(
                node,
                name=names[node.name],
                inputs=[now(tensor) for tensor in node.inputs],
                control_inputs=[*controls, *call.control_inputs],
            )
        )
    types = call.attrs["Tout"]
    rewriter.replace(
        dataclasses.replace(
            call,
            op="IdentityN" if function.results else "NoOp",
            inputs=[now(tensor) for tensor in function.results],
            control_inputs=[
                *(names[name] for name in function.control_results if name in names),
                *call.control_inputs,
            ],
            attrs={"T": types} if function.results else {},
        )
    )
    return [names[node.name] for node in body if node.op in CALLS]
