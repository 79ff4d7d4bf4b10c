"""Weight decay that an optimizer does itself, but for some of the weights."""

import re
from collections.abc import Iterable, Sequence
from typing import Any

import tensorflow as tf

from keras_metagraph.training.optimizers.base import TF1Optimizer
from keras_metagraph.training.rules import resource, unique_rows


class SelectiveWeightDecay(TF1Optimizer):
    """An optimizer that knows which weights it decays.

    Args:
        *args: What the optimizer takes.
        exclude_from_weight_decay: Regular expressions; weights in whose path one of
            them is found are not decayed.
        **kwargs: What the optimizer takes.
    """

    def __init__(
        self,
        *args: Any,
        exclude_from_weight_decay: Iterable[str] | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(*args, **kwargs)
        self.not_decayed = list(exclude_from_weight_decay or ())

    def exclude_from_weight_decay(
        self,
        var_list: Iterable[Any] | None = None,
        var_names: Iterable[str] | None = None,
    ) -> None:
        """Excludes more weights from the decay, before the optimizer is built.

        Args:
            var_list: Weights.
            var_names: Regular expressions.
        """
        paths = (f"^{re.escape(variable.path)}$" for variable in var_list or ())
        self.not_decayed = [*self.not_decayed, *paths, *(var_names or ())]

    def build(self, variables: Sequence[Any]) -> None:
        """Creates the slots, and sees which variables are decayed."""
        if self.built:
            return
        super().build(variables)
        self._decays = [not found(self.not_decayed, variable) for variable in variables]

    def decays(self, variable: Any) -> bool:
        """Whether a variable that the optimizer was built with is decayed."""
        return bool(self._decays[self._get_variable_index(variable)])

    def get_config(self) -> dict[str, Any]:
        """The arguments that make an equal optimizer."""
        excluded = {"exclude_from_weight_decay": list(self.not_decayed)}
        return {**super().get_config(), **excluded}


class DecoupledWeightDecay(SelectiveWeightDecay):
    """`DecoupledWeightDecayExtension` of `tf.contrib.opt`, to come before an optimizer.

    Args:
        weight_decay: The part of each weight that a step takes away.
        *args: What the optimizer takes.
        **kwargs: What the optimizer takes.
    """

    def __init__(self, weight_decay: float, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        # Not as `weight_decay`, which Keras multiplies by the learning rate.
        self.decoupled_decay = weight_decay

    def update_step(self, gradient: Any, variable: Any, learning_rate: Any) -> None:
        """Decays a variable, or its rows that have a gradient; then updates it."""
        weight = resource(variable)
        if not self.decays(variable):
            pass
        elif isinstance(gradient, tf.IndexedSlices):
            _, indices = unique_rows(gradient)
            lost = self.decoupled_decay * tf.gather(weight, indices)
            weight.scatter_sub(tf.IndexedSlices(lost, indices))
        else:
            weight.assign_sub(self.decoupled_decay * weight)
        super().update_step(gradient, variable, learning_rate)

    def get_config(self) -> dict[str, Any]:
        """The arguments that make an equal optimizer."""
        return {**super().get_config(), "weight_decay": self.decoupled_decay}


def found(patterns: Iterable[str], variable: Any) -> bool:
    """Whether one of some regular expressions is found in a variable's path."""
    path = getattr(variable, "path", variable.name)
    return any(re.search(pattern, path) for pattern in patterns)
