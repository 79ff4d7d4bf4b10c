"""Gradient descent, with momentum and by signs, as TensorFlow 1 has it."""

import dataclasses
import math
from collections.abc import Iterable
from typing import Any

import keras
import tensorflow as tf

from keras_metagraph.training.optimizers.base import TF1Optimizer, tf1_optimizer
from keras_metagraph.training.optimizers.weight_decay import DecoupledWeightDecay
from keras_metagraph.training.rules import UpdateRule


@tf1_optimizer
class TF1GradientDescent(TF1Optimizer):
    """`tf.train.GradientDescentOptimizer`.

    ```
    variable <- variable - learning_rate * g
    ```

    Source: `tensorflow/python/training/gradient_descent.py` of TensorFlow 1.15.

    Args:
        learning_rate: A float or a schedule.
        **kwargs: As for `keras.optimizers.Optimizer`.

    Example:
        ```python
        model.compile(TF1GradientDescent(0.1), "mse")
        ```
    """

    def __init__(self, learning_rate: Any = 0.01, **kwargs: Any) -> None:
        super().__init__(learning_rate, **kwargs)

    def update_rule(self) -> UpdateRule:
        """`ResourceApplyGradientDescent`."""
        return UpdateRule(
            "GradientDescent",
            sparse_op="GradientDescent",
            rate="alpha",
            gradient="delta",
        )


@tf1_optimizer
class TF1Momentum(TF1Optimizer):
    """Momentum as `tf.train.MomentumOptimizer` computes it.

    ```
    accumulator <- momentum * accumulator + g
    variable <- variable - learning_rate * accumulator
    ```

    or, with Nesterov, `- learning_rate * (g + momentum * accumulator)`. Keras has the
    learning rate of each step inside of its accumulator, so that the two part as soon
    as the rate changes. A sparse gradient moves its rows only. Source:
    `tensorflow/python/training/momentum.py` of TensorFlow 1.15. Slot: `momentum`.

    Args:
        learning_rate: A float or a schedule.
        momentum: The decay of the accumulator.
        use_nesterov: Whether to use Nesterov momentum.
        **kwargs: As for `keras.optimizers.Optimizer`.

    Example:
        ```python
        model.compile(TF1Momentum(0.1, momentum=0.9), "mse")
        ```
    """

    settings = ("momentum", "use_nesterov")

    def __init__(
        self,
        learning_rate: Any = 0.01,
        momentum: float = 0.9,
        use_nesterov: bool = False,
        **kwargs: Any,
    ) -> None:
        super().__init__(learning_rate, **kwargs)
        self.momentum = momentum
        self.use_nesterov = use_nesterov

    def update_rule(self) -> UpdateRule:
        """`ResourceApplyMomentum`."""
        return UpdateRule(
            "Momentum",
            slots={"accum": "momentum"},
            scalars={"momentum": "momentum"},
            suffixes={"momentum": "Momentum"},
            sparse_op="Momentum",
            attributes={"use_nesterov": self.use_nesterov},
        )


@keras.saving.register_keras_serializable("keras_metagraph")
class TF1MomentumW(DecoupledWeightDecay, TF1Momentum):
    """Momentum with decoupled weight decay: `tf.contrib.opt.MomentumWOptimizer`.

    ```
    variable <- variable - weight_decay * variable     # not times the learning rate
    ```

    and then the step of `TF1Momentum`. With a sparse gradient only its rows are
    decayed. TensorFlow 1 does not say whether the gradient is taken before or after the
    decay; here it is before. Source:
    `tensorflow/contrib/opt/python/training/weight_decay_optimizers.py` of TensorFlow
    1.15.

    Args:
        weight_decay: The part of each weight that a step takes away.
        learning_rate: A float or a schedule.
        momentum: The decay of the accumulator.
        use_nesterov: Whether to use Nesterov momentum.
        exclude_from_weight_decay: Regular expressions; weights in whose path one of
            them is found are not decayed.
        **kwargs: As for `keras.optimizers.Optimizer`.
    """

    def __init__(
        self,
        weight_decay: float,
        learning_rate: Any = 0.01,
        momentum: float = 0.9,
        use_nesterov: bool = False,
        exclude_from_weight_decay: Iterable[str] | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(
            weight_decay,
            learning_rate,
            momentum,
            use_nesterov,
            exclude_from_weight_decay=exclude_from_weight_decay,
            **kwargs,
        )

    def update_rule(self) -> UpdateRule:
        """`ResourceApplyMomentum`, which comes after the decay."""
        suffixes = {"momentum": "MomentumW"}
        return dataclasses.replace(super().update_rule(), suffixes=suffixes)


class _SignOptimizer(TF1Optimizer):
    """What `TF1AddSign` and `TF1PowerSign` have in common."""

    def __init__(
        self, learning_rate: Any, beta: float, sign_decay_fn: Any, **kwargs: Any
    ) -> None:
        super().__init__(learning_rate, **kwargs)
        self.beta = beta
        self.sign_decay_fn = sign_decay_fn

    def sign_decay(self, rate: Any) -> Any:
        """The factor of the signs in this step."""
        if self.sign_decay_fn is None:
            return tf.constant(1.0, rate.dtype)
        return tf.cast(self.sign_decay_fn(self.iterations), rate.dtype)

    def get_config(self) -> dict[str, Any]:
        """The arguments that make an equal optimizer."""
        decay = keras.saving.serialize_keras_object(self.sign_decay_fn)
        return {**super().get_config(), "sign_decay_fn": decay}

    @classmethod
    def from_config(cls, config: dict[str, Any], custom_objects: Any = None) -> Any:
        """Creates the optimizer from `get_config()`."""
        decay = keras.saving.deserialize_keras_object(
            config["sign_decay_fn"], custom_objects=custom_objects
        )
        return super().from_config({**config, "sign_decay_fn": decay}, custom_objects)


@tf1_optimizer
class TF1AddSign(_SignOptimizer):
    """AddSign as `tf.contrib.opt.AddSignOptimizer` computes it.

    ```
    m <- beta * m + (1 - beta) * g
    variable <- variable - learning_rate * (alpha + decay * sign(g) * sign(m)) * g
    ```

    Source: `tensorflow/contrib/opt/python/training/addsign.py` of TensorFlow 1.15. A
    sparse gradient is zero in the rows that it does not name. Slot: `momentum` (m).

    Args:
        learning_rate: A float or a schedule.
        alpha: What is added to the product of the signs.
        beta: The decay of the moving average.
        sign_decay_fn: A schedule, which gives `decay` for a step; None for 1.
        **kwargs: As for `keras.optimizers.Optimizer`.
    """

    settings = ("alpha", "beta")

    def __init__(
        self,
        learning_rate: Any = 0.1,
        alpha: float = 1.0,
        beta: float = 0.9,
        sign_decay_fn: Any = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(learning_rate, beta, sign_decay_fn, **kwargs)
        self.alpha = alpha

    def update_rule(self) -> UpdateRule:
        """`ResourceApplyAddSign`."""
        return UpdateRule(
            "AddSign",
            slots={"m": "momentum"},
            scalars={
                "alpha": "alpha",
                "sign_decay": type(self).sign_decay,
                "beta": "beta",
            },
            suffixes={"momentum": "AddSignOptimizer"},
            densify=True,
        )


@tf1_optimizer
class TF1PowerSign(_SignOptimizer):
    """PowerSign as `tf.contrib.opt.PowerSignOptimizer` computes it.

    ```
    m <- beta * m + (1 - beta) * g
    variable <- variable - learning_rate * base ** (decay * sign(g) * sign(m)) * g
    ```

    Source: `tensorflow/contrib/opt/python/training/powersign.py` of TensorFlow 1.15. A
    sparse gradient is zero in the rows that it does not name. Slot: `momentum` (m).

    Args:
        learning_rate: A float or a schedule.
        base: What is raised to the power of the signs.
        beta: The decay of the moving average.
        sign_decay_fn: A schedule, which gives `decay` for a step; None for 1.
        **kwargs: As for `keras.optimizers.Optimizer`.
    """

    settings = ("base", "beta")

    def __init__(
        self,
        learning_rate: Any = 0.1,
        base: float = math.e,
        beta: float = 0.9,
        sign_decay_fn: Any = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(learning_rate, beta, sign_decay_fn, **kwargs)
        self.base = base

    def update_rule(self) -> UpdateRule:
        """`ResourceApplyPowerSign`."""
        return UpdateRule(
            "PowerSign",
            slots={"m": "momentum"},
            scalars={
                "logbase": math.log(self.base),
                "sign_decay": type(self).sign_decay,
                "beta": "beta",
            },
            suffixes={"momentum": "PowerSignOptimizer"},
            densify=True,
        )
