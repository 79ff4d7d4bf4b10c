"""Names the variables of a Keras model as TensorFlow 1 would.

`dense/kernel` for a weight, `dense/kernel/Adam` for a slot that means what TensorFlow
1's slot of that name means, `global_step` for the optimizer's iterations. The table
that comes out is kept in the exported file, so nobody has to guess it back.
"""

import dataclasses
import re
from collections.abc import Container, Iterable, Iterator, Sequence
from typing import Any

import keras

GLOBAL_STEP = "global_step"

# Optimizers whose slots hold the same values in TensorFlow 1; the suffixes in the
# order in which TensorFlow 1 creates its slots.
_SLOTS: dict[str, dict[str, str]] = {
    "Adam": {"momentum": "Adam", "velocity": "Adam_1"},
    "AdamW": {"momentum": "AdamW", "velocity": "AdamW_1"},
    "RMSprop": {"velocity": "RMSProp", "momentum": "RMSProp_1"},
    "Adagrad": {"accumulator": "Adagrad"},
    "Adadelta": {
        "accumulated_grad": "Adadelta",
        "accumulated_delta_var": "Adadelta_1",
    },
    "Ftrl": {"accumulator": "Ftrl", "linear": "Ftrl_1"},
}
_CENTERED_RMSPROP = {
    "velocity": "RMSProp",
    "average_gradient": "RMSProp_1",
    "momentum": "RMSProp_2",
}
_MOVING_AVERAGE = {"average": "ExponentialMovingAverage"}

_NUMBER = re.compile(r"_\d+$")
_NOT_IN_NAMES = re.compile(r"[^A-Za-z0-9_.\\/-]")
_FIRST_IN_NAMES = re.compile(r"[A-Za-z0-9.]")


@dataclasses.dataclass(frozen=True, slots=True)
class NamedVariable:
    """A variable and its name in the graph.

    Attributes:
        name: Its TensorFlow 1 name: `"dense/kernel"`.
        variable: The `keras.Variable`; for role "other" it may be a `tf.Variable`.
        role: `"weight"`, `"optimizer"`, `"seed"`, `"metric"` or `"other"`.
        index: Its place in the list of its role: `model.weights`,
            `model.optimizer.variables`, `model.metrics_variables`; for seeds and
            others the order in which they were found.
        path: Its Keras path.
        trainable: Whether the model trains it.
    """

    name: str
    variable: Any
    role: str
    index: int
    path: str
    trainable: bool = False


def named_variables(model: Any, others: Iterable[Any] = ()) -> list[NamedVariable]:
    """Lists the variables of a model with the names that they get in a graph.

    Args:
        model: A built `keras.Model`.
        others: Further variables, as the trace of a train step finds them: those of
            a second optimizer, or variables that belong to no layer.

    Returns:
        Every variable once: weights, random seeds, the optimizer's, the metrics', the
        others.

    Example:
        >>> [v.name for v in named_variables(model)]
        ['dense/kernel', 'dense/bias', 'global_step', 'adam/learning_rate', ...]
    """
    table = _Table()
    names = _weight_names(model)
    trainable = {id(v) for v in model.trainable_variables}
    metrics = {id(v) for v in model.metrics_variables}
    for variable in model.weights:
        table.add(variable, names[id(variable)], "weight", id(variable) in trainable)
    weights = list(table.variables)
    for variable in model.variables:
        if id(variable) not in metrics:
            table.add(variable, names[id(variable)], "seed")
    optimizer = getattr(model, "optimizer", None)
    for variable, name in _optimizer_names(optimizer, weights):
        table.add(variable, name, "optimizer")
    for variable in model.metrics_variables:
        table.add(variable, f"metrics/{variable.path}", "metric")
    for optimizer in _further_optimizers(model):
        for variable, name in _optimizer_names(optimizer, weights, main=False):
            table.add(variable, name, "other")
    for variable in others:
        path = getattr(variable, "path", None) or variable.name.partition(":")[0]
        table.add(variable, path, "other", bool(variable.trainable))
    return table.variables


def node_name(text: str) -> str:
    """Turns any text into a name that TensorFlow takes for a node.

    Example:
        >>> node_name("my layer/kernel")
        'my_layer/kernel'
    """
    parts = (part for part in _NOT_IN_NAMES.sub("_", text).split("/") if part)
    name = "/".join(parts)
    return name if _FIRST_IN_NAMES.match(name) else f"x{name}"


class _Table:
    """Collects variables, each one once and under a name of its own."""

    def __init__(self) -> None:
        self.variables: list[NamedVariable] = []
        self._seen: set[int] = set()
        self._taken: set[str] = set()
        self._counts: dict[str, int] = {}

    def add(self, variable: Any, name: str, role: str, trainable: bool = False) -> None:
        """Adds a variable to a role, unless it has one already."""
        if id(variable) in self._seen:
            return
        self._seen.add(id(variable))
        index = self._counts.get(role, 0)
        self._counts[role] = index + 1
        name = self._free(node_name(name))
        path = getattr(variable, "path", None) or variable.name
        self.variables.append(
            NamedVariable(name, variable, role, index, path, trainable)
        )

    def _free(self, name: str) -> str:
        """The name, or the next `name_1`; TensorFlow compares without case."""
        candidate, count = name, 0
        while candidate.lower() in self._taken:
            count += 1
            candidate = f"{name}_{count}"
        self._taken.add(candidate.lower())
        return candidate


def _weight_names(model: Any) -> dict[int, str]:
    """Names the variables of the layers by layer, nested models by their own name."""
    names: dict[int, str] = {}
    queue, seen = [(model, "")], {id(model)}
    for inner, prefix in queue:  # Grows: nested models come after their parents.
        for variable in inner.variables:
            names[id(variable)] = prefix + _inside(variable.path, inner.name)
        for layer in inner.layers:
            # The layer that runs a graph of TensorFlow 1 has that graph's own names.
            for name, variable in getattr(layer, "variable_map", {}).items():
                names[id(variable)] = prefix + name
            if isinstance(layer, keras.Model) and id(layer) not in seen:
                seen.add(id(layer))
                queue.append((layer, f"{prefix}{layer.name}/"))
    return names


def _inside(path: str, model_name: str) -> str:
    """The part of a variable's path below the model; the whole one if it is not in."""
    parts = path.split("/")
    if model_name in parts[:-1]:
        parts = parts[parts.index(model_name) + 1 :]
    return "/".join(parts)


def _further_optimizers(model: Any) -> Iterator[Any]:
    """Optimizers that a subclassed model keeps beside the one it is compiled with."""
    for value in list(vars(model).values()):
        if isinstance(value, keras.optimizers.Optimizer) and value is not getattr(
            model, "optimizer", None
        ):
            yield value


def _optimizer_names(
    optimizer: Any, weights: Sequence[NamedVariable], main: bool = True
) -> Iterator[tuple[Any, str]]:
    """Names the variables of an optimizer and of the one it wraps."""
    if optimizer is None:
        return
    inner = getattr(optimizer, "inner_optimizer", None)
    inherited = {id(v) for v in inner.variables} if inner is not None else set()
    own = [v for v in optimizer.variables if id(v) not in inherited]
    own_name = _without_number(optimizer)
    suffixes = _suffixes(optimizer)
    slots = _slots(own, weights)
    for variable in own:
        if variable.name == "iteration" and main and inner is None:
            yield variable, GLOBAL_STEP
        elif id(variable) in slots:
            weight, slot = slots[id(variable)]
            known = suffixes.get(slot)
            yield (
                variable,
                f"{weight}/{known}" if known else f"{own_name}/{weight}/{slot}",
            )
        else:
            name = _inside(variable.path, optimizer.name)
            yield variable, f"{own_name}/{name}"
    if inner is not None:
        yield from _optimizer_names(inner, weights, main)


def _without_number(optimizer: Any) -> str:
    """The optimizer's name, but for the number of its kind in this process."""
    name = str(optimizer.name)
    base = _NUMBER.sub("", name)
    made_by_keras = base.replace("_", "") == type(optimizer).__name__.lower()
    return base if made_by_keras else name


def _suffixes(optimizer: Any) -> dict[str, str]:
    """Which slots of an optimizer have a name, and the same meaning, in TensorFlow 1.

    A subclass may keep other values under the same names, so the class must be exact.
    """
    kind = type(optimizer).__name__
    exact = getattr(keras.optimizers, kind, None) is type(optimizer)
    slots = _SLOTS.get(kind, {}) if exact else {}
    if slots and getattr(optimizer, "centered", False):
        slots = _CENTERED_RMSPROP
    return {**slots, **_MOVING_AVERAGE}


def _slots(
    variables: Sequence[Any], weights: Sequence[NamedVariable]
) -> dict[int, tuple[str, str]]:
    """Finds the weight's name and the slot's of each slot variable, by its id.

    Keras calls a slot after its weight's path, `sequential_dense_kernel_momentum`; two
    weights of one path follow each other in the optimizer's order.
    """
    by_prefix: dict[str, list[str]] = {}
    for weight in weights:
        by_prefix.setdefault(weight.path.replace("/", "_"), []).append(weight.name)
    used: dict[str, int] = {}
    found: dict[int, tuple[str, str]] = {}
    for variable in variables:
        prefix = _known_prefix(variable.name, by_prefix)
        if prefix is None:
            continue
        place = used.get(variable.name, 0)
        used[variable.name] = place + 1
        names = by_prefix[prefix]
        slot = variable.name[len(prefix) + 1 :]
        found[id(variable)] = (names[min(place, len(names) - 1)], slot)
    return found


def _known_prefix(name: str, prefixes: Container[str]) -> str | None:
    """The longest of the prefixes that ends where an underscore of the name stands."""
    end = name.rfind("_")
    while end > 0:
        if name[:end] in prefixes:
            return name[:end]
        end = name.rfind("_", 0, end)
    return None
