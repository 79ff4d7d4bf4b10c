"""v1 conditions -> `If` nodes.

All joins that `tf.cond` made of one predicate become one `If`, whose branches hold
what the joins need of either side. Inner conditions go first. `Merge` nodes stay under
their names as `Identity`.
"""

from collections.abc import Iterable

from keras_metagraph.errors import PassError
from keras_metagraph.graph.ir import AttrValue, Graph, Node, TensorName
from keras_metagraph.graph.passes import build
from keras_metagraph.graph.passes.branches import Wanted, make_if
from keras_metagraph.graph.passes.cond_groups import group_joins
from keras_metagraph.graph.passes.conditions import (
    ALWAYS,
    Condition,
    Join,
    find_conditions,
)
from keras_metagraph.graph.passes.repair_attributes import RECORDED_SHAPES
from keras_metagraph.graph.passes.result import PassResult


def functionalize_cond(
    graph: Graph, fetches: Iterable[str] = (), targets: Iterable[str] = ()
) -> PassResult:
    """Makes `If` nodes of all v1 conditions of a graph.

    Args:
        graph: A graph without v1 loops, cut down to what shall run. What stands in a
            branch stays in the graph too, but nothing needs it any more.
        fetches: Names of nodes whose tensors are fetched.
        targets: Names of operations that are run for their effect. One that stands in
            a branch becomes an `If` of its own, under its name.

    Raises:
        PassError: If branches are joined as `tf.cond` does not join them, or a fetched
            tensor is not there in all cases.
    """
    if not any(node.op == "Switch" for node in graph.nodes.values()):
        return PassResult(graph, False)
    work = Graph(dict(graph.nodes), dict(graph.functions), graph.producer)
    conditions = find_conditions(work)
    indices = {
        tensor
        for node in work.nodes.values()
        for tensor in node.inputs
        if tensor.index == 1 and work.nodes[tensor.node].op == "Merge"
    }
    while conditions.joins:
        depth = max(len(join.outer) for join in conditions.joins)
        deepest = [join for join in conditions.joins if len(join.outer) == depth]
        for joins in group_joins(work, deepest):
            _replace(work, conditions.of, joins, indices)
        conditions = find_conditions(work)
    _check_fetches(fetches, conditions.of)
    for name in dict.fromkeys(targets):
        _guard(work, conditions.of, name)
    return PassResult(work, True)


def _replace(
    graph: Graph,
    conditions: dict[str, Condition],
    joins: list[Join],
    indices: set[TensorName],
) -> None:
    """Replaces merges of one condition by an `If` and copies of its outputs."""
    first = joins[0]
    merges = [join.node for join in joins]
    false, true = (
        Wanted([join.branches[branch] for join in joins]) for branch in (0, 1)
    )
    name = graph.unique_name(f"{first.node.name}/If")
    node = make_if(graph, conditions, first.predicate, first.outer, (false, true), name)
    types = [build.dtype_of(merge, "T") for merge in merges]
    node.attrs["Tout"] = build.types_attr(types)
    node.attrs["output_shapes"] = _shapes(merges)
    waited = [control for merge in merges for control in merge.control_inputs]
    node.control_inputs = list(dict.fromkeys([*node.control_inputs, *waited]))
    graph.add(node)
    conditions[name] = first.outer
    for place, join in enumerate(joins):
        merge = join.node
        keep = ("T", RECORDED_SHAPES)
        attrs = {key: merge.attrs[key] for key in keep if key in merge.attrs}
        copy = Node(merge.name, "Identity", [TensorName(name, place)], [], attrs)
        graph.nodes[merge.name] = copy
        if TensorName(merge.name, 1) in indices:
            _add_value_index(graph, conditions, join)


def _add_value_index(
    graph: Graph, conditions: dict[str, Condition], join: Join
) -> None:
    """Which input the merge took, for who asks: the predicate as a number."""
    predicate = join.predicate
    if join.node.inputs[0] == join.branches[1]:
        name = graph.unique_name(f"{join.node.name}/not")
        predicate = TensorName(graph.add(Node(name, "LogicalNot", [predicate])).name)
        conditions[name] = join.outer
    attrs = {
        "SrcT": build.type_attr(build.BOOL),
        "DstT": build.type_attr(build.INT32),
    }
    name = graph.unique_name(f"{join.node.name}/value_index")
    graph.add(Node(name, "Cast", [predicate], attrs=attrs))
    conditions[name] = join.outer
    former = TensorName(join.node.name, 1)
    for user in list(graph.nodes.values()):
        if former in user.inputs:
            inputs = [TensorName(name) if t == former else t for t in user.inputs]
            graph.nodes[user.name] = Node(
                user.name, user.op, inputs, user.control_inputs, user.attrs
            )


def _shapes(merges: list[Node]) -> AttrValue:
    value = build.shapes_attr([])
    for merge in merges:
        recorded = merge.attrs.get(RECORDED_SHAPES)
        if recorded is not None and len(recorded.list.shape):
            value.list.shape.append(recorded.list.shape[0])
        else:
            value.list.shape.add(unknown_rank=True)
    return value


def _check_fetches(fetches: Iterable[str], conditions: dict[str, Condition]) -> None:
    missing = [name for name in fetches if conditions[name]]
    if missing:
        raise PassError(
            "Tensors are computed in one branch of a condition only, so that they are "
            "not there in all cases.",
            findings=missing,
            fix="name tensors outside of the condition: the output of its Merge.",
        )


def _guard(graph: Graph, conditions: dict[str, Condition], name: str) -> None:
    """Makes an operation in a branch one that runs if the branch is taken."""
    while conditions[name]:
        condition = conditions[name]
        # The innermost decision: its predicate is itself under all the others.
        predicate, branch = max(
            sorted(condition), key=lambda decision: len(conditions[decision[0].node])
        )
        outer = condition - {(predicate, branch)}
        sides = [Wanted([]), Wanted([])]
        sides[branch] = Wanted([], [name])
        node = make_if(graph, conditions, predicate, outer, (sides[0], sides[1]), name)
        node.attrs["Tout"] = build.types_attr([])
        graph.nodes[name] = node
        conditions[name] = outer if outer else ALWAYS
