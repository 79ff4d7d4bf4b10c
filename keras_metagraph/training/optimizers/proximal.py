"""FTRL and the proximal optimizers of `tf.train`, which drive weights to zero."""

from typing import Any

from keras_metagraph.training.optimizers.base import TF1Optimizer, tf1_optimizer
from keras_metagraph.training.rules import UpdateRule


@tf1_optimizer
class TF1Ftrl(TF1Optimizer):
    """FTRL as `tf.train.FtrlOptimizer` and tf.keras of 1.15 compute it.

    ```
    shrunk = g + 2 * l2_shrinkage * variable
    new = accumulator + g ** 2
    linear <- linear + shrunk
              - (new ** -power - accumulator ** -power) / learning_rate * variable
    quadratic = new ** -power / learning_rate + 2 * l2
    variable <- (sign(linear) * l1 - linear) / quadratic, or 0 where |linear| <= l1
    accumulator <- new
    ```

    where power is `learning_rate_power`. A sparse gradient moves its rows only. Source:
    `tensorflow/python/training/ftrl.py` of TensorFlow 1.15. Slots: `accumulator`,
    `linear`.

    Args:
        learning_rate: A float or a schedule.
        learning_rate_power: At most 0.
        initial_accumulator_value: What the accumulators start with.
        l1_regularization_strength: l1.
        l2_regularization_strength: l2.
        l2_shrinkage_regularization_strength: l2_shrinkage.
        **kwargs: As for `keras.optimizers.Optimizer`.

    Example:
        ```python
        model.compile(TF1Ftrl(0.1, l1_regularization_strength=0.01), "mse")
        ```
    """

    settings = (
        "learning_rate_power",
        "initial_accumulator_value",
        "l1_regularization_strength",
        "l2_regularization_strength",
        "l2_shrinkage_regularization_strength",
    )

    def __init__(
        self,
        learning_rate: Any = 0.001,
        learning_rate_power: float = -0.5,
        initial_accumulator_value: float = 0.1,
        l1_regularization_strength: float = 0.0,
        l2_regularization_strength: float = 0.0,
        l2_shrinkage_regularization_strength: float = 0.0,
        **kwargs: Any,
    ) -> None:
        super().__init__(learning_rate, **kwargs)
        self.learning_rate_power = learning_rate_power
        self.initial_accumulator_value = initial_accumulator_value
        self.l1_regularization_strength = l1_regularization_strength
        self.l2_regularization_strength = l2_regularization_strength
        self.l2_shrinkage_regularization_strength = l2_shrinkage_regularization_strength

    def update_rule(self) -> UpdateRule:
        """`ResourceApplyFtrl`, or `ResourceApplyFtrlV2` with shrinkage."""
        shrinks = self.l2_shrinkage_regularization_strength > 0
        op = "FtrlV2" if shrinks else "Ftrl"
        shrinkage = {"l2_shrinkage": "l2_shrinkage_regularization_strength"}
        return UpdateRule(
            op,
            slots={"accum": "accumulator", "linear": "linear"},
            scalars={
                "l1": "l1_regularization_strength",
                "l2": "l2_regularization_strength",
                **(shrinkage if shrinks else {}),
                "lr_power": "learning_rate_power",
            },
            suffixes={"accumulator": "Ftrl", "linear": "Ftrl_1"},
            sparse_op=op,
        )

    def slot_values(self) -> dict[str, float]:
        """The accumulators start with the value that was given."""
        return {"accumulator": self.initial_accumulator_value, "linear": 0.0}


@tf1_optimizer
class TF1ProximalGradientDescent(TF1Optimizer):
    """`tf.train.ProximalGradientDescentOptimizer`.

    ```
    moved = variable - learning_rate * g
    variable <- sign(moved) * max(|moved| - learning_rate * l1, 0)
                / (1 + learning_rate * l2)
    ```

    A sparse gradient moves its rows only. Source:
    `tensorflow/python/training/proximal_gradient_descent.py` of TensorFlow 1.15.

    Args:
        learning_rate: A float or a schedule.
        l1_regularization_strength: l1.
        l2_regularization_strength: l2.
        **kwargs: As for `keras.optimizers.Optimizer`.
    """

    settings = ("l1_regularization_strength", "l2_regularization_strength")

    def __init__(
        self,
        learning_rate: Any = 0.01,
        l1_regularization_strength: float = 0.0,
        l2_regularization_strength: float = 0.0,
        **kwargs: Any,
    ) -> None:
        super().__init__(learning_rate, **kwargs)
        self.l1_regularization_strength = l1_regularization_strength
        self.l2_regularization_strength = l2_regularization_strength

    def update_rule(self) -> UpdateRule:
        """`ResourceApplyProximalGradientDescent`."""
        return UpdateRule(
            "ProximalGradientDescent",
            scalars={
                "l1": "l1_regularization_strength",
                "l2": "l2_regularization_strength",
            },
            sparse_op="ProximalGradientDescent",
            rate="alpha",
            gradient="delta",
        )


@tf1_optimizer
class TF1ProximalAdagrad(TF1Optimizer):
    """`tf.train.ProximalAdagradOptimizer`.

    ```
    accumulator <- accumulator + g ** 2
    rate = learning_rate / sqrt(accumulator)
    moved = variable - rate * g
    variable <- sign(moved) * max(|moved| - rate * l1, 0) / (1 + rate * l2)
    ```

    A sparse gradient moves its rows only. Source:
    `tensorflow/python/training/proximal_adagrad.py` of TensorFlow 1.15. Slot:
    `accumulator`.

    Args:
        learning_rate: A float or a schedule.
        initial_accumulator_value: What the accumulators start with.
        l1_regularization_strength: l1.
        l2_regularization_strength: l2.
        **kwargs: As for `keras.optimizers.Optimizer`.
    """

    settings = (
        "initial_accumulator_value",
        "l1_regularization_strength",
        "l2_regularization_strength",
    )

    def __init__(
        self,
        learning_rate: Any = 0.01,
        initial_accumulator_value: float = 0.1,
        l1_regularization_strength: float = 0.0,
        l2_regularization_strength: float = 0.0,
        **kwargs: Any,
    ) -> None:
        super().__init__(learning_rate, **kwargs)
        self.initial_accumulator_value = initial_accumulator_value
        self.l1_regularization_strength = l1_regularization_strength
        self.l2_regularization_strength = l2_regularization_strength

    def update_rule(self) -> UpdateRule:
        """`ResourceApplyProximalAdagrad`."""
        return UpdateRule(
            "ProximalAdagrad",
            slots={"accum": "accumulator"},
            scalars={
                "l1": "l1_regularization_strength",
                "l2": "l2_regularization_strength",
            },
            suffixes={"accumulator": "ProximalAdagrad"},
            sparse_op="ProximalAdagrad",
        )

    def slot_values(self) -> dict[str, float]:
        """The accumulators start with the value that was given."""
        return {"accumulator": self.initial_accumulator_value}
