"""Makes the optimizer that a file of Keras 1 or 2 describes.

There were three families: standalone Keras until 2.3 (and tf.keras until TensorFlow
1.12), which treated every gradient as dense and clipped by the norm of all; tf.keras
from TensorFlow 1.13 on (`OptimizerV2`); and the one of Keras 2.11, which became that of
Keras 3. Sources: `keras/optimizers.py` of Keras 1.2.2, 2.2.4 and 2.3.1,
`tensorflow/python/keras/optimizer_v2/` of TensorFlow 1.15.
"""

from collections.abc import Callable, Mapping
from typing import Any

import keras
import tensorflow as tf

from keras_metagraph.loading.legacy_keras.recent_optimizers import RECENT
from keras_metagraph.training.optimizers import (
    TF1Adadelta,
    TF1AdaMax,
    TF1Ftrl,
    TFKerasAdagrad,
    TFKerasAdam,
    TFKerasNadam,
    TFKerasRMSprop,
    TFKerasSGD,
)
from keras_metagraph.training.rules import dense

Config = dict[str, Any]

_register = keras.saving.register_keras_serializable("keras_metagraph")
# What was used where a config says None.
_EPSILON = 1e-7
_COMMON = ("clipvalue", "global_clipnorm", "weight_decay", "use_ema", "ema_momentum")


class _Dense:
    """An optimizer that makes a sparse gradient dense, before it clips it."""

    def apply(self, grads: Any, trainable_variables: Any = None) -> None:
        """Updates the weights by their gradients."""
        grads = [_dense(gradient) for gradient in grads]
        super().apply(grads, trainable_variables)  # type: ignore[misc]


def _dense(gradient: Any) -> Any:
    if not isinstance(gradient, tf.IndexedSlices):
        return gradient
    return dense(gradient, gradient.dense_shape)


@_register
class KerasSGD(_Dense, keras.optimizers.SGD):
    """`SGD` of Keras 1 and 2, which adds the rows of a sparse gradient, then clips."""


@_register
class KerasAdam(_Dense, keras.optimizers.Adam):
    """`Adam` of Keras 1 and 2, which adds the rows of a sparse gradient, then clips."""


@_register
class KerasRMSprop(_Dense, TFKerasRMSprop):
    """`RMSprop` of Keras 1 and 2: as in tf.keras, with gradients made dense first."""


@_register
class KerasAdagrad(_Dense, TFKerasAdagrad):
    """`Adagrad` of Keras 1 and 2: as in tf.keras, with gradients made dense first."""


@_register
class KerasAdadelta(_Dense, keras.optimizers.Adadelta):
    """`Adadelta` of Keras 1 and 2: also rows without a gradient move."""


@_register
class KerasAdamax(_Dense, keras.optimizers.Adamax):
    """`Adamax` of Keras 1 and 2: also rows without a gradient move."""


@_register
class KerasNadam(_Dense, TFKerasNadam):
    """`Nadam` of Keras 1 and 2: also rows without a gradient move."""


def make_optimizer(
    kind: str, config: Mapping[str, Any], *, decays_early: bool = False
) -> Any:
    """Makes the optimizer of a file, without its state.

    Args:
        kind: The name of its class.
        config: Its config.
        decays_early: Whether the learning rate of a step is that of the step after it.

    Returns:
        An optimizer of Keras 3 with the same arithmetic.

    Raises:
        ValueError: If there is none.

    Example:
        >>> make_optimizer("SGD", {"lr": 0.1, "momentum": 0.9, "decay": 0.0})
    """
    kind = kind.rpartition(">")[2]
    known = {name.lower(): name for name in _KERAS}
    kind = known.get(kind.lower(), kind)
    config = dict(config)
    if kind in _SCALED:
        return _scaled(config)
    if is_recent(config):
        return _recent(kind, config)
    version2 = is_version2(config)
    make = (_VERSION_2 if version2 else _KERAS).get(kind)
    if make is None:
        raise ValueError(f"the optimizer {kind}, which is not known")
    if config.get("epsilon", 0.0) is None:
        config["epsilon"] = _EPSILON
    common = {key: config[key] for key in _COMMON if config.get(key)}
    if config.get("clipnorm"):
        # Standalone Keras meant the norm of all gradients together.
        common["clipnorm" if version2 else "global_clipnorm"] = config["clipnorm"]
    if len([key for key in common if "clip" in key]) > 1:
        raise ValueError("clipnorm and clipvalue together, which Keras 3 has not")
    if version2:
        common["name"] = config["name"]
    return make(_learning_rate(kind, config, decays_early), config, common)


def is_version2(config: Mapping[str, Any]) -> bool:
    """Whether a config is of tf.keras from TensorFlow 1.13 on, or later."""
    return "name" in config


def is_recent(config: Mapping[str, Any]) -> bool:
    """Whether a config is of Keras 2.11 or later."""
    return "jit_compile" in config or "is_legacy_optimizer" in config


def _learning_rate(kind: str, config: Mapping[str, Any], early: bool) -> Any:
    """The learning rate, or its schedule."""
    rate = config.get("learning_rate", config.get("lr"))
    if isinstance(rate, Mapping):
        name = str(rate.get("class_name"))
        made = getattr(keras.optimizers.schedules, name, None)
        if made is None or name in ("LearningRateSchedule", "deserialize"):
            raise ValueError(f"the learning rate schedule {name}, which is not known")
        settings = {k: v for k, v in rate["config"].items() if v is not None}
        return made.from_config(settings)
    rate = float(rate)
    decay = float(config.get("decay") or 0.0)
    if not decay or kind == "Nadam":  # whose `decay` is that of its momentum
        return rate
    if early:  # rate / (1 + decay * (step + 1))
        rate, decay = rate / (1 + decay), decay / (1 + decay)
    return keras.optimizers.schedules.InverseTimeDecay(rate, 1, decay)


def _recent(kind: str, config: Config) -> Any:
    """An optimizer of Keras 2.11 to 2.15, which has the arithmetic of Keras 3."""
    found = RECENT.get(kind)
    if found is None:
        raise ValueError(f"the optimizer {kind}, which is not known")
    if float(config.get("decay") or 0.0):
        raise ValueError("the argument decay, which Keras 2.11 itself did not use")
    dropped = ("decay", "jit_compile", "is_legacy_optimizer", "learning_rate")
    kept = {key: value for key, value in config.items() if key not in dropped}
    return found(_learning_rate(kind, config, False), **kept)


def _scaled(config: Config) -> Any:
    """An optimizer for mixed precision, which scales the loss."""
    inner = config.get("inner_optimizer") or config["optimizer"]
    optimizer = make_optimizer(str(inner["class_name"]), inner["config"])
    scale = config.get("loss_scale")
    if scale is not None:  # an object of its own, until TensorFlow 2.3
        settings = scale["config"]
        config["dynamic"] = scale["class_name"] == "DynamicLossScale"
        names = ("initial_loss_scale", "loss_scale_value")
        config["initial_scale"] = next(settings[k] for k in names if k in settings)
        config["dynamic_growth_steps"] = settings.get("increment_period")
        if settings.get("multiplier", 2) != 2:
            raise ValueError("a loss scale whose multiplier is not 2")
    if not config["dynamic"]:
        optimizer.loss_scale_factor = float(config["initial_scale"])
        return optimizer
    return keras.optimizers.LossScaleOptimizer(
        optimizer,
        initial_scale=float(config["initial_scale"]),
        dynamic_growth_steps=int(config["dynamic_growth_steps"]),
    )


_Make = Callable[[Any, Mapping[str, Any], Config], Any]


def _with(kind: Any, **names: str) -> _Make:
    """Makes a class with arguments that its config has, perhaps by other names."""

    def make(rate: Any, config: Mapping[str, Any], common: Config) -> Any:
        own = {to: config[name] for to, name in names.items() if name in config}
        return kind(rate, **own, **common)

    return make


def _adagrad(rate: Any, config: Mapping[str, Any], common: Config) -> Any:
    """Standalone Keras's, whose accumulators start with zeros."""
    return KerasAdagrad(
        rate, initial_accumulator_value=0.0, epsilon=config["epsilon"], **common
    )


def _sgd(rate: Any, config: Mapping[str, Any], common: Config) -> Any:
    """Standalone Keras's: the one of Keras 3, as long as nothing is clipped."""
    kind = KerasSGD if common else keras.optimizers.SGD
    return kind(
        rate, momentum=config["momentum"], nesterov=config["nesterov"], **common
    )


_ADAM = {"beta_1": "beta_1", "beta_2": "beta_2", "epsilon": "epsilon"}
_KERAS: dict[str, _Make] = {
    "SGD": _sgd,
    "RMSprop": _with(KerasRMSprop, rho="rho", epsilon="epsilon"),
    "Adagrad": _adagrad,
    "Adadelta": _with(KerasAdadelta, rho="rho", epsilon="epsilon"),
    "Adam": _with(KerasAdam, amsgrad="amsgrad", **_ADAM),
    "Adamax": _with(KerasAdamax, **_ADAM),
    "Nadam": _with(KerasNadam, schedule_decay="schedule_decay", **_ADAM),
}
_VERSION_2: dict[str, _Make] = {
    "SGD": _with(TFKerasSGD, momentum="momentum", nesterov="nesterov"),
    "RMSprop": _with(
        TFKerasRMSprop,
        rho="rho",
        momentum="momentum",
        epsilon="epsilon",
        centered="centered",
    ),
    "Adagrad": _with(
        TFKerasAdagrad,
        initial_accumulator_value="initial_accumulator_value",
        epsilon="epsilon",
    ),
    "Adadelta": _with(TF1Adadelta, rho="rho", epsilon="epsilon"),
    "Adam": _with(TFKerasAdam, amsgrad="amsgrad", **_ADAM),
    "Adamax": _with(TF1AdaMax, beta1="beta_1", beta2="beta_2", epsilon="epsilon"),
    "Nadam": _with(TFKerasNadam, schedule_decay="decay", **_ADAM),
    "Ftrl": _with(
        TF1Ftrl,
        **{
            name: name
            for name in (
                "learning_rate_power",
                "initial_accumulator_value",
                "l1_regularization_strength",
                "l2_regularization_strength",
                "l2_shrinkage_regularization_strength",
            )
        },
    ),
}
_SCALED = frozenset(
    {"LossScaleOptimizer", "LossScaleOptimizerV1", "LossScaleOptimizerV3"}
)
