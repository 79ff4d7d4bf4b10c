"""Puts the optimizer's state of a file of Keras 1 or 2 into an optimizer of Keras 3."""

import dataclasses
import re
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from keras_metagraph.errors import CheckpointError, ShapeMismatchError
from keras_metagraph.formats.keras_h5 import Weights
from keras_metagraph.loading.legacy_keras.layouts import is_lossy
from keras_metagraph.loading.legacy_keras.weights import Leaf
from keras_metagraph.training.slots import optimizer_slots

Array = np.ndarray[Any, Any]

# The slots of standalone Keras in the order in which it stored them: all of one kind,
# then all of the next. Files do not say their names.
_ORDER = {
    "SGD": ("momentum",),
    "RMSprop": ("velocity",),
    "Adagrad": ("accumulator",),
    "Adadelta": ("accumulated_grad", "accumulated_delta_var"),
    "Adam": ("momentum", "velocity", "velocity_hat"),
    "Adamax": ("momentum", "norm"),
    "Nadam": ("momentum", "velocity"),
}
# What later ones call their slots, in names such as `training/Adam/dense/kernel/m:0`
# (TensorFlow 1.13 on) and `Adam/m/dense/kernel:0` (Keras 2.11 on).
SLOTS = {
    "accum_grad": "accumulated_grad",
    "accum_var": "accumulated_delta_var",
    "accumulated_delta_var": "accumulated_delta_var",
    "accumulated_grad": "accumulated_grad",
    "accumulator": "accumulator",
    "average_gradient": "average_gradient",
    "linear": "linear",
    "m": "momentum",
    "mg": "average_gradient",
    "momentum": "momentum",
    "rms": "velocity",
    "u": "norm",
    "v": "velocity",
    "velocity": "velocity",
    "vhat": "velocity_hat",
}
_STEP = re.compile(r"(^|/)iter(ation|ations)?(_\d+)?(:0)?$")


@dataclasses.dataclass
class _State:
    """What a file says of an optimizer."""

    step: int | None
    slots: dict[str, list[Array]]
    momentum_cache: float | None


def restore_optimizer(
    optimizer: Any,
    variables: Sequence[Any],
    kind: str,
    stored: Weights,
    leaves: Sequence[Leaf],
    *,
    by_name: bool,
    ahead: int = 0,
) -> None:
    """Gives an optimizer the step and the slots of a file.

    Args:
        optimizer: What `make_optimizer` made.
        variables: The trainable variables of the model.
        kind: The name of its class in the file.
        stored: Names and values of its weights in the file.
        leaves: The layers with what the file stores for them.
        by_name: Whether the release sorted what it trained by names; if that does not
            fit the shapes, the other order is taken.
        ahead: By how much the step that it computed with was ahead of the stored one.

    Raises:
        CheckpointError: If the file has other slots than the optimizer needs; lists
            all. Nothing was assigned.
    """
    parameters = list(_parameters(leaves))
    state = _read(kind, stored, len(parameters))
    optimizer.build(variables)
    orders = [parameters, sorted(parameters, key=lambda each: each.name)]
    tried = [
        _misfits(order, state) for order in (reversed(orders) if by_name else orders)
    ]
    fitting = [order for order, misfits in tried if not misfits]
    if not fitting:
        _raise_if(tried[0][1])
    by_leaf: dict[int, dict[str, dict[int, Array]]] = {}
    for slot, arrays in state.slots.items():
        for each, array in zip(fitting[0], arrays, strict=True):
            slots_of_leaf = by_leaf.setdefault(id(each.leaf), {})
            slots_of_leaf.setdefault(slot, {})[each.place] = array
    slots = optimizer_slots(optimizer, variables)
    slots_of = {id(v): own for v, own in zip(variables, slots, strict=True)}
    values = []
    for leaf in leaves:
        for slot, own in by_leaf.get(id(leaf), {}).items():
            for variable, value in _converted(leaf, own):
                target = slots_of.get(id(variable), {}).pop(slot, None)
                if target is not None:
                    values.append((target, value))
    missing = [
        f"{variable.path}: {slot}"
        for variable in variables
        for slot in slots_of[id(variable)]
    ]
    _raise_if(missing)
    for target, value in values:
        target.assign(value)
    set_step(optimizer, None if state.step is None else state.step + ahead)
    if state.momentum_cache is not None and hasattr(optimizer, "momentum_cache"):
        optimizer.momentum_cache.assign(state.momentum_cache)


def _raise_if(findings: Sequence[str]) -> None:
    if findings:
        raise ShapeMismatchError(
            "The optimizer's state in the file does not fit the weights:",
            findings=findings,
            fix="pass compile=False to load the model without its optimizer.",
        )


class _Parameter(NamedTuple):
    """A weight that old Keras trained: one of the stored arrays of a layer."""

    leaf: Leaf
    place: int
    name: str
    shape: tuple[int, ...]


def _parameters(leaves: Sequence[Leaf]) -> Iterator[_Parameter]:
    """What old Keras trained, in the order of the layers."""
    for leaf in leaves:
        for index, (name, value) in enumerate(leaf.stored):
            if leaf.trained[index]:
                yield _Parameter(leaf, index, name, value.shape)


def _misfits(
    order: list[_Parameter], state: _State
) -> tuple[list[_Parameter], list[str]]:
    """An order of the weights, and the slots whose shapes do not fit it."""
    return order, [
        f"{each.name}: {slot} {array.shape}, the weight {each.shape}"
        for slot, arrays in state.slots.items()
        for each, array in zip(order, arrays, strict=True)
        if array.shape != each.shape
    ]


def _converted(leaf: Leaf, arrays: Mapping[int, Array]) -> Iterator[tuple[Any, Array]]:
    """One slot of a layer's weights, in the layout of Keras 3."""
    whole = [
        arrays.get(index, np.zeros_like(value))
        for index, (_, value) in enumerate(leaf.stored)
    ]
    lossy = is_lossy(leaf.layer, whole)
    for index, (variable, value) in enumerate(
        zip(leaf.layer.weights, leaf.convert(whole), strict=True)
    ):
        if lossy and index == len(whole) - 1:
            # Both halves had the same gradient, so that the slots are equal too.
            yield variable, value / 2
            warnings.warn(
                f"{variable.path} was trained as two biases that were added "
                "(CuDNNLSTM), which took steps twice as large as those of one.",
                stacklevel=2,
            )
        else:
            yield variable, value


def _read(kind: str, stored: Weights, count: int) -> _State:
    """Sorts what a file has: the step, and for each slot an array of each weight."""
    step, rest = None, list(stored)
    for place, (name, value) in enumerate(stored[:2]):
        if value.size == 1 and (_STEP.search(name) or place == 0) and not value.shape:
            step = int(value)
            del rest[place]
            break
    cache = _take_momentum_cache(kind, rest)
    named = _by_name(rest)
    if named is None:
        named = _by_order(kind, rest, count)
    elif kind == "Adamax" and "velocity" in named:
        named["norm"] = named.pop("velocity")
    uneven = [
        f"{slot}: {len(arrays)} arrays, and {count} weights were trained"
        for slot, arrays in named.items()
        if len(arrays) != count
    ]
    if uneven:
        raise CheckpointError(
            f"The state of the optimizer {kind} in the file is not of this model:",
            findings=uneven,
            fix="pass compile=False to load the model without its optimizer.",
        )
    return _State(step, named, cache)


def _take_momentum_cache(kind: str, stored: Weights) -> float | None:
    """Takes the product of Nadam's momentums out, where a release stored it."""
    for place, (name, value) in enumerate(stored):
        cached = "momentum_cache" in name or (place == 0 and len(stored) % 2)
        if kind == "Nadam" and not value.shape and cached:
            del stored[place]
            return float(value)
    return None


def _by_name(stored: Weights) -> dict[str, list[Array]] | None:
    """The slots by the names that tf.keras gave them; None where it gave none."""
    found: dict[str, list[Array]] = {}
    for name, value in stored:
        parts = re.sub(r":\d+$", "", name).split("/")
        last = re.sub(r"_\d+$", "", parts[-1])
        if not value.shape and last in ("learning_rate", "Variable"):
            continue
        second = parts[1] if len(parts) > 2 else ""
        slot = SLOTS.get(last) or SLOTS.get(second)
        if slot is None:
            return None
        found.setdefault(slot, []).append(value)
    return found


def _by_order(kind: str, stored: Weights, count: int) -> dict[str, list[Array]]:
    """The slots of standalone Keras, which has no names for them."""
    values = [value for _, value in stored]
    slots = _ORDER.get(kind)
    if slots is None:
        raise CheckpointError(
            f"The order in which {kind} stored its state is not known.",
            fix="pass compile=False to load the model without its optimizer.",
        )
    found = {slot: values[i * count : (i + 1) * count] for i, slot in enumerate(slots)}
    left = values[len(slots) * count :]
    if left:
        found[f"{len(slots) + 1} slots"] = left
    if kind == "Adam":
        # Without amsgrad there are none, or placeholders of one number each.
        hats = found["velocity_hat"]
        if not hats or all(value.shape == (1,) for value in hats):
            del found["velocity_hat"]
    return found


def set_step(optimizer: Any, step: int | None) -> None:
    """Sets the number of steps, and what follows from it.

    Args:
        optimizer: A built optimizer that `make_optimizer` made.
        step: The number of steps; None if the file does not say it.
    """
    if step is None:
        if callable(getattr(optimizer, "_learning_rate", None)):
            warnings.warn(
                "The file has the optimizer's decay of the learning rate, but not its "
                "step (Keras 1 and 2.0 to 2.2 did not save that of RMSprop, Adagrad "
                "and Adadelta): the decay starts anew. To go on, set "
                "optimizer.iterations.",
                stacklevel=2,
            )
        return
    optimizer.iterations.assign(step)
    for name, power in _POWERS.items():
        variable = getattr(optimizer, name, None)
        if variable is not None:
            variable.assign(power(optimizer, step))


def _beta1_power(optimizer: Any, step: int) -> float:
    return float(optimizer.beta1) ** (step + 1)


def _momentum_cache(optimizer: Any, step: int) -> float:
    """The product of the momentums of all steps, which most releases did not save."""
    steps = np.arange(1, step + 1, dtype="float64")
    powers = 0.96 ** (optimizer.schedule_decay * steps)
    return float(np.prod(optimizer.beta_1 * (1.0 - 0.5 * powers)))


def _product_of_momentums(optimizer: Any, step: int) -> float:
    """The same in Keras 2.11 and later."""
    return float(optimizer.product_after(step))


_POWERS: dict[str, Callable[[Any, int], float]] = {
    "beta1_power": _beta1_power,
    "momentum_cache": _momentum_cache,
    "u_product": _product_of_momentums,
}
