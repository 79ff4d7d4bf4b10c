"""Finds which variable of a Keras optimizer holds which slot of which weight."""

from collections.abc import Container, Sequence
from typing import Any


def optimizer_slots(optimizer: Any, variables: Sequence[Any]) -> list[dict[str, Any]]:
    """Lists the slots that an optimizer keeps for each weight.

    Keras calls a slot after its weight's path, `sequential_dense_kernel_momentum`; two
    weights of one path follow each other in the order in which they were built.

    Args:
        optimizer: A built `keras.optimizers.Optimizer`; also one that wraps others.
        variables: The weights, in the order in which the optimizer was built. Weights
            that it does not train may be among them.

    Returns:
        For each weight its slot variables by Keras's name of the slot; an empty dict
        for a weight that has none.

    Example:
        >>> [list(s) for s in optimizer_slots(optimizer, model.trainable_variables)]
        [['momentum', 'velocity'], ['momentum', 'velocity']]
    """
    slots: list[dict[str, Any]] = [{} for _ in variables]
    by_prefix: dict[str, list[int]] = {}
    for index, variable in enumerate(variables):
        by_prefix.setdefault(_prefix(variable), []).append(index)
    for variable in optimizer.variables:
        prefix = _known_prefix(variable.name, by_prefix)
        if prefix is None:
            continue
        slot = variable.name[len(prefix) + 1 :]
        without = [i for i in by_prefix[prefix] if slot not in slots[i]]
        if without:
            slots[without[0]][slot] = variable
    return slots


def _prefix(variable: Any) -> str:
    """What Keras begins the names of a weight's slots with."""
    path = getattr(variable, "path", None)
    text = variable.name.replace(":", "_") if path is None else path
    return str(text).replace("/", "_")


def _known_prefix(name: str, prefixes: Container[str]) -> str | None:
    """The longest of the prefixes that ends where an underscore of the name stands."""
    end = name.rfind("_")
    while end > 0:
        if name[:end] in prefixes:
            return name[:end]
        end = name.rfind("_", 0, end)
    return None
