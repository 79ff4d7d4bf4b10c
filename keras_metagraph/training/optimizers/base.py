"""What the optimizers with TensorFlow 1's rules have in common."""

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, TypeVar

import keras
import tensorflow as tf

from keras_metagraph.training.rules import (
    UpdateRule,
    register_rule,
    resource,
    run_rule,
)

Kind = TypeVar("Kind", bound=type)
_CLIPPING = ("clipnorm", "global_clipnorm", "clipvalue", "loss_scale_factor")


def tf1_optimizer(kind: Kind) -> Kind:
    """Registers an optimizer for serialization, and its fused update."""
    register_rule(kind, lambda optimizer: optimizer.update_rule())
    keras.saving.register_keras_serializable("keras_metagraph")(kind)
    return kind


class TF1Optimizer(keras.optimizers.Optimizer):
    """An optimizer of Keras with a rule of TensorFlow 1.

    A subclass names its arguments in `settings`, its slots in `slot_values` and its
    fused op in `update_rule`, or computes its step in `update_step`.

    Args:
        learning_rate: A float or a `keras.optimizers.schedules.LearningRateSchedule`.
        **kwargs: `clipnorm`, `clipvalue`, `global_clipnorm`, `use_ema`,
            `gradient_accumulation_steps`, `loss_scale_factor`, `name` and whatever
            else `keras.optimizers.Optimizer` takes. Its `weight_decay` comes before
            the step and is scaled by the learning rate.
    """

    settings: ClassVar[tuple[str, ...]] = ()

    def __init__(self, learning_rate: Any, **kwargs: Any) -> None:
        if isinstance(learning_rate, int):
            learning_rate = float(learning_rate)
        super().__init__(learning_rate=learning_rate, **kwargs)

    def update_rule(self) -> UpdateRule | None:
        """The fused op that is the step of this optimizer; None if there is none."""
        return None

    @property
    def suffixes(self) -> Mapping[str, str]:
        """By the name of a slot, what TensorFlow 1 puts behind the weight's name."""
        rule = self.update_rule()
        return {} if rule is None else rule.suffixes

    def slot_values(self) -> dict[str, float]:
        """The names of the slots of a weight, and what they are filled with."""
        rule = self.update_rule()
        return {} if rule is None else dict.fromkeys(rule.slots.values(), 0.0)

    def build(self, variables: Sequence[Any]) -> None:
        """Creates the slots of the variables."""
        if self.built:
            return
        super().build(variables)
        values = self.slot_values()
        slots = self.add_optimizer_variables(
            variables,
            list(values),
            [keras.initializers.Constant(value) for value in values.values()],
        )
        self._slots = dict(zip(values, slots, strict=True))

    def slots_of(self, variable: Any) -> dict[str, Any]:
        """The slots of a variable that the optimizer was built with, by their names."""
        index = self._get_variable_index(variable)
        return {name: resource(slots[index]) for name, slots in self._slots.items()}

    def numbers(self, dtype: Any, *names: str) -> list[Any]:
        """Some settings as constants: `1 - beta2` is rounded as in TensorFlow 1."""
        return [tf.constant(getattr(self, name), dtype) for name in names]

    def apply(self, grads: Any, trainable_variables: Any = None) -> None:
        """Updates the variables.

        Keras makes a sparse gradient dense where it clips it, and cannot unscale it;
        here it stays sparse, and its norm is that of its rows, as in TensorFlow 1.
        """
        grads = list(grads)
        sparse = any(isinstance(gradient, tf.IndexedSlices) for gradient in grads)
        if not sparse or self.gradient_accumulation_steps:
            super().apply(grads, trainable_variables)
            return
        settings = {name: getattr(self, name) for name in _CLIPPING}
        try:
            for name in settings:
                setattr(self, name, None)
            super().apply(_clipped(grads, **settings), trainable_variables)
        finally:
            for name, value in settings.items():
                setattr(self, name, value)

    def update_step(self, gradient: Any, variable: Any, learning_rate: Any) -> None:
        """Updates a variable and its slots."""
        rule = self.update_rule()
        if rule is None:
            raise NotImplementedError(f"{type(self).__name__} has no step")
        slots = self.slots_of(variable)
        run_rule(rule, self, gradient, variable, learning_rate, slots)

    def get_config(self) -> dict[str, Any]:
        """The arguments that make an equal optimizer."""
        own = {name: getattr(self, name) for name in self.settings}
        return {**super().get_config(), **own}


class SteppedOptimizer(TF1Optimizer):
    """An optimizer with scalars that every step multiplies, such as `beta1_power`."""

    def add_scalar(self, name: str, value: float) -> Any:
        """Creates such a scalar; TensorFlow 1 keeps it in float32."""
        return self.add_variable(
            shape=(),
            initializer=keras.initializers.Constant(value),
            dtype="float32",
            aggregation="only_first_replica",
            name=name,
        )

    def step_factors(self, step: Any) -> list[tuple[Any, Any]]:
        """Each scalar, and its factor in the step of this number, from 1 on."""
        raise NotImplementedError

    def apply(self, grads: Any, trainable_variables: Any = None) -> None:
        """Updates the variables, then the scalars."""
        before = tf.convert_to_tensor(self.iterations)
        super().apply(grads, trainable_variables)
        # While gradients are accumulated, no step is made.
        stepped = self.iterations > before
        for scalar, factor in self.step_factors(before + 1):
            scalar.assign(tf.where(stepped, scalar * factor, scalar))


def _clipped(
    grads: Sequence[Any],
    clipnorm: float | None,
    global_clipnorm: float | None,
    clipvalue: float | None,
    loss_scale_factor: float | None,
) -> list[Any]:
    """Gradients as Keras unscales and clips them, but for sparse ones."""

    def each(function: Any, *args: Any) -> list[Any]:
        return [None if g is None else function(g, *args) for g in grads]

    if loss_scale_factor:
        grads = each(lambda g: tf.math.scalar_mul(1.0 / loss_scale_factor, g))
    if clipnorm:
        return each(tf.clip_by_norm, clipnorm)
    if global_clipnorm:
        return list(tf.clip_by_global_norm(grads, global_clipnorm)[0])
    if clipvalue:
        return each(tf.clip_by_value, -clipvalue, clipvalue)
    return list(grads)


def set_rows(variable: Any, indices: Any, rows: Any) -> None:
    """Writes some rows of a variable; no index may come twice."""
    variable.scatter_update(tf.IndexedSlices(rows, indices))
