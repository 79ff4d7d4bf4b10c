"""Takes one scope out of a graph, as `export_scope` asks for.

TensorFlow 1 compares text, so that the scope `net` takes `net_ema` along; here a scope
ends at a slash.
"""

from keras_metagraph.errors import SignatureError
from keras_metagraph.export.nodes import attr
from keras_metagraph.graph.ir import Graph, Node, TensorName

UNBOUND = "unbound_inputs"
_COLOCATION, _BESIDE = "_class", "loc:@"
_UNBOUND_PREFIX = "$unbound_inputs_"


def in_scope(name: str, scope: str) -> bool:
    """Whether a node lies in a scope.

    Example:
        >>> in_scope("net/dense/MatMul", "net"), in_scope("net_ema/w", "net")
        (True, False)
    """
    return name.startswith(f"{scope.rstrip('/')}/")


def without_scope(name: str, scope: str) -> str:
    """The name of a node inside its scope."""
    return name.removeprefix(f"{scope.rstrip('/')}/")


def take_scope(graph: Graph, scope: str) -> list[str]:
    """Reduces a graph to the nodes of one scope, named without it.

    Args:
        graph: The graph, changed in place.
        scope: A name scope, such as `"encoder"`.

    Returns:
        The names of inputs that come from outside, for the collection of that name:
        whoever imports the graph binds them with `input_map`.

    Raises:
        SignatureError: If the graph has no such scope.
    """
    kept = {name for name in graph.nodes if in_scope(name, scope)}
    if not kept:
        scopes = sorted({name.split("/")[0] for name in graph.nodes if "/" in name})
        raise SignatureError(
            f"The graph has no scope {scope!r}.",
            findings=[f"there is {name!r}" for name in scopes],
            fix="take the name of a layer or of a nested model.",
        )
    unbound: dict[str, None] = {}

    def inside(tensor: TensorName) -> TensorName:
        if tensor.node in kept:
            return TensorName(without_scope(tensor.node, scope), tensor.index)
        outside = TensorName(_UNBOUND_PREFIX + tensor.node, tensor.index)
        unbound[outside.node if tensor.index == 0 else str(outside)] = None
        return outside

    nodes = [graph.nodes[name] for name in graph.nodes if name in kept]
    graph.nodes.clear()
    for node in nodes:
        if node.op == "VarHandleOp":
            shared_name = without_scope(node.name, scope).encode("utf-8")
            node.attrs["shared_name"].s = shared_name
        node.inputs = [inside(tensor) for tensor in node.inputs]
        node.control_inputs = [
            without_scope(name, scope) for name in node.control_inputs if name in kept
        ]
        node.name = without_scope(node.name, scope)
        _rename_colocation(node, scope)
        graph.add(node)
    return list(unbound)


def _rename_colocation(node: Node, scope: str) -> None:
    """Keeps a node beside those of its scope that it stood beside."""
    if _COLOCATION not in node.attrs:
        return
    beside = [
        name.decode("utf-8").removeprefix(_BESIDE)
        for name in node.attrs[_COLOCATION].list.s
    ]
    inside = [without_scope(name, scope) for name in beside if in_scope(name, scope)]
    del node.attrs[_COLOCATION]
    if inside:
        node.attrs[_COLOCATION] = attr([f"{_BESIDE}{name}" for name in inside])
