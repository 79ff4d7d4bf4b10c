"""Takes an optimizer's steps in a traced graph with the fused ops of TensorFlow 1.

Where `training.rules` knows the op that computes what an optimizer does, the graph has
that op, TensorFlow 1's slots and the variables that it keeps besides. What Keras does
around the step of a weight (clipping, decay, averages, loss scales, accumulation) is
traced as it is, and so is the step of any other optimizer.
"""

import contextlib
import functools
import weakref
from collections.abc import Hashable, Iterable, Iterator, Mapping
from typing import Any

import tensorflow as tf

from keras_metagraph.export.derived import DerivedVariable
from keras_metagraph.training.rules import UpdateRule, rule_of, run_rule, scalars_of
from keras_metagraph.training.slots import optimizer_slots

_POWER = "_power"

# The same variables for each trace of an optimizer.
_DERIVED: "weakref.WeakKeyDictionary[Any, dict[Hashable, DerivedVariable]]" = (
    weakref.WeakKeyDictionary()
)


def fused_step(optimizer: Any, weights: Mapping[str, Any]) -> "FusedStep | None":
    """The fused step of an optimizer.

    Args:
        optimizer: A Keras optimizer.
        weights: The Keras variables of its model by their names in TensorFlow 1.

    Returns:
        The step; None if the optimizer's own is traced: it has no rule, runs the op of
        its rule itself, is not built, or has variables with copies on replicas.
    """
    rule = rule_of(optimizer)
    runs_it_itself = hasattr(optimizer, "update_rule")  # those of training.optimizers
    if rule is None or runs_it_itself or not optimizer.built:
        return None
    if _is_distributed(_iterations(optimizer)):
        return None
    return FusedStep(optimizer, rule, weights)


@contextlib.contextmanager
def fused_steps(
    optimizers: Iterable[Any], weights: Mapping[str, Any]
) -> Iterator[None]:
    """While it lasts, optimizers that have a fused step take that one.

    Args:
        optimizers: Keras optimizers; as they were at the end.
        weights: The Keras variables of their model by their names in TensorFlow 1.
    """
    steps = [step for o in optimizers if (step := fused_step(o, weights)) is not None]
    for step in steps:
        # Not setattr: Keras would track what the methods hold.
        vars(step.optimizer).update(apply=step.apply, update_step=step.update_step)
    try:
        yield
    finally:
        for step in steps:
            del vars(step.optimizer)["apply"], vars(step.optimizer)["update_step"]


class FusedStep:
    """The step of one optimizer by its rule.

    Args:
        optimizer: The optimizer, built.
        rule: Its rule.
        weights: The Keras variables of its model by their names in TensorFlow 1.

    Attributes:
        derived: Variables that TensorFlow 1 keeps and Keras does not, by name.
    """

    def __init__(
        self, optimizer: Any, rule: UpdateRule, weights: Mapping[str, Any]
    ) -> None:
        self.optimizer = optimizer
        self.derived: dict[str, DerivedVariable] = {}
        self._rule = rule
        self._own_apply = optimizer.apply
        self._own_update_step = optimizer.update_step
        self._shared: dict[Hashable, tuple[Any, dict[str, Any]]] = {}
        self._powers = self._make_powers()
        self._slots = dict(self._find_slots(weights))

    def apply(self, grads: Any, trainable_variables: Any = None) -> None:
        """What `optimizer.apply` does, and the powers as TensorFlow 1 updates them."""
        self._shared.clear()
        before = tf.convert_to_tensor(self.optimizer.iterations)
        self._own_apply(grads, trainable_variables)
        if not len(grads):
            return
        for argument, power in self._powers.items():
            factor = tf.constant(power.base, power.dtype)
            if power.steps > 1:  # While gradients are accumulated, no update is made.
                is_made = self.optimizer.iterations > before
                factor = tf.where(is_made, factor, tf.ones_like(factor))
            tf.raw_ops.AssignVariableOp(
                resource=power.handle,
                value=_read(power) * factor,
                name=f"assign_{argument}",
            )

    def update_step(self, gradient: Any, variable: Any, learning_rate: Any) -> None:
        """Updates one weight."""
        known = self._slots.get(id(_handle(variable)))
        is_sparse = isinstance(gradient, tf.IndexedSlices)
        if known is None or (is_sparse and not self._rule.takes_rows):
            self._own_update_step(gradient, variable, learning_rate)
            return
        name, slots = known
        rate, scalars = self._scalars(learning_rate, variable.dtype)
        with tf.name_scope(f"update_{name}"):
            run_rule(
                self._rule, self.optimizer, gradient, variable, rate, slots, **scalars
            )

    def _scalars(self, learning_rate: Any, dtype: Any) -> tuple[Any, dict[str, Any]]:
        """The learning rate and the scalars of the op, once a graph for all weights."""
        graph = tf.compat.v1.get_default_graph()
        key = (graph, tf.as_dtype(dtype))
        if key not in self._shared:
            rate = tf.cast(learning_rate, dtype, name="learning_rate")
            powers = {
                argument: tf.cast(_read(power), dtype)
                for argument, power in self._powers.items()
            }
            others = scalars_of(self._rule, self.optimizer, rate, without=powers)
            self._shared[key] = (rate, {**others, **powers})
        return self._shared[key]

    def _make_powers(self) -> dict[str, DerivedVariable]:
        """The powers of decay rates that are arguments of the op, by argument."""
        powers = {}
        scalars = self._rule.scalars
        for argument in scalars:
            decay = scalars.get(argument.removesuffix(_POWER))
            if argument.endswith(_POWER) and isinstance(decay, str):
                base = float(getattr(self.optimizer, decay))
                steps = self.optimizer.gradient_accumulation_steps or 1
                make = functools.partial(
                    DerivedVariable,
                    argument,
                    base=base,
                    iterations=_iterations(self.optimizer),
                    steps=steps,
                )
                powers[argument] = self._derive((argument, base, steps), make)
                self.derived[argument] = powers[argument]
        return powers

    def _find_slots(
        self, weights: Mapping[str, Any]
    ) -> Iterator[tuple[int, tuple[str, dict[str, Any]]]]:
        """Name and slots of the weights that it updates, by the id of the handle.

        A slot that only TensorFlow 1 keeps is always zero in Keras's arithmetic.
        """
        rule = self._rule
        found = optimizer_slots(self.optimizer, list(weights.values()))
        for place, (name, slots) in enumerate(zip(weights, found, strict=True)):
            missing = [slot for slot in rule.slots.values() if slot not in slots]
            others = len(missing) == len(rule.slots) > 0
            if others or any(slot not in rule.suffixes for slot in missing):
                continue
            weight = weights[name]
            for slot in missing:
                suffix = rule.suffixes[slot]
                key = (suffix, place, tuple(weight.shape), weight.dtype)
                make = functools.partial(
                    DerivedVariable, suffix, weight.shape, weight.dtype
                )
                slots[slot] = self._derive(key, make)
                self.derived[f"{name}/{suffix}"] = slots[slot]
            yield id(_handle(weight)), (name, slots)

    def _derive(self, key: Hashable, make: Any) -> DerivedVariable:
        known = _DERIVED.setdefault(self.optimizer, {})
        if key not in known:
            known[key] = make()
        return known[key]


def _handle(variable: Any) -> Any:
    """The resource handle of a variable of Keras or TensorFlow."""
    held = getattr(variable, "value", variable)
    return (variable if callable(held) else held).handle


def _iterations(optimizer: Any) -> Any:
    """The variable that counts an optimizer's steps, also those without an update."""
    return next(v for v in optimizer.variables if v.name == "iteration")


def _is_distributed(variable: Any) -> bool:
    """Whether a variable has a copy on each replica."""
    return isinstance(getattr(variable.value, "values", None), tuple | list)


def _read(variable: DerivedVariable) -> Any:
    return tf.raw_ops.ReadVariableOp(resource=variable.handle, dtype=variable.dtype)
