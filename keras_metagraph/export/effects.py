"""Which nodes change something, so that a step must run them.

TensorFlow lists everything stateful that a traced function does. Most of it are reads
of variables, which need not run for their own sake.
"""

from keras_metagraph.graph.ir import Function, Graph, Node
from keras_metagraph.graph.op_defs import op_def
from keras_metagraph.graph.to_proto import called_functions

_READS = frozenset(
    {
        "HashTableV2",
        "IsVariableInitialized",
        "LookupTableExportV2",
        "LookupTableFindV2",
        "LookupTableSizeV2",
        "NoOp",
        "Placeholder",
        "ReadVariableOp",
        "ResourceGather",
        "ResourceGatherNd",
        "VarHandleOp",
        "VarIsInitializedOp",
        "VariableShape",
        "_Arg",
    }
)
# Stateful only in that they give other numbers each time.
_RANDOM = (
    "Multinomial",
    "Parameterized",
    "Random",
    "TensorArray",
    "TruncatedNormal",
)


def has_effect(node: Node, functions: dict[str, Function]) -> bool:
    """Whether a node, or a function it calls, changes anything but its outputs."""
    seen: set[str] = set()
    stack = [node]
    while stack:
        current = stack.pop()
        called = list(called_functions([current], functions))
        for name in called:
            if name not in seen:
                seen.add(name)
                stack.extend(functions[name].graph.nodes.values())
        if called or current.op in _READS or current.op.startswith(_RANDOM):
            continue
        definition = op_def(current.op)
        if definition is not None and definition.is_stateful:
            return True
    return False


def side_effects(graph: Graph, names: tuple[str, ...]) -> list[str]:
    """Those of the named nodes that change something, in the graph's order.

    A call that was inlined is a `NoOp` behind what the function changes.
    """
    wanted, stack = set[str](), list(names)
    while stack:
        name = stack.pop()
        if name not in wanted:
            wanted.add(name)
            node = graph.nodes.get(name)  # Other replicas' are not in the graph.
            if node is not None and node.op == "NoOp":
                stack.extend(node.control_inputs)
    return [
        name
        for name, node in graph.nodes.items()
        if name in wanted and has_effect(node, graph.functions)
    ]
