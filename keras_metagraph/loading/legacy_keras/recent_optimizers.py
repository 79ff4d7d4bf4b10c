"""The optimizers of Keras 2.11 to 2.15, where Keras 3 computes something else."""

from collections.abc import Sequence
from typing import Any

import keras
import tensorflow as tf

from keras_metagraph.training.optimizers import TFKerasAdam
from keras_metagraph.training.optimizers.tf_keras import TwoMoments
from keras_metagraph.training.rules import dense, resource

_register = keras.saving.register_keras_serializable("keras_metagraph")


class _DenseStep:
    """An optimizer that makes a sparse gradient dense after it was clipped."""

    def update_step(self, gradient: Any, variable: Any, learning_rate: Any) -> None:
        """Updates a variable and its slots."""
        gradient = dense(gradient, variable.shape)
        super().update_step(gradient, variable, learning_rate)  # type: ignore[misc]


@_register
class RecentAdadelta(_DenseStep, keras.optimizers.Adadelta):
    """`Adadelta` of Keras 2.11 to 2.15, which adds the rows of a sparse gradient."""


@_register
class RecentAdagrad(_DenseStep, keras.optimizers.Adagrad):
    """`Adagrad` of Keras 2.11 to 2.15, which adds the rows of a sparse gradient."""


@_register
class RecentAdamax(_DenseStep, keras.optimizers.Adamax):
    """`Adamax` of Keras 2.11 to 2.15, which adds the rows of a sparse gradient."""


@_register
class RecentAdamW(_DenseStep, keras.optimizers.AdamW):
    """`AdamW` of Keras 2.11 to 2.15, which adds the rows of a sparse gradient."""


@_register
class RecentAdafactor(_DenseStep, keras.optimizers.Adafactor):
    """`Adafactor` of Keras 2.11 to 2.15, which adds the rows of a sparse gradient."""


@_register
class RecentNadam(TwoMoments):
    """`Nadam` of Keras 2.11 to 2.15.

    ```
    u(t) = beta_1 * (1 - 0.5 * 0.96 ** t)
    u_product <- u_product * u(t)                 # for each variable but one, see below
    m <- m + (g - m) * (1 - beta_1)
    v <- v + (g ** 2 - v) * (1 - beta_2)
    mean = u(t + 1) * m / (1 - u_product * u(t + 1)) + (1 - u(t)) * g / (1 - u_product)
    variable <- variable
                - learning_rate * mean / (sqrt(v / (1 - beta_2 ** t)) + epsilon)
    ```

    The product was meant to change once a step, but the count that should have seen to
    it was a Python number, read while the step was traced: in the first step, and in
    the second once more. So it skips a variable while t is at most 2 * n - 1, of n
    variables. Source: `optimizers/nadam.py` of Keras 2.15. Slots: `momentum` (m),
    `velocity` (v).

    Args:
        learning_rate: A float or a schedule.
        beta_1: The decay of the first moment.
        beta_2: The decay of the second moment.
        epsilon: Added to the root.
        **kwargs: As for `keras.optimizers.Optimizer`.
    """

    def build(self, variables: Sequence[Any]) -> None:
        """Creates the slots and the product."""
        if self.built:
            return
        super().build(variables)
        self.count = len(variables)
        self.u_product = self.add_variable((), initializer="ones", name="u_product")

    def product_after(self, steps: int) -> float:
        """The product after some steps; an H5 file does not have it."""
        product = 1.0
        for step in range(1, steps + 1):
            skipped = 2 if step == 1 else step + 1 - self.count
            factors = self.count - (1 if 1 <= skipped <= self.count else 0)
            product *= (self.beta_1 * (1.0 - 0.5 * 0.96**step)) ** factors
        return product

    def update_step(self, gradient: Any, variable: Any, learning_rate: Any) -> None:
        """Updates a variable and its slots."""
        m, v = self.slots_of(variable).values()
        weight = resource(variable)
        gradient = tf.cast(dense(gradient, weight.shape), weight.dtype)
        beta_1, beta_2, decay = (
            tf.constant(value, weight.dtype)
            for value in (self.beta_1, self.beta_2, 0.96)
        )
        step = tf.cast(self.iterations + 1, weight.dtype)
        u, then = (beta_1 * (1 - 0.5 * tf.pow(decay, t)) for t in (step, step + 1))
        number = tf.constant(self._get_variable_index(variable) + 1, "int64")
        passed = tf.cast(self.iterations, "int64")
        number += tf.where(passed > 0, tf.constant(self.count, "int64"), 0)
        factor = tf.where(tf.equal(passed + 2, number), tf.ones_like(u), u)
        product = tf.cast(resource(self.u_product), weight.dtype) * factor
        self.u_product.assign(product)
        m.assign_add((gradient - m) * (1 - beta_1))
        v.assign_add((tf.square(gradient) - v) * (1 - beta_2))
        mean = then * m / (1 - product * then) + (1 - u) * gradient / (1 - product)
        root = tf.sqrt(v / (1 - tf.pow(beta_2, step))) + self.epsilon
        weight.assign_sub(mean * tf.cast(learning_rate, weight.dtype) / root)


@_register
class RecentRMSprop(_DenseStep, keras.optimizers.RMSprop):
    """`RMSprop` of Keras 2.11 to 2.15, which adds the rows of a sparse gradient."""


RECENT: dict[str, Any] = {
    "Adadelta": RecentAdadelta,
    "Adafactor": RecentAdafactor,
    "Adagrad": RecentAdagrad,
    "Adam": TFKerasAdam,
    "AdamW": RecentAdamW,
    "Adamax": RecentAdamax,
    "Ftrl": keras.optimizers.Ftrl,
    "Lion": keras.optimizers.Lion,
    "Nadam": RecentNadam,
    "RMSprop": RecentRMSprop,
    "SGD": keras.optimizers.SGD,
}
"""What stands for an optimizer of these releases, by its name there."""
