"""RMSProp, Adagrad and Adadelta, as `tf.train` has them."""

from typing import Any

import tensorflow as tf

from keras_metagraph.training.optimizers.base import TF1Optimizer, tf1_optimizer
from keras_metagraph.training.rules import UpdateRule

_RMSPROP_SUFFIXES = ("RMSProp", "RMSProp_1", "RMSProp_2")


@tf1_optimizer
class TF1RMSProp(TF1Optimizer):
    """RMSProp as `tf.train.RMSPropOptimizer` computes it.

    ```
    ms <- decay * ms + (1 - decay) * g ** 2                  # from 1 on, not from 0
    mg <- decay * mg + (1 - decay) * g                       # if centered
    mom <- momentum * mom + learning_rate * g / sqrt(ms - mg ** 2 + epsilon)
    variable <- variable - mom
    ```

    A sparse gradient moves its rows only. Source:
    `tensorflow/python/training/rmsprop.py` of TensorFlow 1.15. Slots: `velocity` (ms),
    `average_gradient` (mg), `momentum` (mom, which is there without momentum, too).

    Args:
        learning_rate: A float or a schedule.
        decay: The decay of the averages.
        momentum: The decay of the steps.
        epsilon: Added under the root.
        centered: Whether to subtract the square of the mean gradient.
        **kwargs: As for `keras.optimizers.Optimizer`.

    Example:
        ```python
        model.compile(TF1RMSProp(1e-3, momentum=0.9), "mse")
        ```
    """

    settings = ("decay", "momentum", "epsilon", "centered")

    def __init__(
        self,
        learning_rate: Any = 0.001,
        decay: float = 0.9,
        momentum: float = 0.0,
        epsilon: float = 1e-10,
        centered: bool = False,
        **kwargs: Any,
    ) -> None:
        super().__init__(learning_rate, **kwargs)
        self.decay = decay
        self.momentum = momentum
        self.epsilon = epsilon
        self.centered = centered

    def update_rule(self) -> UpdateRule:
        """`ResourceApplyRMSProp` or `ResourceApplyCenteredRMSProp`."""
        op = "CenteredRMSProp" if self.centered else "RMSProp"
        slots = {"mg": "average_gradient"} if self.centered else {}
        return UpdateRule(
            op,
            slots={**slots, "ms": "velocity", "mom": "momentum"},
            scalars={"rho": "decay", "momentum": "momentum", "epsilon": "epsilon"},
            suffixes=dict(zip(self.slot_values(), _RMSPROP_SUFFIXES, strict=False)),
            sparse_op=op,
        )

    def slot_values(self) -> dict[str, float]:
        """The mean square starts with ones."""
        centered = {"average_gradient": 0.0} if self.centered else {}
        return {"velocity": 1.0, **centered, "momentum": 0.0}


@tf1_optimizer
class TF1Adagrad(TF1Optimizer):
    """Adagrad as `tf.train.AdagradOptimizer` computes it.

    ```
    accumulator <- accumulator + g ** 2
    variable <- variable - learning_rate * g / sqrt(accumulator)      # no epsilon
    ```

    Source: `tensorflow/python/training/adagrad.py` of TensorFlow 1.15. Slot:
    `accumulator`.

    Args:
        learning_rate: A float or a schedule.
        initial_accumulator_value: What the accumulators start with.
        **kwargs: As for `keras.optimizers.Optimizer`.

    Example:
        ```python
        model.compile(TF1Adagrad(0.1), "mse")
        ```
    """

    settings = ("initial_accumulator_value",)

    def __init__(
        self,
        learning_rate: Any = 0.001,
        initial_accumulator_value: float = 0.1,
        **kwargs: Any,
    ) -> None:
        super().__init__(learning_rate, **kwargs)
        self.initial_accumulator_value = initial_accumulator_value

    def update_rule(self) -> UpdateRule:
        """`ResourceApplyAdagrad`."""
        return UpdateRule(
            "Adagrad",
            slots={"accum": "accumulator"},
            suffixes={"accumulator": "Adagrad"},
            sparse_op="Adagrad",
        )

    def slot_values(self) -> dict[str, float]:
        """The accumulators start with the value that was given."""
        return {"accumulator": self.initial_accumulator_value}


@tf1_optimizer
class TF1AdagradDA(TF1Optimizer):
    """Adagrad dual averaging, as `tf.train.AdagradDAOptimizer` computes it.

    ```
    t <- global step + 1
    accumulated <- accumulated + g
    squared <- squared + g ** 2
    shrunk = sign(accumulated) * max(|accumulated| - l1 * t, 0)
    variable <- -learning_rate * shrunk / (l2 * t * learning_rate + sqrt(squared))
    ```

    The variable itself has no part in its next value. A sparse gradient moves its rows
    only. Source: `tensorflow/python/training/adagrad_da.py` of TensorFlow 1.15; the
    global step is `iterations`. Slots: `accumulated_gradient`, `accumulated_square`.

    Args:
        learning_rate: A float or a schedule.
        initial_gradient_squared_accumulator_value: What `squared` starts with.
        l1_regularization_strength: l1.
        l2_regularization_strength: l2.
        **kwargs: As for `keras.optimizers.Optimizer`.
    """

    settings = (
        "initial_gradient_squared_accumulator_value",
        "l1_regularization_strength",
        "l2_regularization_strength",
    )

    def __init__(
        self,
        learning_rate: Any = 0.001,
        initial_gradient_squared_accumulator_value: float = 0.1,
        l1_regularization_strength: float = 0.0,
        l2_regularization_strength: float = 0.0,
        **kwargs: Any,
    ) -> None:
        super().__init__(learning_rate, **kwargs)
        self.initial_gradient_squared_accumulator_value = (
            initial_gradient_squared_accumulator_value
        )
        self.l1_regularization_strength = l1_regularization_strength
        self.l2_regularization_strength = l2_regularization_strength

    def update_rule(self) -> UpdateRule:
        """`ResourceApplyAdagradDA`."""
        return UpdateRule(
            "AdagradDA",
            slots={
                "gradient_accumulator": "accumulated_gradient",
                "gradient_squared_accumulator": "accumulated_square",
            },
            scalars={
                "l1": "l1_regularization_strength",
                "l2": "l2_regularization_strength",
                "global_step": _next_step,
            },
            suffixes={
                "accumulated_gradient": "AdagradDA",
                "accumulated_square": "AdagradDA_1",
            },
            sparse_op="AdagradDA",
        )

    def slot_values(self) -> dict[str, float]:
        """The squares start with the value that was given."""
        return {
            "accumulated_gradient": 0.0,
            "accumulated_square": self.initial_gradient_squared_accumulator_value,
        }


@tf1_optimizer
class TF1Adadelta(TF1Optimizer):
    """Adadelta as `tf.train.AdadeltaOptimizer` and tf.keras of 1.15 compute it.

    ```
    accumulator <- rho * accumulator + (1 - rho) * g ** 2
    update = sqrt(updates + epsilon) / sqrt(accumulator + epsilon) * g
    updates <- rho * updates + (1 - rho) * update ** 2
    variable <- variable - learning_rate * update
    ```

    A sparse gradient moves its rows only. Source:
    `tensorflow/python/training/adadelta.py` of TensorFlow 1.15. Slots:
    `accumulated_grad` (accumulator), `accumulated_delta_var` (updates).

    Args:
        learning_rate: A float or a schedule.
        rho: The decay of the averages.
        epsilon: Added under the roots.
        **kwargs: As for `keras.optimizers.Optimizer`.
    """

    settings = ("rho", "epsilon")

    def __init__(
        self,
        learning_rate: Any = 0.001,
        rho: float = 0.95,
        epsilon: float = 1e-8,
        **kwargs: Any,
    ) -> None:
        super().__init__(learning_rate, **kwargs)
        self.rho = rho
        self.epsilon = epsilon

    def update_rule(self) -> UpdateRule:
        """`ResourceApplyAdadelta`."""
        slots = {"accum": "accumulated_grad", "accum_update": "accumulated_delta_var"}
        return UpdateRule(
            "Adadelta",
            slots=slots,
            scalars={"rho": "rho", "epsilon": "epsilon"},
            suffixes=dict(zip(slots.values(), ["Adadelta", "Adadelta_1"], strict=True)),
            sparse_op="Adadelta",
        )


def _next_step(optimizer: Any, _: Any) -> Any:
    """The number of the step that is being taken, from 1 on."""
    return tf.cast(optimizer.iterations + 1, tf.int64)
