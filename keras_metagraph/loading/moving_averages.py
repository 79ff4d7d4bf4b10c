"""Finds the moving averages that a graph keeps of its variables.

`tf.train.ExponentialMovingAverage` makes a shadow of each variable and, with every
step, runs `shadow -= (shadow - variable) * (1 - decay)`. That formula is looked for;
the names of shadows are the user's to choose.
"""

import dataclasses
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any

import tensorflow as tf

from keras_metagraph.checkpoint.reader import TensorReader
from keras_metagraph.errors import MissingVariableError
from keras_metagraph.graph.ir import Graph, Node, TensorName
from keras_metagraph.graph.variables import GraphVariable

SUFFIX = "ExponentialMovingAverage"
"""The name that `tf.train.ExponentialMovingAverage` has by default."""

_SUBTRACTIONS = frozenset({"AssignSub", "AssignSubVariableOp"})
_READS = frozenset(
    {"Identity", "ReadVariableOp", "RefIdentity", "Enter", "Switch", "RefSwitch"}
)
_COLLECTIONS = frozenset({"moving_average_variables"})


@dataclasses.dataclass(frozen=True)
class MovingAverages:
    """The moving averages of a graph.

    Attributes:
        shadows: Names of shadow variables by the names of the variables they average.
        decay: What they decay by with each step; None where there are none, or the
            graph computes something that was not recognized.
        counted: Whether the decay of the first steps is smaller, `(1 + n) / (10 + n)`
            where n is the number of updates (`num_updates` of TensorFlow 1). Keras's
            `use_ema` knows no such start.
    """

    shadows: dict[str, str] = dataclasses.field(default_factory=dict)
    decay: float | None = None
    counted: bool = False


def find_moving_averages(graph: Graph, variables: Collection[str]) -> MovingAverages:
    """Finds shadow variables, and what they decay by.

    Args:
        graph: A graph of TensorFlow 1, with reference or resource variables.
        variables: The names of its variables.

    Returns:
        What was found; without shadows if the graph updates none. The moving mean and
        variance of batch normalization average no variable, and are left out.

    Example:
        >>> averages = find_moving_averages(graph, variables)
        >>> averages.shadows["dense/kernel"], averages.decay
        ('dense/kernel/ExponentialMovingAverage', 0.999)
    """
    shadows: dict[str, str] = {}
    rates: set[tuple[float | None, bool]] = set()
    for node in graph.nodes.values():
        if node.op not in _SUBTRACTIONS or len(node.inputs) < 2:
            continue
        shadow = _variable(graph, node.inputs[0], variables)
        for difference, rate in _factors(graph, node.inputs[1]):
            averaged = _averaged(graph, difference, shadow, variables)
            if shadow is not None and averaged is not None:
                shadows[averaged] = shadow
                rates.add(_decay(graph, rate))
    if len(rates) != 1:
        return MovingAverages(shadows)
    ((decay, counted),) = rates
    return MovingAverages(shadows, decay, counted)


def take_shadows(
    graph: Graph,
    variables: Mapping[str, GraphVariable],
    needed: Collection[str],
    reader: TensorReader,
) -> dict[str, GraphVariable]:
    """Lets the variables of a model be restored from their moving averages.

    As `ExponentialMovingAverage.variables_to_restore` of TensorFlow 1: variables that
    are trainable, or in its collection, come from their shadows; others, such as the
    statistics of batch normalization, from their own tensors.

    Args:
        graph: The graph.
        variables: Its variables by name.
        needed: The nodes that the model's outputs need.
        reader: The checkpoint.

    Returns:
        The variables; those with shadows have the key and the part of their shadow.

    Raises:
        MissingVariableError: If variables have no shadow in graph and checkpoint;
            lists all of them.
    """
    shadows = find_moving_averages(graph, variables.keys()).shadows
    averaged = [
        variable
        for name, variable in variables.items()
        if name in needed
        and (variable.trainable or variable.collections & _COLLECTIONS)
    ]
    result = dict(variables)
    missing = [] if averaged else ["none of them is trainable"]
    for variable in averaged:
        stored = variables.get(shadows.get(variable.name, ""))
        if stored is None:
            stored = _by_name(variable, variables, reader)
        if stored is None or stored.checkpoint_key not in reader:
            missing.append(f"{variable.name} {variable.shape}")
            continue
        result[variable.name] = dataclasses.replace(
            variable,
            checkpoint_key=stored.checkpoint_key,
            slice=stored.slice,
            reshape=stored.reshape,
        )
    _require_all(missing, reader)
    return result


def shadow_keys(keys: Mapping[str, str], reader: TensorReader) -> dict[str, str]:
    """Finds the moving averages of a model's weights by the names in a checkpoint.

    Args:
        keys: The keys of the weights by name.
        reader: The checkpoint.

    Returns:
        The keys of their moving averages by name.

    Raises:
        MissingVariableError: If weights have none; lists all of them.
    """
    known = set(reader.keys())
    found = {name: shadow_key(key, known) for name, key in keys.items()}
    _require_all([name for name, key in found.items() if key is None], reader)
    return {name: key for name, key in found.items() if key is not None}


def shadow_key(key: str, keys: Collection[str]) -> str | None:
    """Finds the moving average of a tensor by the names in a checkpoint.

    Args:
        key: The tensor's key.
        keys: All keys.

    Returns:
        `<key>/ExponentialMovingAverage`, or the only one that has a scope before that,
        where `ema.apply` stood in a `variable_scope`; None if there is none.

    Example:
        >>> shadow_key("w", ["w", "train/w/ExponentialMovingAverage"])
        'train/w/ExponentialMovingAverage'
    """
    wanted = f"{key}/{SUFFIX}"
    if wanted in keys:
        return wanted
    if key.endswith(f"/{SUFFIX}") and key in keys:
        return key  # A graph of evaluation, whose saver reads the averages anyway.
    scoped = [other for other in keys if other.endswith(f"/{wanted}")]
    return scoped[0] if len(scoped) == 1 else None


def _require_all(missing: Sequence[str], reader: TensorReader) -> None:
    if missing:
        raise MissingVariableError(
            f"The checkpoint {reader.prefix!r} has no moving averages of variables "
            "that the model trains:",
            findings=missing,
            fix="load it without ema=True, or name the checkpoint of a training that "
            "kept moving averages of them.",
        )


def _by_name(
    variable: GraphVariable,
    variables: Mapping[str, GraphVariable],
    reader: TensorReader,
) -> GraphVariable | None:
    """The shadow that a graph does not update, as one for evaluation only."""
    named = shadow_key(variable.name, variables.keys() - {variable.name})
    if named is not None:
        return variables[named]
    key = shadow_key(variable.checkpoint_key or variable.name, reader.keys())
    return None if key is None else dataclasses.replace(variable, checkpoint_key=key)


def _factors(
    graph: Graph, product: TensorName
) -> Iterator[tuple[TensorName, TensorName]]:
    """The two factors of a product, in either order."""
    node = graph.nodes.get(product.node)
    if node is not None and node.op == "Mul" and len(node.inputs) == 2:
        yield node.inputs[0], node.inputs[1]
        yield node.inputs[1], node.inputs[0]


def _averaged(
    graph: Graph, difference: TensorName, shadow: str | None, variables: Collection[str]
) -> str | None:
    """The variable in `shadow - variable`, or None if the tensor is no such thing."""
    node = graph.nodes.get(difference.node)
    if shadow is None or node is None or node.op != "Sub" or len(node.inputs) != 2:
        return None
    own, other = (_variable(graph, tensor, variables) for tensor in node.inputs)
    return other if own == shadow and other != shadow else None


def _variable(
    graph: Graph, tensor: TensorName, variables: Collection[str]
) -> str | None:
    """The variable whose value a tensor is."""
    node = _read(graph, tensor)
    return node.name if node is not None and node.name in variables else None


def _read(graph: Graph, tensor: TensorName) -> Node | None:
    """The node that a tensor comes from, reads left aside."""
    for _ in range(len(graph.nodes)):
        node = graph.nodes.get(tensor.node)
        if node is None or node.op not in _READS or not node.inputs:
            return node
        tensor = node.inputs[0]
    return None


def _decay(graph: Graph, rate: TensorName) -> tuple[float | None, bool]:
    """The decay in `1 - decay`, and whether it is smaller at first."""
    node = _read(graph, rate)
    if node is None:
        return None, False
    if node.op == "Const":
        return _rounded(1 - _constant(node)), False
    if node.op != "Sub" or len(node.inputs) != 2:
        return None, False
    decay = _read(graph, node.inputs[1])
    counted = decay is not None and decay.op == "Minimum"
    if decay is not None and counted:
        decay = _read(graph, decay.inputs[0])
    if decay is None or decay.op != "Const":
        return None, counted
    return _rounded(_constant(decay)), counted


def _constant(node: Node) -> float:
    value: Any = tf.make_ndarray(node.attrs["value"].tensor)
    return float(value)


def _rounded(value: float) -> float:
    """The shortest number that is the same 32-bit one: 0.7, not 0.699999988."""
    return float(f"{value:.7g}")
