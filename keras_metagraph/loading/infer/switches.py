"""Finds what switches a graph between training and inference.

Flags are told by what they decide: `Switch`, `If` and `Select` nodes. Dropout is told
by its arithmetic, which differs between releases: `floor(keep + uniform)` and
`x / keep` until 1.12, `uniform >= rate` from 1.14 on.
"""

import dataclasses
from collections import deque
from collections.abc import Iterable, Iterator
from typing import Any

import tensorflow as tf

from keras_metagraph.graph.ir import Node, TensorName
from keras_metagraph.loading.infer import naming
from keras_metagraph.loading.infer.analysis import FORWARDING_OPS, GraphAnalysis
from keras_metagraph.loading.infer.feeds import Feed

_LOGICAL = frozenset(
    {"LogicalAnd", "LogicalOr", "Cast", "Reshape", "Squeeze", "ExpandDims", "Merge"}
)
_SWITCHES = frozenset({"Switch", "RefSwitch"})
_IFS = frozenset({"If", "StatelessIf", "_If"})
_SELECTS = frozenset({"Select", "SelectV2"})
_DECIDERS = _SWITCHES | _IFS | _SELECTS
_RANDOM = ("Random", "StatelessRandom", "TruncatedNormal", "Multinomial")
_UNIFORM = frozenset(
    {"RandomUniform", "StatelessRandomUniform", "StatelessRandomUniformV2"}
)
_SCALING = frozenset({"Cast", "Reshape", "Squeeze", "ExpandDims", "Merge", "Pack"})
_FAR = 8  # how many ops lie between a random number and the comparison, at most


@dataclasses.dataclass(frozen=True)
class TrainingValue:
    """A tensor whose value depends on whether the graph trains.

    Attributes:
        tensor: Its name.
        values: What is fed when training, and otherwise.
        reason: How it was recognized.
        warning: What the caller should know.
    """

    tensor: TensorName
    values: tuple[Any, Any]
    reason: str
    warning: str = ""


def find_training_values(
    analysis: GraphAnalysis, feeds: Iterable[Feed]
) -> list[TrainingValue]:
    """Finds flags and dropout rates among the feeds, and flags kept in variables."""
    found = []
    for feed in feeds:
        value = (
            _flag(analysis, feed)
            or _dropouts(analysis, feed)
            or _dropout(analysis, feed)
        )
        if value is not None:
            found.append(value)
    return [*found, *_variable_flags(analysis)]


def flag_values(analysis: GraphAnalysis, tensor: TensorName) -> tuple[Any, Any]:
    """What a training flag is fed with when training, and otherwise."""
    decisions = list(_decisions(analysis, tensor))
    true, false = True, False
    if analysis.dtype(tensor) not in (None, tf.bool):
        true, false = 1, 0  # type: ignore[assignment]
    if _trains_when_true(analysis, tensor, decisions):
        return (true, false)
    return (false, true)


def _flag(analysis: GraphAnalysis, feed: Feed) -> TrainingValue | None:
    name = feed.tensor.node
    named = naming.is_training_flag(name)
    if not feed.maybe_scalar or feed.kind == "pipeline":
        return None
    if feed.dtype != tf.bool and not (
        named and feed.dtype is not None and feed.dtype.is_integer
    ):
        return None
    decisions = [node for node, _ in _decisions(analysis, feed.tensor)]
    if not named and (
        not decisions or (feed.rank is None and decisions[0].op in _SELECTS)
    ):
        return None
    values = flag_values(analysis, feed.tensor)
    how = f"decides {decisions[0].name}" if decisions else "is called so"
    return TrainingValue(feed.tensor, values, f"training flag: {how}")


def _variable_flags(analysis: GraphAnalysis) -> Iterator[TrainingValue]:
    """Flags in variables, as TFLearn has them (`tflearn.is_training`)."""
    for name, variable in analysis.variables.items():
        if variable.dtype != tf.bool or not naming.is_training_flag(name):
            continue
        for node in analysis.graph.nodes.values():
            if node.op not in ("Identity", "ReadVariableOp"):
                continue
            if node.inputs and node.inputs[0].node == name:
                tensor = TensorName(node.name)
                if next(_decisions(analysis, tensor), None) is not None:
                    yield TrainingValue(
                        tensor,
                        flag_values(analysis, tensor),
                        f"training flag: reads the variable {name}",
                    )


def _decisions(
    analysis: GraphAnalysis, tensor: TensorName
) -> Iterator[tuple[Node, bool]]:
    """Nodes that a boolean decides, each with whether it does so negated."""
    queue = deque([(tensor, False)])
    seen = {tensor}
    while queue:
        tensor, negated = queue.popleft()
        for node in analysis.tensor_users.get(tensor, []):
            place = node.inputs.index(tensor)
            if node.op in _SWITCHES and place == 0 and tensor not in node.inputs[1:]:
                outputs = [TensorName(node.name, 0), TensorName(node.name, 1)]
            elif node.op in _SWITCHES or (node.op in _IFS | _SELECTS and place == 0):
                yield node, negated
                outputs = []
            elif node.op in FORWARDING_OPS | _LOGICAL or node.op == "LogicalNot":
                outputs = [TensorName(node.name)]
            else:
                continue
            for output in outputs:
                if output not in seen:
                    seen.add(output)
                    queue.append((output, negated ^ (node.op == "LogicalNot")))


def _trains_when_true(
    analysis: GraphAnalysis, tensor: TensorName, decisions: list[tuple[Node, bool]]
) -> bool:
    """Whether a flag means training: its branch draws random numbers, for example."""
    votes = 0
    for node, negated in decisions:
        vote = _branch_vote(analysis, node)
        votes += -vote if negated else vote
    if votes:
        return votes > 0
    return not naming.is_inference_flag(tensor.node)


def _branch_vote(analysis: GraphAnalysis, node: Node) -> int:
    """1 if only the true branch of a node trains, -1 if only the false one, else 0."""
    if node.op in _IFS:
        return _function_vote(analysis, node)
    if node.op not in _SWITCHES:
        return 0
    sides = []
    for index in (1, 0):
        first = analysis.tensor_users.get(TensorName(node.name, index), [])
        names = analysis.reach(
            [user.name for user in first if not user.op.endswith("Merge")],
            control=True,
            stop=lambda user: user.op.endswith("Merge"),
        )
        sides.append(any(is_training_op(analysis.graph.nodes[name]) for name in names))
    return int(sides[0]) - int(sides[1])


def _function_vote(analysis: GraphAnalysis, node: Node) -> int:
    """The same for a node whose branches are functions."""
    sides = []
    for key in ("then_branch", "else_branch"):
        name = node.attrs[key].func.name if key in node.attrs else ""
        function = analysis.graph.functions.get(name)
        nodes = function.graph.nodes.values() if function is not None else ()
        sides.append(any(is_training_op(each) for each in nodes))
    return int(sides[0]) - int(sides[1])


def is_training_op(node: Node) -> bool:
    """Whether a node does what is done in training only: noise, batch statistics."""
    if node.op.startswith("FusedBatchNorm") and "is_training" in node.attrs:
        return bool(node.attrs["is_training"].b)
    return node.op.startswith((*_RANDOM, "AssignSub", "AssignMovingAvg"))


def _dropout(analysis: GraphAnalysis, feed: Feed) -> TrainingValue | None:
    """A scalar that dropout keeps or drops by; 1.0 or 0.0 without dropout."""
    if not feed.maybe_scalar or feed.kind == "pipeline":
        return None
    if feed.dtype is not None and not feed.dtype.is_floating:
        return None
    name = feed.tensor.node
    keeps = _keeps(analysis, feed.tensor)
    how = "by the arithmetic of dropout"
    if keeps is None:
        how = "by its name"
        if naming.is_keep_probability(name):
            keeps = True
        elif naming.is_dropout_rate(name) and feed.rank == 0:
            keeps = False
        else:
            return None
    off = 1.0 if keeps else 0.0
    what = "keep probability" if keeps else "rate"
    if feed.default is not None:
        return TrainingValue(
            feed.tensor,
            (feed.default, off),
            f"dropout {what}, {how}; {feed.default} when training is its default",
        )
    return TrainingValue(
        feed.tensor,
        (off, off),
        f"dropout {what}, {how}",
        f"the file does not say which dropout {what} {feed.tensor} had when training: "
        f"{off} is taken, no dropout; set it with training_flag="
        f"{{{str(feed.tensor)!r}: ({0.5}, {off})}}",
    )


def _dropouts(analysis: GraphAnalysis, feed: Feed) -> TrainingValue | None:
    """A vector of numbers that dropouts keep or drop by, one for each layer."""
    if feed.rank not in (None, 1) or feed.kind == "pipeline":
        return None
    if feed.dtype is not None and not feed.dtype.is_floating:
        return None
    elements = _elements(analysis, feed.tensor)
    keeps = {_keeps(analysis, tensor) for tensor in elements}
    if len(keeps) != 1 or None in keeps:
        return None
    # A negative place counts from the end.
    length = max(place + 1 if place >= 0 else -place for place in elements.values())
    off = [1.0 if keeps == {True} else 0.0] * length
    what = "keep probabilities" if keeps == {True} else "rates"
    return TrainingValue(
        feed.tensor,
        (off, off),
        f"dropout {what}, by the arithmetic of dropout",
        f"the file does not say which dropout {what} {feed.tensor} had when training: "
        f"{off} is taken, no dropout; set it with training_flag="
        f"{{{str(feed.tensor)!r}: ({[0.5] * length}, {off})}}",
    )


def _elements(analysis: GraphAnalysis, tensor: TensorName) -> dict[TensorName, int]:
    """The single elements of a vector, with their places, if only these are used."""
    found: dict[TensorName, int] = {}
    for node in analysis.tensor_users.get(tensor, []):
        if node.op == "Unpack":
            count = node.attrs["num"].i
            found |= {TensorName(node.name, place): place for place in range(count)}
        elif node.op == "StridedSlice" and node.attrs["shrink_axis_mask"].i == 1:
            place = analysis.constant_array(node.inputs[1])
            if place is None or place.shape != (1,):
                return {}
            found[TensorName(node.name)] = int(place[0])
        elif not analysis.is_summary(node):
            return {}
    return found


def _keeps(analysis: GraphAnalysis, tensor: TensorName) -> bool | None:
    """Whether a number is what dropout keeps, or drops; `None` if it is neither."""
    queue = deque([(tensor, True)])
    seen = {tensor}
    while queue:
        tensor, straight = queue.popleft()
        for node in analysis.tensor_users.get(tensor, []):
            place = node.inputs.index(tensor)
            role = _role(analysis, node, place)
            if role is not None:
                return role is straight
            flips = (
                node.op == "Sub"
                and place == 1
                and (analysis.constant(node.inputs[0]) == 1)
            )
            if not (flips or node.op in FORWARDING_OPS | _SCALING):
                continue
            for index in range(2 if node.op in _SWITCHES else 1):
                output = TensorName(node.name, index)
                if output not in seen:
                    seen.add(output)
                    queue.append((output, straight ^ flips))
    return None


def _role(analysis: GraphAnalysis, node: Node, place: int) -> bool | None:
    """What a comparison with a random number says about its other operand."""
    if len(node.inputs) != 2 or not _is_uniform(analysis, node.inputs[1 - place]):
        return None
    if node.op in ("Add", "AddV2"):
        users = analysis.users[node.name]
        return True if any(user.op == "Floor" for user in users) else None
    if node.op in ("GreaterEqual", "Greater"):
        return place == 0
    if node.op in ("Less", "LessEqual"):
        return place == 1
    return None


def _is_uniform(analysis: GraphAnalysis, tensor: TensorName) -> bool:
    """Whether a tensor is a random number from an interval."""
    level = [tensor.node]
    for _ in range(_FAR):
        nodes = [analysis.graph.nodes[n] for n in level if n in analysis.graph.nodes]
        if any(node.op in _UNIFORM for node in nodes):
            return True
        level = [
            before.node
            for node in nodes
            if node.op in ("Add", "AddV2", "Mul", "Sub", "Cast", "Identity")
            for before in node.inputs
        ]
    return False
