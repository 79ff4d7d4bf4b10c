"""What variables start from that a checkpoint lacks.

The moving average of a weight starts from the weight, if that has a value by then
(`Variable.initialized_value`), and from the weight's own initializer if not. Once the
checkpoint is restored the first of the two holds.
"""

from collections.abc import Collection, Mapping

from keras_metagraph.graph.ir import Graph, TensorName
from keras_metagraph.graph.variables import GraphVariable

# Parts of the names of ops whose value differs from run to run.
_RANDOM_OPS = ("Random", "TruncatedNormal", "Multinomial", "Uniform")
_SWITCHES = ("Switch", "RefSwitch")
_IS_INITIALIZED = ("IsVariableInitialized", "VarIsInitializedOp")


def has_fixed_initial_value(variable: GraphVariable, graph: Graph) -> bool:
    """Whether a variable's initial value is the same at every run.

    Args:
        variable: A variable.
        graph: Its graph, in which all variables that are read have values.

    Returns:
        Whether that is so.
    """
    return _fixed_needs(variable, graph) is not None


def in_turns(
    wanted: Collection[str],
    lacking: Mapping[str, GraphVariable],
    graph: Graph,
) -> list[list[str]]:
    """The order in which variables get their initial values.

    Args:
        wanted: Names of those that need a value.
        lacking: All variables that have none yet, by name.
        graph: Their graph.

    Returns:
        Names, turn by turn: those of a turn read variables of earlier turns only.
        Variables that only these need are among them; those whose value would
        differ from run to run, or would be computed from such ones, are not.
    """
    needs = _lacking_needs(wanted, lacking, graph)
    turns: list[list[str]] = []
    done: set[str] = set()
    while True:
        turn = [n for n in lacking if n in needs and n not in done and needs[n] <= done]
        if not turn:
            return turns
        turns.append(turn)
        done.update(turn)


def _lacking_needs(
    wanted: Collection[str], lacking: Mapping[str, GraphVariable], graph: Graph
) -> dict[str, set[str]]:
    """The variables without values that initial values are computed from."""
    needs: dict[str, set[str]] = {}
    waiting = [name for name in lacking if name in wanted]
    seen = set(waiting)
    while waiting:
        name = waiting.pop()
        fixed = _fixed_needs(lacking[name], graph)
        if fixed is None:
            continue
        needs[name] = (fixed & lacking.keys()) - {name}
        waiting += needs[name] - seen
        seen |= needs[name]
    return needs


def _fixed_needs(variable: GraphVariable, graph: Graph) -> set[str] | None:
    """The nodes that compute an initial value; None if it differs from run to run."""
    start = variable.initial_value
    if start is None or start.node not in graph.nodes:
        return None
    seen = {start}
    waiting = [start]
    while waiting:
        tensor = waiting.pop()
        node = graph.nodes.get(tensor.node)
        if node is None or _is_not_taken(tensor, graph):
            continue
        if any(part in node.op for part in _RANDOM_OPS):
            return None
        before = [*node.inputs, *(TensorName(name) for name in node.control_inputs)]
        waiting += [each for each in before if each not in seen]
        seen.update(before)
    return {tensor.node for tensor in seen}


def _is_not_taken(tensor: TensorName, graph: Graph) -> bool:
    """Whether a tensor is there only while some variable has no value."""
    node = graph.nodes[tensor.node]
    if node.op not in _SWITCHES or tensor.index != 0:
        return False
    condition = graph.nodes.get(node.inputs[1].node)
    while condition is not None and condition.op == "Identity":
        condition = graph.nodes.get(condition.inputs[0].node)
    return condition is not None and condition.op in _IS_INITIALIZED
