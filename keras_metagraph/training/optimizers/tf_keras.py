"""Optimizers of tf.keras in TensorFlow 1.15, where Keras 3 computes something else.

Its Adadelta, Adamax and Ftrl are `TF1Adadelta`, `TF1AdaMax` and `TF1Ftrl`. Its `decay`
argument is the schedule `InverseTimeDecay(learning_rate, 1, decay)`.
"""

import dataclasses
from collections.abc import Sequence
from typing import Any, ClassVar

import keras
import tensorflow as tf

from keras_metagraph.training.optimizers.base import (
    SteppedOptimizer,
    TF1Optimizer,
    tf1_optimizer,
)
from keras_metagraph.training.rules import (
    UpdateRule,
    adam_rule,
    dense,
    resource,
    rmsprop_rule,
    sgd_rule,
    unique_rows,
)


class TwoMoments(TF1Optimizer):
    """What the Nadams of tf.keras and Keras 2 have in common."""

    settings: ClassVar[tuple[str, ...]] = ("beta_1", "beta_2", "epsilon")

    def __init__(
        self,
        learning_rate: Any = 0.001,
        beta_1: float = 0.9,
        beta_2: float = 0.999,
        epsilon: float = 1e-7,
        **kwargs: Any,
    ) -> None:
        super().__init__(learning_rate, **kwargs)
        self.beta_1 = beta_1
        self.beta_2 = beta_2
        self.epsilon = epsilon

    def slot_values(self) -> dict[str, float]:
        """Both start with zeros."""
        return {"momentum": 0.0, "velocity": 0.0}


@tf1_optimizer
class TFKerasSGD(TF1Optimizer):
    """`tf.keras.optimizers.SGD` of TensorFlow 1.15.

    ```
    m <- momentum * m - learning_rate * g
    variable <- variable + m          # Nesterov: + momentum * m - learning_rate * g
    ```

    For dense gradients this is `keras.optimizers.SGD`; a sparse gradient moves its rows
    only. Source: `tensorflow/python/keras/optimizer_v2/gradient_descent.py`. Slot:
    `momentum`, where there is any.

    Args:
        learning_rate: A float or a schedule.
        momentum: The decay of the steps.
        nesterov: Whether to use Nesterov momentum.
        **kwargs: As for `keras.optimizers.Optimizer`.

    Example:
        ```python
        model.compile(TFKerasSGD(0.1, momentum=0.9), "mse")
        ```
    """

    settings = ("momentum", "nesterov")

    def __init__(
        self,
        learning_rate: Any = 0.01,
        momentum: float = 0.0,
        nesterov: bool = False,
        **kwargs: Any,
    ) -> None:
        super().__init__(learning_rate, **kwargs)
        self.momentum = momentum
        self.nesterov = nesterov

    def update_rule(self) -> UpdateRule:
        """`ResourceApplyKerasMomentum` or `ResourceApplyGradientDescent`."""
        rule = sgd_rule(self)
        return dataclasses.replace(rule, sparse_op=rule.op, densify=False)


@tf1_optimizer
class TFKerasAdam(TF1Optimizer):
    """`tf.keras.optimizers.Adam` of TensorFlow 1.15.

    The formula of `keras.optimizers.Adam`, computed by the op of TensorFlow, which
    rounds `1 - beta_2` in another way: 1e-5 of the second moments. And Keras squares
    each of the rows of a sparse gradient that have the same index, as those of a word
    that comes twice in a batch; TensorFlow 1 squares their sum. Source:
    `tensorflow/python/keras/optimizer_v2/adam.py`. Slots: `momentum`, `velocity`,
    `velocity_hat` with AMSGrad.

    Args:
        learning_rate: A float or a schedule.
        beta_1: The decay of the first moment.
        beta_2: The decay of the second moment.
        epsilon: Added to the root.
        amsgrad: Whether to divide by the largest second moment there was.
        **kwargs: As for `keras.optimizers.Optimizer`.
    """

    settings = ("beta_1", "beta_2", "epsilon", "amsgrad")

    def __init__(
        self,
        learning_rate: Any = 0.001,
        beta_1: float = 0.9,
        beta_2: float = 0.999,
        epsilon: float = 1e-7,
        amsgrad: bool = False,
        **kwargs: Any,
    ) -> None:
        super().__init__(learning_rate, **kwargs)
        self.beta_1 = beta_1
        self.beta_2 = beta_2
        self.epsilon = epsilon
        self.amsgrad = amsgrad

    def update_rule(self) -> UpdateRule:
        """`ResourceApplyAdam` or `ResourceApplyAdamWithAmsgrad`."""
        rule = adam_rule(self)  # tf.keras ran the op as it is
        return dataclasses.replace(rule, suffixes={}, squares={}, densify=True)


@tf1_optimizer
class TFKerasRMSprop(TF1Optimizer):
    """`tf.keras.optimizers.RMSprop` of TensorFlow 1.15.

    ```
    ms <- rho * ms + (1 - rho) * g ** 2
    mg <- rho * mg + (1 - rho) * g                                       # if centered
    variable <- variable - learning_rate * g / (sqrt(ms - mg ** 2) + epsilon)
    ```

    With momentum it is the rule of `TF1RMSProp`, which has epsilon under the root and
    of a sparse gradient moves the rows only. Source:
    `tensorflow/python/keras/optimizer_v2/rmsprop.py`. Slots: `velocity` (ms),
    `momentum` where there is any, `average_gradient` (mg).

    Args:
        learning_rate: A float or a schedule.
        rho: The decay of the averages.
        momentum: The decay of the steps.
        epsilon: Added to the root.
        centered: Whether to subtract the square of the mean gradient.
        **kwargs: As for `keras.optimizers.Optimizer`.
    """

    settings = ("rho", "momentum", "epsilon", "centered")

    def __init__(
        self,
        learning_rate: Any = 0.001,
        rho: float = 0.9,
        momentum: float = 0.0,
        epsilon: float = 1e-7,
        centered: bool = False,
        **kwargs: Any,
    ) -> None:
        super().__init__(learning_rate, **kwargs)
        self.rho = rho
        self.momentum = momentum
        self.epsilon = epsilon
        self.centered = centered

    def update_rule(self) -> UpdateRule | None:
        """That of RMSProp, with momentum; else there is none."""
        if not self.momentum:
            return None
        rule = rmsprop_rule(self)
        return dataclasses.replace(rule, suffixes={}, sparse_op=rule.op)

    def slot_values(self) -> dict[str, float]:
        """All start with zeros."""
        slots = {"momentum": self.momentum, "average_gradient": self.centered}
        return dict.fromkeys(
            ["velocity", *(k for k, kept in slots.items() if kept)], 0.0
        )

    def update_step(self, gradient: Any, variable: Any, learning_rate: Any) -> None:
        """Updates a variable and its slots."""
        if self.momentum:
            super().update_step(gradient, variable, learning_rate)
            return
        slots = self.slots_of(variable)
        weight = resource(variable)
        gradient = tf.cast(dense(gradient, weight.shape), weight.dtype)
        rho, epsilon = self.numbers(weight.dtype, "rho", "epsilon")
        square = rho * slots["velocity"] + (1 - rho) * tf.square(gradient)
        slots["velocity"].assign(square)
        if self.centered:
            mean = rho * slots["average_gradient"] + (1 - rho) * gradient
            slots["average_gradient"].assign(mean)
            square -= tf.square(mean)
        rate = tf.cast(learning_rate, weight.dtype)
        weight.assign_sub(rate * gradient / (tf.sqrt(square) + epsilon))


@tf1_optimizer
class TFKerasAdagrad(TF1Optimizer):
    """`tf.keras.optimizers.Adagrad` of TensorFlow 1.15.

    ```
    accumulator <- accumulator + g ** 2
    variable <- variable - learning_rate * g / (sqrt(accumulator) + epsilon)
    ```

    Source: `tensorflow/python/keras/optimizer_v2/adagrad.py`. Slot: `accumulator`.

    Args:
        learning_rate: A float or a schedule.
        initial_accumulator_value: What the accumulators start with.
        epsilon: Added to the root, where Keras 3 has it under the root.
        **kwargs: As for `keras.optimizers.Optimizer`.
    """

    settings = ("initial_accumulator_value", "epsilon")

    def __init__(
        self,
        learning_rate: Any = 0.001,
        initial_accumulator_value: float = 0.1,
        epsilon: float = 1e-7,
        **kwargs: Any,
    ) -> None:
        super().__init__(learning_rate, **kwargs)
        self.initial_accumulator_value = initial_accumulator_value
        self.epsilon = epsilon

    def update_rule(self) -> UpdateRule:
        """`ResourceApplyAdagradV2`."""
        return UpdateRule(
            "AdagradV2",
            slots={"accum": "accumulator"},
            scalars={"epsilon": "epsilon"},
            sparse_op="AdagradV2",
        )

    def slot_values(self) -> dict[str, float]:
        """The accumulators start with the value that was given."""
        return {"accumulator": self.initial_accumulator_value}


@keras.saving.register_keras_serializable("keras_metagraph")
class TFKerasNadam(TwoMoments, SteppedOptimizer):
    """`tf.keras.optimizers.Nadam` of TensorFlow 1.15.

    ```
    u(t) = beta_1 * (1 - 0.5 * 0.96 ** (schedule_decay * t))
    m <- beta_1 * m + (1 - beta_1) * g
    v <- beta_2 * v + (1 - beta_2) * g ** 2
    momentum_cache <- momentum_cache * u(t)                 # once a step, from 1 on
    mean = (1 - u(t)) * g / (1 - momentum_cache)
           + u(t + 1) * m / (1 - momentum_cache * u(t + 1))
    variable <- variable
                - learning_rate * mean / (sqrt(v / (1 - beta_2 ** t)) + epsilon)
    ```

    Keras 3 has no `schedule_decay`. A sparse gradient moves `m` and `v` everywhere and
    the variable in its rows. Source: `tensorflow/python/keras/optimizer_v2/nadam.py`.
    Slots: `momentum` (m), `velocity` (v).

    Args:
        learning_rate: A float or a schedule.
        beta_1: The decay of the first moment.
        beta_2: The decay of the second moment.
        epsilon: Added to the root.
        schedule_decay: How fast u grows; tf.keras serializes it as `decay`.
        **kwargs: As for `keras.optimizers.Optimizer`.
    """

    settings = (*TwoMoments.settings, "schedule_decay")

    def __init__(
        self,
        learning_rate: Any = 0.001,
        beta_1: float = 0.9,
        beta_2: float = 0.999,
        epsilon: float = 1e-7,
        schedule_decay: float = 0.004,
        **kwargs: Any,
    ) -> None:
        super().__init__(learning_rate, beta_1, beta_2, epsilon, **kwargs)
        self.schedule_decay = schedule_decay

    def build(self, variables: Sequence[Any]) -> None:
        """Creates the slots and the cache."""
        if self.built:
            return
        super().build(variables)
        self.momentum_cache = self.add_scalar("momentum_cache", 1.0)

    def step_factors(self, step: Any) -> list[tuple[Any, Any]]:
        """The cache goes on by the momentum of the step."""
        return [(self.momentum_cache, self.step_momentum(step, tf.float32))]

    def step_momentum(self, step: Any, dtype: Any) -> Any:
        """What the formula calls u, of a step."""
        power = tf.constant(self.schedule_decay, dtype) * tf.cast(step, dtype)
        return self.beta_1 * (1.0 - 0.5 * tf.pow(tf.constant(0.96, dtype), power))

    def update_step(self, gradient: Any, variable: Any, learning_rate: Any) -> None:
        """Updates a variable, or some of its rows, and its slots."""
        m, v = self.slots_of(variable).values()
        weight = resource(variable)
        gradient = tf.cast(gradient, weight.dtype)
        whole = dense(gradient, weight.shape)
        beta_1, beta_2 = self.numbers(weight.dtype, "beta_1", "beta_2")
        m.assign(beta_1 * m + (1 - beta_1) * whole)
        v.assign(beta_2 * v + (1 - beta_2) * tf.square(whole))
        rate = tf.cast(learning_rate, weight.dtype)
        if isinstance(gradient, tf.IndexedSlices):
            rows, indices = unique_rows(gradient)
            step = self._step(rows, tf.gather(m, indices), tf.gather(v, indices))
            weight.scatter_sub(tf.IndexedSlices(rate * step, indices))
        else:
            weight.assign_sub(rate * self._step(gradient, m, v))

    def _step(self, gradient: Any, m: Any, v: Any) -> Any:
        """What is subtracted, but for the learning rate."""
        dtype = gradient.dtype
        step = self.iterations + 1
        now, then = self.step_momentum(step, dtype), self.step_momentum(step + 1, dtype)
        cache = tf.cast(self.momentum_cache, dtype) * now
        mean = (1 - now) * gradient / (1 - cache) + then * m / (1 - cache * then)
        beta_2_power = tf.pow(tf.constant(self.beta_2, dtype), tf.cast(step, dtype))
        return mean / (tf.sqrt(v / (1 - beta_2_power)) + self.epsilon)
