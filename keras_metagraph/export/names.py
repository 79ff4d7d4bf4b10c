"""Names the variables of a Keras model as TensorFlow 1 would.

`dense/kernel` for a weight, `dense/kernel/Adam` for a slot that means what TensorFlow
1's slot of that name means, `global_step` for the optimizer's iterations. The table
that comes out is kept in the exported file, so nobody has to guess it back.
"""

import dataclasses
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import keras

from keras_metagraph.export.fused import fused_step
from keras_metagraph.training.rules import slot_suffixes
from keras_metagraph.training.slots import optimizer_slots

GLOBAL_STEP = "global_step"
# Optimizers with the rules of TensorFlow 1 keep these, and there no scope has them.
_POWERS = frozenset({"beta1_power", "beta2_power"})
_NUMBER = re.compile(r"_\d+$")
_NOT_IN_NAMES = re.compile(r"[^A-Za-z0-9_.\\/-]")
_FIRST_IN_NAMES = re.compile(r"[A-Za-z0-9.]")


@dataclasses.dataclass(frozen=True, slots=True)
class NamedVariable:
    """A variable and its name in the graph.

    Attributes:
        name: Its TensorFlow 1 name: `"dense/kernel"`.
        variable: The `keras.Variable`; for role "other" it may be a `tf.Variable`.
        role: `"weight"`, `"optimizer"`, `"seed"`, `"metric"`, `"other"`; or
            `"derived"`, of a `DerivedVariable`, which Keras does not keep.
        index: Its place in the list of its role: `model.weights`,
            `model.optimizer.variables`, `model.metrics_variables`; for seeds and
            others the order in which they were found.
        path: Its Keras path.
        trainable: Whether the model trains it.
        initial: What all its elements start from, if that is known.
    """

    name: str
    variable: Any
    role: str
    index: int
    path: str
    trainable: bool = False
    initial: float | None = None


def named_variables(
    model: Any, others: Iterable[Any] = (), known: Mapping[int, str] | None = None
) -> list[NamedVariable]:
    """Lists the variables of a model with the names that they get in a graph.

    Args:
        model: A built `keras.Model`.
        others: Further variables, as the trace of a train step finds them: those of
            a second optimizer, or variables that belong to no layer.
        known: Names that variables have already, by their `identity`: in a SavedModel
            all graphs read one checkpoint. No other variable gets one of these.

    Returns:
        Every variable once: weights, random seeds, the optimizer's, the metrics', the
        others.

    Example:
        >>> [v.name for v in named_variables(model)]
        ['dense/kernel', 'dense/bias', 'global_step', 'adam/learning_rate', ...]
    """
    table = _Table(known or {})
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
    for variable, name, initial in _optimizer_names(optimizer, weights):
        table.add(variable, name, "optimizer", initial=initial)
    for variable in model.metrics_variables:
        table.add(variable, f"metrics/{variable.path}", "metric")
    for optimizer in _further_optimizers(model):
        for variable, name, initial in _optimizer_names(optimizer, weights, main=False):
            table.add(variable, name, "other", initial=initial)
    by_name = {weight.name: weight.variable for weight in weights}
    for optimizer in optimizers_of(model):
        step = fused_step(optimizer, by_name)
        for name, derived in step.derived.items() if step is not None else ():
            table.add(derived, name, "derived")
    for variable in others:
        path = getattr(variable, "path", None) or variable.name.partition(":")[0]
        table.add(variable, path, "other", bool(variable.trainable))
    return table.variables


def is_global_step(name: str, role: str) -> bool:
    """Whether a variable counts the steps; another model's in a SavedModel may, too."""
    return role == "optimizer" and _NUMBER.sub("", name) == GLOBAL_STEP


def optimizers_of(model: Any) -> list[Any]:
    """The optimizers of a model, and those that they wrap or that they consist of."""
    main = getattr(model, "optimizer", None)
    queue = [each for each in (main, *_further_optimizers(model)) if each is not None]
    for optimizer in queue:  # Grows.
        queue += [
            inner
            for inner in inner_optimizers(optimizer)
            if not any(inner is each for each in queue)
        ]
    return queue


def inner_optimizers(optimizer: Any) -> list[Any]:
    """The optimizer that a loss scale wraps, or those that a group consists of."""
    wrapped = getattr(optimizer, "inner_optimizer", None)
    return list(getattr(optimizer, "optimizers", ())) if wrapped is None else [wrapped]


def handles_of(variable: Any) -> Iterator[Any]:
    """The resource handles of a Keras or TensorFlow variable.

    A mirrored variable has one a replica; a trace captures the first.
    """
    held = getattr(variable, "value", variable)
    held = variable if callable(held) else held
    components = getattr(held, "values", None)
    for component in components if isinstance(components, tuple | list) else [held]:
        yield component.handle


def identity(variable: Any) -> int:
    """Tells variables apart: a Keras variable is that of TensorFlow inside it."""
    return id(next(handles_of(variable)))


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

    def __init__(self, known: Mapping[int, str]) -> None:
        self.variables: list[NamedVariable] = []
        self._known = known
        self._seen: set[int] = set()
        self._taken = {name.lower() for name in known.values()}
        self._counts: dict[str, int] = {}

    def add(
        self,
        variable: Any,
        name: str,
        role: str,
        trainable: bool = False,
        initial: float | None = None,
    ) -> None:
        """Adds a variable to a role, unless it has one already."""
        if id(variable) in self._seen:
            return
        self._seen.add(id(variable))
        index = self._counts.get(role, 0)
        self._counts[role] = index + 1
        known = self._known.get(identity(variable)) if self._known else None
        name = known or self._free(node_name(name))
        path = getattr(variable, "path", None) or variable.name
        self.variables.append(
            NamedVariable(name, variable, role, index, path, trainable, initial)
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
) -> Iterator[tuple[Any, str, float | None]]:
    """Names the variables of an optimizer and of those inside, with initial values."""
    if optimizer is None:
        return
    inside = inner_optimizers(optimizer)
    inherited = {id(v) for inner in inside for v in inner.variables}
    own = [v for v in optimizer.variables if id(v) not in inherited]
    # A loss scale leaves the counting of steps to the optimizer that it wraps.
    counts = not hasattr(optimizer, "inner_optimizer")
    own_name = _without_number(optimizer)
    suffixes = slot_suffixes(optimizer)
    slots = _slots(optimizer, weights)
    for variable in own:
        if variable.name == "iteration" and main and counts:
            yield variable, GLOBAL_STEP, 0
        elif variable.name in _POWERS:
            decay = getattr(optimizer, variable.name.removesuffix("_power"))
            yield variable, variable.name, decay
        elif id(variable) in slots:
            weight, slot = slots[id(variable)]
            known = suffixes.get(slot)
            name = f"{weight}/{known}" if known else f"{own_name}/{weight}/{slot}"
            yield variable, name, _slot_start(optimizer, slot)
        else:
            name = _inside(variable.path, optimizer.name)
            yield variable, f"{own_name}/{name}", None
    for inner in inside:
        yield from _optimizer_names(inner, weights, main and not counts)


def _slot_start(optimizer: Any, slot: str) -> float | None:
    """What a slot is filled with at first, if that is known."""
    if hasattr(optimizer, "slot_values"):
        values: dict[str, float] = optimizer.slot_values()
        return values.get(slot)
    kind = type(optimizer)
    if getattr(keras.optimizers, kind.__name__, None) is not kind:
        return None
    return float(getattr(optimizer, f"initial_{slot}_value", 0.0))


def _without_number(optimizer: Any) -> str:
    """The optimizer's name, but for the number of its kind in this process."""
    name = str(optimizer.name)
    base = _NUMBER.sub("", name)
    made_by_keras = base.replace("_", "") == type(optimizer).__name__.lower()
    return base if made_by_keras else name


def _slots(
    optimizer: Any, weights: Sequence[NamedVariable]
) -> dict[int, tuple[str, str]]:
    """Finds the weight's name and the slot's of each slot variable, by its id."""
    slots = optimizer_slots(optimizer, [weight.variable for weight in weights])
    return {
        id(variable): (weight.name, slot)
        for weight, own in zip(weights, slots, strict=True)
        for slot, variable in own.items()
    }
