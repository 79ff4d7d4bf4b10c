"""Puts the bodies of called functions in the place of the calls.

TensorFlow 1 runs function calls, but nobody can fetch from the inside of one, and
converters read flat graphs only. What control flow calls stays a function.
"""

from collections import deque

from keras_metagraph.graph.ir import Function, Graph, Node, TensorName

_CALLS = frozenset({"PartitionedCall", "StatefulPartitionedCall"})


def inline_calls(graph: Graph) -> None:
    """Replaces every plain function call, in the graph and in its functions."""
    for function in graph.functions.values():
        replaced = _inline(function.graph)
        function.results = [_resolve(tensor, replaced) for tensor in function.results]
    _inline(graph)


def _called(node: Node, functions: dict[str, Function]) -> Function | None:
    """The function that a node does nothing but call."""
    if node.op in functions:
        return functions[node.op]
    return functions.get(node.attrs["f"].func.name) if node.op in _CALLS else None


def _inline(graph: Graph) -> dict[TensorName, TensorName]:
    """Inlines the calls of one graph; returns what their outputs became."""
    replaced: dict[TensorName, TensorName] = {}
    queue = deque(graph.nodes.values())
    while queue:
        node = queue.popleft()
        function = _called(node, graph.functions)
        if function is not None:
            queue.extend(_replace(graph, node, function, replaced))
    if replaced:
        for node in graph.nodes.values():
            node.inputs = [_resolve(tensor, replaced) for tensor in node.inputs]
    return replaced


def _replace(
    graph: Graph,
    call: Node,
    function: Function,
    replaced: dict[TensorName, TensorName],
) -> list[Node]:
    """Copies a body into the graph; the call becomes the `NoOp` that ends it."""
    body = function.graph.nodes
    arguments = dict(zip(function.arguments, call.inputs, strict=True))
    begin = _begin(graph, call)
    names = {
        name: graph.unique_name(f"{call.name}/{name}")
        for name in body
        if name not in arguments
    }

    def outside(tensor: TensorName) -> TensorName:
        if tensor.node in arguments:
            return arguments[tensor.node]
        return TensorName(names[tensor.node], tensor.index)

    copies = []
    for name, new_name in names.items():
        node = body[name]
        control = [names[other] for other in node.control_inputs if other in names]
        waits = control or any(tensor.node in names for tensor in node.inputs)
        if begin and not waits:
            control.append(begin)
        copies.append(
            graph.add(
                Node(
                    new_name,
                    node.op,
                    [outside(tensor) for tensor in node.inputs],
                    control,
                    dict(node.attrs),
                    node.device or call.device,
                )
            )
        )
    results = [outside(tensor) for tensor in function.results]
    for index, tensor in enumerate(results):
        replaced[TensorName(call.name, index)] = tensor
    ends = [names[name] for name in function.control_results if name in names]
    ends += [tensor.node for tensor in results]
    call.op, call.inputs, call.attrs = "NoOp", [], {}
    call.control_inputs = list(dict.fromkeys([*call.control_inputs, *ends]))
    return copies


def _begin(graph: Graph, call: Node) -> str | None:
    """A node that runs when the call would; None if the call waits for nothing."""
    if not call.control_inputs:
        return None
    name = graph.unique_name(f"{call.name}/begin")
    graph.add(Node(name, "NoOp", control_inputs=list(call.control_inputs)))
    return name


def _resolve(tensor: TensorName, replaced: dict[TensorName, TensorName]) -> TensorName:
    """Follows a tensor through inlined calls."""
    while tensor in replaced:
        tensor = replaced[tensor]
    return tensor
