"""Which classes of Keras the optimizers of a graph become."""

import dataclasses
import functools
import math
from collections.abc import Callable
from typing import Any

import keras

from keras_metagraph.loading.infer.optimizers import OptimizerDescription
from keras_metagraph.loading.infer.schedule_fit import shortest
from keras_metagraph.training import optimizers as tf1


@dataclasses.dataclass(frozen=True)
class Kind:
    """Which classes an optimizer of a graph may become.

    Attributes:
        exact: Makes the one with TensorFlow 1's rule, of TensorFlow 1's arguments.
        own: Makes Keras's own, which computes the same for dense gradients.
        scheduled: Whether it does so too where the learning rate changes.
    """

    exact: Callable[..., Any]
    own: Callable[..., Any] | None = None
    scheduled: bool = True


def _add_sign(sign_decay: Any, **arguments: Any) -> Any:
    return tf1.TF1AddSign(sign_decay_fn=_decay(sign_decay), **arguments)


def _power_sign(logbase: float, sign_decay: Any, **arguments: Any) -> Any:
    base = shortest(math.exp(logbase))
    return tf1.TF1PowerSign(base=base, sign_decay_fn=_decay(sign_decay), **arguments)


def _decay(value: Any) -> Any:
    return None if value == 1.0 else value


def _adagrad(epsilon: float | None = None, **arguments: Any) -> Any:
    if epsilon is None:
        return tf1.TF1Adagrad(**arguments)
    return tf1.TFKerasAdagrad(epsilon=epsilon, **arguments)


def _own_adagrad(epsilon: float = 0.0, **arguments: Any) -> Any:
    return keras.optimizers.Adagrad(epsilon=0.0, **arguments) if not epsilon else None


def _renamed(make: Callable[..., Any], **names: str) -> Callable[..., Any]:
    """`make`, with arguments as TensorFlow 1 calls them."""

    def made(**arguments: Any) -> Any:
        return make(**{names.get(key, key): value for key, value in arguments.items()})

    return made


def _amsgrad(make: Callable[..., Any]) -> Callable[..., Any]:
    return functools.partial(_renamed(make, **_BETAS), amsgrad=True)


def kind_of(description: OptimizerDescription) -> Kind:
    """The classes for an optimizer of a graph.

    Args:
        description: The optimizer.

    Returns:
        Its kind; `UNKNOWN` where there is none.
    """
    nesterov = description.hyper_parameters.get("use_nesterov")
    if description.name == "Adam" and nesterov:
        return Kind(_nadam)
    return KINDS.get(description.name, UNKNOWN)


def _nadam(use_nesterov: bool, **arguments: Any) -> Any:
    del use_nesterov
    return tf1.TF1Nadam(**arguments)


UNKNOWN = Kind(tf1.TF1GradientDescent)
"""Stands for optimizers without a class."""
DECAYING = {"Adam": tf1.TF1AdamW, "Momentum": tf1.TF1MomentumW}
"""Classes with decoupled weight decay, by the optimizer's name."""
_BETAS = {"beta1": "beta_1", "beta2": "beta_2"}
KINDS: dict[str, Kind] = {
    "AdaMax": Kind(tf1.TF1AdaMax, _renamed(keras.optimizers.Adamax, **_BETAS)),
    "Adadelta": Kind(tf1.TF1Adadelta, keras.optimizers.Adadelta),
    "Adagrad": Kind(_adagrad, _own_adagrad),
    "AdagradDA": Kind(tf1.TF1AdagradDA),
    "Adam": Kind(tf1.TF1Adam, _renamed(keras.optimizers.Adam, **_BETAS)),
    "AddSign": Kind(_add_sign),
    "BertAdamW": Kind(_renamed(tf1.BertAdamW, **_BETAS)),
    "Ftrl": Kind(tf1.TF1Ftrl, keras.optimizers.Ftrl),
    "GradientDescent": Kind(tf1.TF1GradientDescent, keras.optimizers.SGD),
    "LAMB": Kind(_renamed(tf1.BertLAMB, **_BETAS)),
    "LazyAdam": Kind(tf1.TF1LazyAdam),
    "Momentum": Kind(
        tf1.TF1Momentum,
        _renamed(keras.optimizers.SGD, use_nesterov="nesterov"),
        scheduled=False,
    ),
    "PowerSign": Kind(_power_sign),
    "ProximalAdagrad": Kind(tf1.TF1ProximalAdagrad),
    "ProximalGradientDescent": Kind(tf1.TF1ProximalGradientDescent),
    "RMSProp": Kind(tf1.TF1RMSProp, _renamed(keras.optimizers.RMSprop, decay="rho")),
    "keras Adam with amsgrad": Kind(
        _amsgrad(tf1.TFKerasAdam), _amsgrad(keras.optimizers.Adam)
    ),
    "keras RMSprop": Kind(tf1.TFKerasRMSprop),
    "keras SGD with momentum": Kind(
        _renamed(tf1.TFKerasSGD, use_nesterov="nesterov"),
        _renamed(keras.optimizers.SGD, use_nesterov="nesterov"),
    ),
}
