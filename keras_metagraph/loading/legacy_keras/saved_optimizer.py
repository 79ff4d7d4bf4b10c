"""Puts the state of the optimizer of a Keras 2 SavedModel into one of Keras 3.

Until Keras 2.10 the slots of an optimizer hang on it in the object graph, each with the
variable that it is of (`OptimizerV2`). From 2.11 on the optimizer has lists of them, in
the order of the model's trainable variables.
"""

from collections.abc import Iterator, Sequence
from typing import Any

import keras

from keras_metagraph.errors import ShapeMismatchError
from keras_metagraph.loading.legacy_keras.optimizer_state import SLOTS, set_step
from keras_metagraph.loading.legacy_keras.saved_objects import ROOT, SavedObjects
from keras_metagraph.loading.legacy_keras.saved_weights import Pair
from keras_metagraph.training.slots import optimizer_slots

# The lists of Keras 2.11 and later.
_LISTS = {
    "_accumulated_delta_vars": "accumulated_delta_var",
    "_accumulated_grads": "accumulated_grad",
    "_accumulators": "accumulator",
    "_average_gradients": "average_gradient",
    "_linears": "linear",
    "_m": "momentum",
    "_model_variables_moving_average": "average",
    "_momentums": "momentum",
    "_u": "norm",
    "_v": "velocity",
    "_velocities": "velocity",
    "_velocity_hats": "velocity_hat",
    "momentums": "momentum",
}
# Of Nadam.
_PRODUCTS = {"_u_product": "u_product", "momentum_cache": "momentum_cache"}
_STEPS = ("_iterations", "iter")


def restore_saved_optimizer(
    model: Any, pairs: Sequence[Pair], objects: SavedObjects
) -> None:
    """Gives the optimizer of a compiled model the step and slots of a SavedModel.

    Args:
        model: The model of Keras 3, with its weights.
        pairs: Its weights, and which saved variables they were.
        objects: The SavedModel.

    Raises:
        ShapeMismatchError: If the SavedModel lacks slots, or has others than the
            optimizer; lists all. Nothing was assigned.
    """
    saved = objects.children(ROOT).get("optimizer")
    if saved is None:
        return
    optimizer = model.optimizer
    optimizer.build(model.trainable_variables)
    inner, found = optimizer, saved
    if isinstance(optimizer, keras.optimizers.LossScaleOptimizer):
        inner, found = optimizer.inner_optimizer, _inner(saved, objects)
    steps = [objects.children(found).get(name) for name in _STEPS]
    step = next((node for node in steps if node is not None), None)
    passed = None if step is None else objects.value(step)
    if passed is None:
        return  # It was compiled, and saved without its optimizer.
    values = _slot_values(model, inner, found, pairs, objects, trained=int(passed) > 0)
    if isinstance(inner, keras.optimizers.Adafactor):
        values += _factors(model, inner, found, objects)
    if inner is not optimizer:
        values += _loss_scale(optimizer, saved, objects)
    for variable, value in values:
        variable.assign(value)
    set_step(inner, int(passed))
    for saved_name, name in _PRODUCTS.items():
        node = objects.children(found).get(saved_name)
        if node is not None and hasattr(inner, name):
            getattr(inner, name).assign(objects.value(node))


def _slot_values(
    model: Any,
    optimizer: Any,
    saved: int,
    pairs: Sequence[Pair],
    objects: SavedObjects,
    *,
    trained: bool,
) -> list[tuple[Any, Any]]:
    """The slots of the optimizer, with the values that they get."""
    variables = model.trainable_variables
    weights = {pair.node: pair.variable for pair in pairs}
    slots = optimizer_slots(optimizer, variables)
    lacking = {id(v): dict(own) for v, own in zip(variables, slots, strict=True)}
    values, findings = [], []
    for node, slot, slot_node in _saved_slots(saved, objects):
        weight = weights.get(node)
        if weight is None:
            continue  # Of a variable that is no weight of the model.
        own = lacking.get(id(weight), {})
        if slot == "velocity" and "norm" in own:
            slot = "norm"  # of Adamax, whose two slots were "m" and "v"
        target = own.pop(slot, None)
        value = objects.value(slot_node)
        if target is None:
            continue  # It is of a weight that is not trained any more.
        if value is None or value.shape != tuple(target.shape):
            findings.append(f"{weight.path}: the slot {slot} is of another shape")
        values.append((target, value))
    if trained:
        findings += [
            f"{variable.path}: no slot {slot} in the SavedModel"
            for variable in variables
            for slot in lacking[id(variable)]
        ]
    if findings:
        raise ShapeMismatchError(
            "The optimizer's state in the SavedModel does not fit the weights:",
            findings=findings,
            fix="pass compile=False to load the model without its optimizer.",
        )
    return values


def _saved_slots(saved: int, objects: SavedObjects) -> Iterator[tuple[int, str, int]]:
    """The slots of an optimizer: variable, Keras 3's name of the slot, its variable."""
    for node, slot, slot_node in objects.slots(saved):
        yield node, SLOTS.get(slot, slot), slot_node
    trained = objects.listed(ROOT, "trainable_variables")
    for name, slot in _LISTS.items():
        # A list may be empty, as that of SGD without momentum.
        for node, slot_node in zip(trained, objects.listed(saved, name), strict=False):
            yield node, slot, slot_node


def _factors(
    model: Any, optimizer: Any, saved: int, objects: SavedObjects
) -> list[tuple[Any, Any]]:
    """The factors of the second moments of matrices.

    Keras creates them before the slot `velocity` of the same weight, and gives them
    the names of the weight.
    """
    rows, columns = (objects.listed(saved, name) for name in ("_r", "_c"))
    variables = optimizer.variables
    slots = optimizer_slots(optimizer, model.trainable_variables)
    values = []
    for own, row, column in zip(slots, rows, columns, strict=True):
        velocity = own["velocity"]
        if len(velocity.shape) < 2:
            continue
        place = next(i for i, v in enumerate(variables) if v is velocity)
        values.append((variables[place - 2], objects.value(row)))
        values.append((variables[place - 1], objects.value(column)))
    return values


def _inner(saved: int, objects: SavedObjects) -> int:
    """The optimizer inside a `LossScaleOptimizer`, which counts the steps."""
    stack, seen = [saved], set()
    while stack:
        node = stack.pop()
        children = objects.children(node)
        if any(name in children for name in _STEPS):
            return node
        seen.add(node)
        stack.extend(child for child in children.values() if child not in seen)
    return saved


def _loss_scale(
    optimizer: Any, saved: int, objects: SavedObjects
) -> list[tuple[Any, Any]]:
    """The factor of the loss, and for how many steps it has not changed."""
    children = objects.children(saved)
    state = objects.children(children.get("loss_scale", saved))
    pairs = (
        ("current_loss_scale", optimizer.dynamic_scale),
        ("good_steps", optimizer.step_counter),
    )
    return [
        (variable, objects.value(state[name]))
        for name, variable in pairs
        if name in state
    ]
