"""Compiles a model as the file says that it was, and restores its optimizer."""

import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import keras

from keras_metagraph.formats.keras_h5 import KerasH5
from keras_metagraph.loading.legacy_keras.config import Objects
from keras_metagraph.loading.legacy_keras.layers import cosine_proximity
from keras_metagraph.loading.legacy_keras.optimizer_state import restore_optimizer
from keras_metagraph.loading.legacy_keras.optimizers import make_optimizer
from keras_metagraph.loading.legacy_keras.weights import Leaf

_LOSSES = {
    "bce": "binary_crossentropy",
    "kld": "kl_divergence",
    "kullback_leibler_divergence": "kl_divergence",
    "logcosh": "log_cosh",
    "mae": "mean_absolute_error",
    "mape": "mean_absolute_percentage_error",
    "mse": "mean_squared_error",
    "msle": "mean_squared_logarithmic_error",
}
_SHORT_METRICS = frozenset({"acc", "accuracy", "ce", "crossentropy"})
# Keras 1 averaged them over batches, which is not what their names say.
_GONE_METRICS = frozenset(
    {"fbeta_score", "fmeasure", "matthews_correlation", "precision", "recall"}
)


def compile_h5(
    model: Any, leaves: Sequence[Leaf], content: KerasH5, objects: Objects
) -> None:
    """Compiles a model, and gives its optimizer the state of an H5 file.

    Args:
        model: The model, with its weights.
        leaves: Its layers with what the file stores for them.
        content: The file.
        objects: What names stand for.

    Raises:
        CustomObjectError: If losses or metrics are missing; lists all.
        FormatError: If Keras 3 has no such optimizer.
        CheckpointError: If the optimizer's state does not fit; lists all.
    """
    config = content.training_config or {}
    # On TensorFlow, Keras 1 read the count of steps for the decay after it had raised
    # it: both were in one graph, and nothing said which came first.
    early = content.release < (2,) and content.backend == "tensorflow"
    compile_model(model, config, objects, decays_early=early)
    if content.optimizer_weights:
        restore_optimizer(
            model.optimizer,
            model.trainable_variables,
            optimizer_config(config)[0],
            content.optimizer_weights,
            leaves,
            by_name=content.release < (2, 0, 6),
            ahead=_ahead(content),
        )


def compile_model(
    model: Any,
    config: Mapping[str, Any],
    objects: Objects,
    *,
    decays_early: bool = False,
) -> None:
    """Compiles a model as a `training_config` says; the optimizer starts anew.

    Args:
        model: The model.
        config: Optimizer, loss, metrics and loss weights, as Keras 1 and 2 wrote them.
        objects: What names stand for.
        decays_early: Whether the learning rate of a step is that of the step after it.

    Raises:
        CustomObjectError: If losses or metrics are missing; lists all.
        FormatError: If Keras 3 has no such optimizer.
    """
    kind, settings = optimizer_config(config)
    optimizer = _make_optimizer(kind, settings, objects, decays_early)
    loss = _map(config.get("loss"), lambda value: _loss(value, objects))
    metrics = _map(config.get("metrics"), lambda value: _metric(value, objects))
    weighted = config.get("weighted_metrics")
    weighted = _map(weighted, lambda value: _metric(value, objects))
    objects.raise_findings()
    model.compile(
        optimizer=optimizer,
        loss=_for_each_output(model, loss),
        loss_weights=config.get("loss_weights"),
        metrics=_for_each_output(model, metrics, listed=True),
        weighted_metrics=_for_each_output(model, weighted, listed=True),
        auto_scale_loss=False,  # where Keras 2 did, the optimizer says so
    )


def _ahead(content: KerasH5) -> int:
    """By how much the step of the formulas was ahead of the number of steps.

    Standalone Keras 2.3 counted first, and then read the count for bias correction and
    decay: its variables were resources, whose reads see what was written before.
    """
    return int(content.release[:2] == (2, 3) and not content.is_tf_keras)


def optimizer_config(config: Mapping[str, Any]) -> tuple[str, Mapping[str, Any]]:
    """The class of the optimizer in a `training_config`, and its own config."""
    found = config.get("optimizer_config") or {}
    return str(found.get("class_name")), found.get("config") or {}


def _make_optimizer(
    kind: str, config: Mapping[str, Any], objects: Objects, early: bool
) -> Any:
    custom = objects.find_custom(kind)
    try:
        if custom is not None:
            return custom.from_config(dict(config))
        return make_optimizer(kind, config, decays_early=early)
    except (KeyError, TypeError, ValueError) as error:
        objects.note(f"optimizer: {error}")
        return None


def _map(value: Any, make: Callable[[Any], Any]) -> Any:
    """Replaces the names in a structure of lists and dicts by output."""
    if value is None:
        return None
    if isinstance(value, list | tuple):
        return [
            item for item in (_map(item, make) for item in value) if item is not None
        ]
    if isinstance(value, Mapping) and "class_name" not in value:
        return {key: _map(item, make) for key, item in value.items()}
    return make(value)


def _loss(value: Any, objects: Objects) -> Any:
    if value == "cosine_proximity":
        old = objects.release < (2, 2) and not objects.is_tf_keras
        return cosine_proximity if old else keras.losses.cosine_similarity
    if isinstance(value, str):
        value = _LOSSES.get(value.lower(), value)
    elif isinstance(value.get("config"), Mapping):
        config = dict(value["config"])
        if config.get("reduction") == "auto":
            config["reduction"] = "sum_over_batch_size"
        config.pop("fn", None)
        value = {**value, "config": config}
    return objects.object("the loss", "losses", value)


def _metric(value: Any, objects: Objects) -> Any:
    if isinstance(value, Mapping):
        config = dict(value.get("config") or {})
        function = config.pop("fn", None)
        config.pop("dtype", None)
        if function is None:
            return objects.object("the metrics", "metrics", {**value, "config": config})
        found = _function(function, objects)
        name = config.get("name")
        return found and keras.metrics.MeanMetricWrapper(found, name=name)
    if value in _SHORT_METRICS:
        return value
    if value in _GONE_METRICS and objects.find_custom(value) is None:
        warnings.warn(
            f"The metric {value!r} of Keras 1 is not carried over: it was a mean over "
            "batches. Pass custom_objects to give one, or compile the model anew.",
            stacklevel=2,
        )
        return None
    if value == "cosine_proximity":
        return _loss(value, objects)
    return _function(value, objects)


def _function(value: Any, objects: Objects) -> Any:
    """A function that measures; losses are taken for metrics too."""
    name = _LOSSES.get(str(value).lower(), value)
    space = "losses" if hasattr(keras.losses, str(name)) else "metrics"
    return objects.object("the metrics", space, name)


def _for_each_output(model: Any, value: Any, *, listed: bool = False) -> Any:
    """Gives each output what was said for all of them."""
    outputs = len(getattr(model, "outputs", None) or [None])
    if value is None or outputs == 1 or isinstance(value, Mapping):
        return value
    if listed:
        flat = not any(isinstance(item, list) for item in value)
        return [value] * outputs if flat and value else value
    return value if isinstance(value, list) else [value] * outputs
