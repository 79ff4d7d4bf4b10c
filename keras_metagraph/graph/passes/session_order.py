"""The order in which a TensorFlow 1 session ran the nodes of a graph.

Where nothing in the graph orders a read of a variable and an update of it, the
session still had an order, the same at every step: BERT's optimizer, for one, assigns
the global step beside the learning rate that reads it, and its runs took the new
value. The rule is that of the executor (`core/common_runtime/executor.cc`,
`ScheduleReady`): of the nodes that became ready, cheap ones go on in the same thread,
the last expensive one too if there are none; the others go to the thread pool, which
takes the newest first.
"""

from collections import deque

from keras_metagraph.graph.ir import Graph, Node

_CHEAP = frozenset(
    {
        "Const",
        "ControlTrigger",
        "Enter",
        "Exit",
        "ExpandDims",
        "Identity",
        "IdentityN",
        "LoopCond",
        "Merge",
        "NextIteration",
        "NoOp",
        "Placeholder",
        "PlaceholderWithDefault",
        "PreventGradient",
        "Rank",
        "RefEnter",
        "RefExit",
        "RefIdentity",
        "RefMerge",
        "RefNextIteration",
        "RefSwitch",
        "Reshape",
        "Shape",
        "ShapeN",
        "Size",
        "Squeeze",
        "StopGradient",
        "Switch",
    }
)
_BACK_EDGES = {"NextIteration", "RefNextIteration"}


def session_order(graph: Graph) -> dict[str, int]:
    """Positions of the nodes in one run of the whole graph.

    Args:
        graph: What one run needs; a v1 while loop counts as one iteration, and both
            branches of a condition as run.

    Returns:
        A position for each node that can run, in an order that respects all inputs.
    """
    users: dict[str, list[Node]] = {name: [] for name in graph.nodes}
    waiting: dict[str, int] = {}
    for node in graph.nodes.values():
        before = [
            name
            for name in dict.fromkeys(node.predecessors())
            if name in graph.nodes and graph.nodes[name].op not in _BACK_EDGES
        ]
        waiting[node.name] = len(before)
        for name in before:
            users[name].append(node)
    positions: dict[str, int] = {}
    pool: list[str] = []
    inline: deque[str] = deque()

    def schedule(ready: list[Node]) -> None:
        inline.extend(node.name for node in ready if node.op in _CHEAP)
        expensive = [node.name for node in ready if node.op not in _CHEAP]
        if expensive and not inline:
            inline.append(expensive.pop())
        pool.extend(expensive)

    # The executor starts at one source node that all others without inputs wait for.
    schedule([graph.nodes[name] for name, count in waiting.items() if not count])
    while inline or pool:
        name = inline.popleft() if inline else pool.pop()
        positions[name] = len(positions)
        ready = []
        for user in users[name]:
            waiting[user.name] -= 1
            if not waiting[user.name]:
                ready.append(user)
        schedule(ready)
    return positions


def conditional_nodes(graph: Graph) -> set[str]:
    """Names of the nodes that need not run: inside v1 conditions and loops."""
    users = graph.consumers()
    starts = {"Switch", "RefSwitch", "Enter", "RefEnter"}
    inside = {name for name, node in graph.nodes.items() if node.op in starts}
    queue = deque(inside)
    while queue:
        for user in users[queue.popleft()]:
            if user.name not in inside and not _leaves(graph, user):
                inside.add(user.name)
                queue.append(user.name)
    return inside


def _leaves(graph: Graph, node: Node) -> bool:
    """Whether a node runs whatever the condition was."""
    if node.op in ("Exit", "RefExit"):
        return True
    return node.op in ("Merge", "RefMerge") and not any(
        graph.nodes[name].op in ("Enter", "RefEnter", *_BACK_EDGES)
        for name in node.predecessors()
        if name in graph.nodes
    )
