"""String handles of stacks, tensor arrays, tables, queues -> resource handles.

Until 1.0 such a handle was a reference to a string, until 1.x a string; the ops on
resource handles have the same inputs. `If`, `While` and `wrap_function` take resources
only.
"""

import dataclasses
from collections import deque

from keras_metagraph.graph.ir import Graph, Node, TensorName
from keras_metagraph.graph.passes import build, ref_ops
from keras_metagraph.graph.passes.result import PassResult

_FLOW = {*ref_ops.FLOW, *ref_ops.FLOW.values()}


def resource_handles(graph: Graph) -> PassResult:
    """Replaces string handles; handles fed through v1 control flow included."""
    rewriter = build.Rewriter(graph)
    handles: deque[TensorName] = deque()
    for node in graph.nodes.values():
        if node.op in ref_ops.HANDLE_SOURCES:
            handles.append(TensorName(node.name))
        if node.op in ref_ops.HANDLES:
            rewriter.replace(_resource_form(rewriter, node))
    if not rewriter.modified:
        return PassResult(graph, False)
    users = graph.consumers()
    seen: set[str] = set()
    while handles:
        handle = handles.popleft()
        for user in users[handle.node]:
            if user.name in seen or handle not in _passed_on(user):
                continue
            seen.add(user.name)
            handles.append(TensorName(user.name, 0))
            if user.op.endswith("Switch"):
                handles.append(TensorName(user.name, 1))
            op = ref_ops.FLOW.get(user.op, user.op)
            attrs = {**user.attrs, "T": build.type_attr(build.RESOURCE)}
            rewriter.replace(dataclasses.replace(user, op=op, attrs=attrs))
    _start_flows(rewriter)
    return PassResult(rewriter.graph(), True)


def _start_flows(rewriter: build.Rewriter) -> None:
    """Starts the flow of an array at the array; old ones started at a constant 0."""
    nodes = rewriter.source.nodes
    for node in nodes.values():
        if node.op not in ref_ops.FLOW_LAST:
            continue
        source = node.inputs[0]
        while nodes[source.node].op in _FLOW:
            source = nodes[source.node].inputs[0]
        if ref_ops.HANDLES.get(nodes[source.node].op) != "TensorArrayV3":
            continue
        queue, seen = deque([(node.name, len(node.inputs) - 1)]), set()
        while queue:
            name, place = queue.popleft()
            before = nodes[nodes[name].inputs[place].node]
            if before.op == "Const":
                current = rewriter.nodes[name]
                inputs = list(current.inputs)
                inputs[place] = TensorName(source.node, 1)
                rewriter.replace(dataclasses.replace(current, inputs=inputs))
            elif before.op in _FLOW and before.name not in seen:
                seen.add(before.name)
                places = range(len(_passed_on(before)))
                queue.extend((before.name, each) for each in places)


def _passed_on(node: Node) -> list[TensorName]:
    """The inputs of a node that are its outputs too."""
    if node.op not in _FLOW:
        return []
    return node.inputs[:1] if node.op.endswith("Switch") else node.inputs


def _resource_form(rewriter: build.Rewriter, node: Node) -> Node:
    inputs = list(node.inputs)
    if node.op == "Stack":
        size = build.const_node(
            f"{node.name}/max_size", -1, build.INT32, build.frame_controls(node)
        )
        inputs = [rewriter.add(size)]
    op = ref_ops.HANDLES[node.op]
    return dataclasses.replace(node, op=op, inputs=inputs)
