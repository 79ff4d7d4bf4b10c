"""Adam and its kin, as `tf.train` and `tf.contrib.opt` have them.

All keep `beta1_power` and `beta2_power`, the powers that the next step takes, as
variables: they need not agree with `iterations`, which is the global step.
"""

import dataclasses
from collections.abc import Iterable, Sequence
from typing import Any

import keras
import tensorflow as tf

from keras_metagraph.training.optimizers.base import (
    SteppedOptimizer,
    set_rows,
    tf1_optimizer,
)
from keras_metagraph.training.optimizers.weight_decay import DecoupledWeightDecay
from keras_metagraph.training.rules import UpdateRule, dense, resource, unique_rows


class _TwoBetas(SteppedOptimizer):
    """What the kin of Adam are configured by."""

    settings = ("beta1", "beta2", "epsilon")

    def __init__(
        self,
        learning_rate: Any = 0.001,
        beta1: float = 0.9,
        beta2: float = 0.999,
        epsilon: float = 1e-8,
        **kwargs: Any,
    ) -> None:
        super().__init__(learning_rate, **kwargs)
        self.beta1 = beta1
        self.beta2 = beta2
        self.epsilon = epsilon


@tf1_optimizer
class TF1Adam(_TwoBetas):
    """Adam as `tf.train.AdamOptimizer` computes it.

    ```
    rate = learning_rate * sqrt(1 - beta2_power) / (1 - beta1_power)
    m <- beta1 * m + (1 - beta1) * g
    v <- beta2 * v + (1 - beta2) * g ** 2
    variable <- variable - rate * m / (sqrt(v) + epsilon)
    beta1_power <- beta1_power * beta1          # once a step, from beta1 on
    beta2_power <- beta2_power * beta2
    ```

    A sparse gradient is zero in the rows that it does not name: these move, too.
    Source: `tensorflow/python/training/adam.py` of TensorFlow 1.15. Slots: `momentum`
    (m), `velocity` (v).

    Args:
        learning_rate: A float or a schedule.
        beta1: The decay of the first moment.
        beta2: The decay of the second moment.
        epsilon: Added to the root; the "epsilon hat" of the paper.
        **kwargs: As for `keras.optimizers.Optimizer`.

    Example:
        ```python
        model.compile(TF1Adam(1e-3), "mse")
        ```
    """

    def update_rule(self) -> UpdateRule:
        """`ResourceApplyAdam`."""
        return UpdateRule(
            "Adam",
            slots={"m": "momentum", "v": "velocity"},
            scalars={
                "beta1_power": "beta1_power",
                "beta2_power": "beta2_power",
                "beta1": "beta1",
                "beta2": "beta2",
                "epsilon": "epsilon",
            },
            suffixes={"momentum": "Adam", "velocity": "Adam_1"},
            densify=True,
        )

    def build(self, variables: Sequence[Any]) -> None:
        """Creates the slots and the powers."""
        if self.built:
            return
        super().build(variables)
        self.beta1_power = self.add_scalar("beta1_power", self.beta1)
        self.beta2_power = self.add_scalar("beta2_power", self.beta2)

    def step_factors(self, step: Any) -> list[tuple[Any, Any]]:
        """The powers go on by one."""
        return [(self.beta1_power, self.beta1), (self.beta2_power, self.beta2)]

    def rate(self, learning_rate: Any, dtype: Any) -> Any:
        """The learning rate with the correction of the bias."""
        power1, power2 = (
            tf.cast(power, dtype) for power in (self.beta1_power, self.beta2_power)
        )
        return tf.cast(learning_rate, dtype) * tf.sqrt(1 - power2) / (1 - power1)


@tf1_optimizer
class TF1LazyAdam(TF1Adam):
    """Adam that leaves rows alone which a sparse gradient does not name.

    The formula of `TF1Adam`, for a sparse gradient only in its rows. Source:
    `tf.contrib.opt.LazyAdamOptimizer` of TensorFlow 1.15.

    Args:
        learning_rate: A float or a schedule.
        beta1: The decay of the first moment.
        beta2: The decay of the second moment.
        epsilon: Added to the root.
        **kwargs: As for `keras.optimizers.Optimizer`.
    """

    def update_rule(self) -> UpdateRule:
        """`ResourceApplyAdam`, for dense gradients."""
        return dataclasses.replace(super().update_rule(), densify=False)

    def update_step(self, gradient: Any, variable: Any, learning_rate: Any) -> None:
        """Updates a variable, or some of its rows."""
        if not isinstance(gradient, tf.IndexedSlices):
            super().update_step(gradient, variable, learning_rate)
            return
        slots = self.slots_of(variable)
        weight = resource(variable)
        rows, indices = unique_rows(tf.cast(gradient, weight.dtype))
        beta1, beta2 = self.numbers(weight.dtype, "beta1", "beta2")
        m = beta1 * tf.gather(slots["momentum"], indices) + (1 - beta1) * rows
        v = beta2 * tf.gather(slots["velocity"], indices)
        v += (1 - beta2) * tf.square(rows)
        set_rows(slots["momentum"], indices, m)
        set_rows(slots["velocity"], indices, v)
        step = self.rate(learning_rate, weight.dtype) * m / (tf.sqrt(v) + self.epsilon)
        weight.scatter_sub(tf.IndexedSlices(step, indices))


@keras.saving.register_keras_serializable("keras_metagraph")
class TF1AdamW(DecoupledWeightDecay, TF1Adam):
    """Adam with decoupled weight decay, as `tf.contrib.opt.AdamWOptimizer`.

    ```
    variable <- variable - weight_decay * variable     # not times the learning rate
    ```

    and then the step of `TF1Adam`. With a sparse gradient only its rows are decayed.
    TensorFlow 1 does not say whether the gradient is taken before or after the decay;
    here it is before. Source:
    `tensorflow/contrib/opt/python/training/weight_decay_optimizers.py` of TensorFlow
    1.15.

    Args:
        weight_decay: The part of each weight that a step takes away.
        learning_rate: A float or a schedule.
        beta1: The decay of the first moment.
        beta2: The decay of the second moment.
        epsilon: Added to the root.
        exclude_from_weight_decay: Regular expressions; weights in whose path one of
            them is found are not decayed.
        **kwargs: As for `keras.optimizers.Optimizer`.
    """

    def __init__(
        self,
        weight_decay: float,
        learning_rate: Any = 0.001,
        beta1: float = 0.9,
        beta2: float = 0.999,
        epsilon: float = 1e-8,
        exclude_from_weight_decay: Iterable[str] | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(
            weight_decay,
            learning_rate,
            beta1,
            beta2,
            epsilon,
            exclude_from_weight_decay=exclude_from_weight_decay,
            **kwargs,
        )

    def update_rule(self) -> UpdateRule:
        """`ResourceApplyAdam`, which comes after the decay."""
        suffixes = {"momentum": "AdamW", "velocity": "AdamW_1"}
        return dataclasses.replace(super().update_rule(), suffixes=suffixes)


@tf1_optimizer
class TF1Nadam(TF1Adam):
    """Adam with Nesterov momentum, as `tf.contrib.opt.NadamOptimizer`.

    The formula of `TF1Adam` with `beta1 * m + (1 - beta1) * g` for the new `m` in the
    last line. A sparse gradient moves `m` and `v` everywhere and the variable in its
    rows. Source: `tensorflow/contrib/opt/python/training/nadam_optimizer.py` of
    TensorFlow 1.15.

    Args:
        learning_rate: A float or a schedule.
        beta1: The decay of the first moment.
        beta2: The decay of the second moment.
        epsilon: Added to the root.
        **kwargs: As for `keras.optimizers.Optimizer`.
    """

    def update_rule(self) -> UpdateRule:
        """`ResourceApplyAdam` with its Nesterov switch on, for dense gradients."""
        return dataclasses.replace(
            super().update_rule(), densify=False, attributes={"use_nesterov": True}
        )

    def update_step(self, gradient: Any, variable: Any, learning_rate: Any) -> None:
        """Updates a variable, or some of its rows."""
        if not isinstance(gradient, tf.IndexedSlices):
            super().update_step(gradient, variable, learning_rate)
            return
        m, v = self.slots_of(variable).values()
        weight = resource(variable)
        gradient = tf.cast(gradient, weight.dtype)
        whole = dense(gradient, weight.shape)
        beta1, beta2 = self.numbers(weight.dtype, "beta1", "beta2")
        m.assign(beta1 * m + (1 - beta1) * whole)
        v.assign(beta2 * v + (1 - beta2) * tf.square(whole))
        rows, indices = unique_rows(gradient)
        step = (1 - beta1) * rows + beta1 * tf.gather(m, indices)
        step /= tf.sqrt(tf.gather(v, indices)) + self.epsilon
        step *= self.rate(learning_rate, weight.dtype)
        weight.scatter_sub(tf.IndexedSlices(step, indices))


@tf1_optimizer
class TF1AdaMax(_TwoBetas):
    """AdaMax as `tf.contrib.opt.AdaMaxOptimizer` and tf.keras of 1.15 compute it.

    ```
    m <- beta1 * m + (1 - beta1) * g
    v <- max(beta2 * v, |g|)
    variable <- variable - learning_rate / (1 - beta1_power) * m / (v + epsilon)
    beta1_power <- beta1_power * beta1                # once a step, from beta1 on
    ```

    A sparse gradient moves its rows only. Source:
    `tensorflow/contrib/opt/python/training/adamax.py` and
    `tensorflow/python/keras/optimizer_v2/adamax.py` of TensorFlow 1.15. Slots:
    `momentum` (m), `norm` (v).

    Args:
        learning_rate: A float or a schedule.
        beta1: The decay of the first moment.
        beta2: The decay of the norm.
        epsilon: Added to the norm.
        **kwargs: As for `keras.optimizers.Optimizer`.
    """

    def update_rule(self) -> UpdateRule:
        """`ResourceApplyAdaMax`, for dense gradients."""
        return UpdateRule(
            "AdaMax",
            slots={"m": "momentum", "v": "norm"},
            scalars={
                "beta1_power": "beta1_power",
                "beta1": "beta1",
                "beta2": "beta2",
                "epsilon": "epsilon",
            },
            suffixes={"momentum": "AdaMax", "norm": "AdaMax_1"},
        )

    def build(self, variables: Sequence[Any]) -> None:
        """Creates the slots and the power."""
        if self.built:
            return
        super().build(variables)
        self.beta1_power = self.add_scalar("beta1_power", self.beta1)

    def step_factors(self, step: Any) -> list[tuple[Any, Any]]:
        """The power goes on by one."""
        return [(self.beta1_power, self.beta1)]

    def update_step(self, gradient: Any, variable: Any, learning_rate: Any) -> None:
        """Updates a variable, or some of its rows."""
        if not isinstance(gradient, tf.IndexedSlices):
            super().update_step(gradient, variable, learning_rate)
            return
        slots = self.slots_of(variable)
        weight = resource(variable)
        rows, indices = unique_rows(tf.cast(gradient, weight.dtype))
        beta1, beta2 = self.numbers(weight.dtype, "beta1", "beta2")
        m = beta1 * tf.gather(slots["momentum"], indices) + (1 - beta1) * rows
        norm = tf.maximum(beta2 * tf.gather(slots["norm"], indices), tf.abs(rows))
        set_rows(slots["momentum"], indices, m)
        set_rows(slots["norm"], indices, norm)
        rate = tf.cast(learning_rate, weight.dtype)
        rate /= 1 - tf.cast(self.beta1_power, weight.dtype)
        weight.scatter_sub(tf.IndexedSlices(rate * m / (norm + self.epsilon), indices))
