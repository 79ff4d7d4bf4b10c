"""The optimizers that BERT and ALBERT were trained with."""

from collections.abc import Iterable
from typing import Any

import keras
import tensorflow as tf

from keras_metagraph.training.optimizers.weight_decay import SelectiveWeightDecay, found
from keras_metagraph.training.rules import dense, resource


@keras.saving.register_keras_serializable("keras_metagraph")
class BertAdamW(SelectiveWeightDecay):
    """Adam with weight decay, as BERT's `AdamWeightDecayOptimizer` computes it.

    ```
    m <- beta_1 * m + (1 - beta_1) * g
    v <- beta_2 * v + (1 - beta_2) * g ** 2                  # no bias correction
    update = m / (sqrt(v) + epsilon) + weight_decay_rate * variable
    variable <- variable - learning_rate * update
    ```

    Source: `optimization.py` of google-research/bert. BERT clips the gradients before:
    give `global_clipnorm=1.0`. Slots: `momentum` (m), `velocity` (v).

    Args:
        learning_rate: A float or a schedule.
        weight_decay_rate: The strength of the decay.
        beta_1: The decay of the first moment.
        beta_2: The decay of the second moment.
        epsilon: Added to the root.
        exclude_from_weight_decay: Regular expressions; weights in whose path one of
            them is found are not decayed. BERT has `LayerNorm`, `layer_norm`, `bias`.
        **kwargs: As for `keras.optimizers.Optimizer`.

    Example:
        ```python
        optimizer = BertAdamW(
            2e-5,
            weight_decay_rate=0.01,
            exclude_from_weight_decay=["LayerNorm", "layer_norm", "bias"],
            global_clipnorm=1.0,
        )
        ```
    """

    settings = ("weight_decay_rate", "beta_1", "beta_2", "epsilon")

    def __init__(
        self,
        learning_rate: Any = 0.001,
        weight_decay_rate: float = 0.0,
        beta_1: float = 0.9,
        beta_2: float = 0.999,
        epsilon: float = 1e-6,
        exclude_from_weight_decay: Iterable[str] | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(
            learning_rate, exclude_from_weight_decay=exclude_from_weight_decay, **kwargs
        )
        self.weight_decay_rate = weight_decay_rate
        self.beta_1 = beta_1
        self.beta_2 = beta_2
        self.epsilon = epsilon

    @property
    def suffixes(self) -> dict[str, str]:
        """As BERT names its slots."""
        return {"momentum": "adam_m", "velocity": "adam_v"}

    def slot_values(self) -> dict[str, float]:
        """Both start with zeros."""
        return {"momentum": 0.0, "velocity": 0.0}

    def update_step(self, gradient: Any, variable: Any, learning_rate: Any) -> None:
        """Updates a variable and its slots."""
        weight = resource(variable)
        gradient = tf.cast(dense(gradient, weight.shape), weight.dtype)
        slots = self.slots_of(variable)
        m = self.beta_1 * slots["momentum"] + (1.0 - self.beta_1) * gradient
        v = self.beta_2 * slots["velocity"] + (1.0 - self.beta_2) * tf.square(gradient)
        slots["momentum"].assign(m)
        slots["velocity"].assign(v)
        update = m / (tf.sqrt(v) + self.epsilon)
        if self.decays(variable):
            update += self.weight_decay_rate * weight
        rate = tf.cast(learning_rate, weight.dtype)
        weight.assign_sub(self.trust(variable, update) * rate * update)

    def trust(self, variable: Any, update: Any) -> Any:
        """The factor of a variable's learning rate."""
        return 1.0


@keras.saving.register_keras_serializable("keras_metagraph")
class BertLAMB(BertAdamW):
    """LAMB as ALBERT's `LAMBOptimizer` computes it.

    ```
    update as for BertAdamW                                  # no bias correction
    trust = norm(variable) / norm(update), or 1 where one of them is 0
    variable <- variable - trust * learning_rate * update
    ```

    Source: `lamb_optimizer.py` of google-research/albert. Slots: `momentum` (m),
    `velocity` (v).

    Args:
        learning_rate: A float or a schedule.
        weight_decay_rate: The strength of the decay.
        beta_1: The decay of the first moment.
        beta_2: The decay of the second moment.
        epsilon: Added to the root.
        exclude_from_weight_decay: Regular expressions; weights in whose path one of
            them is found are not decayed.
        exclude_from_layer_adaptation: Weights whose `trust` is 1; without it those that
            are not decayed.
        **kwargs: As for `keras.optimizers.Optimizer`.
    """

    def __init__(
        self,
        learning_rate: Any = 0.001,
        weight_decay_rate: float = 0.0,
        beta_1: float = 0.9,
        beta_2: float = 0.999,
        epsilon: float = 1e-6,
        exclude_from_weight_decay: Iterable[str] | None = None,
        exclude_from_layer_adaptation: Iterable[str] | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(
            learning_rate,
            weight_decay_rate,
            beta_1,
            beta_2,
            epsilon,
            exclude_from_weight_decay,
            **kwargs,
        )
        self.exclude_from_layer_adaptation = (
            list(exclude_from_layer_adaptation)
            if exclude_from_layer_adaptation
            else None
        )

    def build(self, variables: Any) -> None:
        """Creates the slots, and sees which variables are adapted."""
        if self.built:
            return
        super().build(variables)
        excluded = self.exclude_from_layer_adaptation or self.not_decayed
        self._adapts = [not found(excluded, variable) for variable in variables]

    def trust(self, variable: Any, update: Any) -> Any:
        """The ratio of the norms of a variable and of its update."""
        if not self._adapts[self._get_variable_index(variable)]:
            return 1.0
        norm, update_norm = tf.norm(resource(variable)), tf.norm(update)
        both = (norm > 0) & (update_norm > 0)
        return tf.where(both, tf.math.divide_no_nan(norm, update_norm), 1.0)

    def get_config(self) -> dict[str, Any]:
        """The arguments that make an equal optimizer."""
        excluded = self.exclude_from_layer_adaptation
        return {**super().get_config(), "exclude_from_layer_adaptation": excluded}
