"""The heads of classifiers and regressors, as servers take them.

TensorFlow Serving: `servables/tensorflow/classifier.cc` and `regressor.cc`.
"""

import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from keras_metagraph.errors import SignatureError
from keras_metagraph.signatures.traced import TracedTarget

CLASSES, SCORES, OUTPUTS = "classes", "scores", "outputs"

Head = Callable[[dict[str, Any]], dict[str, Any]]
"""From the outputs of a function to those of a signature."""

_PROBABILITIES = frozenset({"Sigmoid", "Softmax"})
# What layers without an activation end with. Softmax undoes the logarithm of a softmax.
_LOGITS = frozenset({"BiasAdd", "LogSoftmax", "MatMul"})


def classification(
    traced: TracedTarget,
    key: str,
    outputs: tuple[str, ...],
    labels: Any,
    top_k: int | None,
    from_logits: bool | None,
) -> Head:
    """The head of a function that gives a score a class.

    Args:
        traced: The function.
        key: Which of its outputs.
        outputs: What to give: `"classes"`, `"scores"`.
        labels: Texts by class id, or a lookup layer.
        top_k: How many classes to give, the best first.
        from_logits: Whether the output is logits; None to find out.

    Returns:
        The head.

    Raises:
        SignatureError: If something does not fit; lists all of it.
    """
    spec = traced.outputs[key].spec
    shape = tf.TensorShape(spec.shape)
    findings = [*_unknown_outputs(outputs), *_not_numeric(key, spec)]
    if shape.rank not in (1, 2):
        findings.append(
            f"output {key!r} has the shape {shape}, expected (batch, classes)"
        )
    binary = shape.rank == 1 or (shape.rank == 2 and shape[1] == 1)
    count = 2 if binary else shape[1] if shape.rank == 2 else None
    texts = read_labels(labels, count)
    if None not in (count, texts) and count != len(texts or ()):
        findings.append(f"there are {count} classes and {len(texts or ())} labels")
    whole = isinstance(top_k, int | np.integer)
    if top_k is not None and not (whole and 1 <= top_k <= (count or top_k)):
        findings.append(f"top_k is {top_k!r}, and there are {count} classes")
    activation = _activation(traced, key, from_logits, findings, binary=binary)
    traced.check(findings, "a classifier")

    def head(values: dict[str, Any]) -> dict[str, Any]:
        scores = _probabilities(values[key], activation, binary=binary)
        if texts is not None:  # where the graph leaves open how many classes there are
            scores = tf.ensure_shape(scores, [None, len(texts)])
        found = _ranked(scores, texts, top_k)
        return {name: found[name] for name in outputs}

    return head


def own_classification(
    traced: TracedTarget, outputs: tuple[str, ...], options: Mapping[str, Any]
) -> Head:
    """The head of a function that gives classes and scores itself.

    Args:
        traced: The function.
        outputs: What to give: `"classes"`, `"scores"`.
        options: Options of classifiers that there is no use for here.

    Returns:
        The head.

    Raises:
        SignatureError: If something does not fit; lists all of it.
    """
    findings = [*_unknown_outputs(outputs)]
    findings += [
        f"{name}={value!r} was passed, and the function gives classes or scores itself"
        for name, value in options.items()
        if value is not None
    ]
    for key, output in traced.outputs.items():
        shape = tf.TensorShape(output.spec.shape)
        if shape.rank not in (None, 2):
            findings.append(
                f"output {key!r} has the shape {shape}, expected (batch, classes)"
            )
        if key == SCORES:
            findings += _not_numeric(key, output.spec)
        elif key != CLASSES:
            findings.append(f"there is another output {key!r}")
        elif output.spec.dtype != tf.string:
            findings.append(f"output {key!r} is {output.spec.dtype.name}, not texts")
    traced.check(findings, "a classifier")

    def head(values: dict[str, Any]) -> dict[str, Any]:
        return {
            key: as_float32(values[key]) if key == SCORES else values[key]
            for key in outputs
            if key in values
        }

    return head


def regression(traced: TracedTarget, key: str) -> Head:
    """The head of a function that gives one number an example.

    Args:
        traced: The function.
        key: Which of its outputs.

    Returns:
        The head.

    Raises:
        SignatureError: If the output is something else.
    """
    spec = traced.outputs[key].spec
    shape = tf.TensorShape(spec.shape)
    findings = _not_numeric(key, spec)
    if shape.rank not in (1, 2) or (shape.rank == 2 and shape[1] != 1):
        findings.append(
            f"output {key!r} has the shape {shape}, expected (batch,) or (batch, 1)"
        )
    traced.check(findings, "a regressor")
    return lambda values: {OUTPUTS: as_float32(values[key])}


def as_float32(value: Any) -> Any:
    """A tensor in the only type that servers take for scores and regressions."""
    return value if value.dtype == tf.float32 else tf.cast(value, tf.float32)


def read_labels(labels: Any, count: int | None) -> tuple[bytes, ...] | None:
    """Labels by class id.

    Args:
        labels: A list of texts; a `StringLookup` or `IntegerLookup`; or None.
        count: How many classes there are, if that is known.

    Returns:
        The labels as bytes. Of a lookup layer the token of each index, without those
        for masks and unknown tokens where there are no classes for them.

    Raises:
        SignatureError: If it is something else.
    """
    if labels is None:
        return None
    if isinstance(labels, keras.layers.StringLookup | keras.layers.IntegerLookup):
        tokens = labels.get_vocabulary(include_special_tokens=False)
        labels = tokens if count == len(tokens) else labels.get_vocabulary()
    if isinstance(labels, str | bytes) or not isinstance(labels, Sequence | np.ndarray):
        raise SignatureError(
            "labels are a list of texts or a StringLookup layer. "
            f"Received: labels={labels!r}",
            fix='pass labels=["cat", "dog"].',
        )
    return tuple(
        label if isinstance(label, bytes) else str(label).encode("utf-8")
        for label in labels
    )


def _activation(
    traced: TracedTarget,
    key: str,
    from_logits: bool | None,
    findings: list[str],
    *,
    binary: bool,
) -> str | None:
    """What makes probabilities of an output: softmax, sigmoid, or nothing."""
    last = traced.last_op(key)
    if from_logits is None and last in _PROBABILITIES:
        return None
    loss = getattr(traced.found.model, "loss", None)
    if isinstance(loss, list | tuple):
        loss = dict(zip(traced.outputs, loss, strict=False))
    loss = loss.get(key) if isinstance(loss, Mapping) else loss
    loss = keras.losses.get(loss) if isinstance(loss, str) else loss
    if from_logits is None:
        from_logits = _takes_logits(loss)
    if from_logits is None and last in _LOGITS:
        from_logits = True
    if from_logits is None:
        findings.append(
            f"output {key!r} comes from {last}, which does not tell whether it is "
            "probabilities or logits: pass from_logits="
        )
    if not from_logits:
        return None
    # One loss for each class on its own: several labels may hold at once.
    name = getattr(loss, "__name__", type(loss).__name__)
    independent = "binary" in name.lower()
    return "sigmoid" if binary or independent else "softmax"


def _takes_logits(loss: Any) -> bool | None:
    """Whether a loss takes logits; None where it does not say."""
    told: Any = None
    if isinstance(loss, keras.losses.Loss):
        told = loss.get_config().get("from_logits")
    elif callable(loss):
        parameter = inspect.signature(loss).parameters.get("from_logits")
        told = None if parameter is None else parameter.default
    return None if told is None else bool(told)


def _probabilities(output: Any, activation: str | None, *, binary: bool) -> Any:
    """Probabilities, float32, `(batch, classes)`."""
    scores = as_float32(output)
    if scores.shape.rank == 1:
        scores = scores[:, tf.newaxis]
    if activation is not None:
        scores = getattr(tf.nn, activation)(scores)
    return tf.concat([1.0 - scores, scores], axis=1) if binary else scores


def _ranked(
    scores: Any, labels: tuple[bytes, ...] | None, top_k: int | None
) -> dict[str, Any]:
    """Classes and scores: all by id, or the best first."""
    size = tf.shape(scores)
    texts = (
        tf.strings.as_string(tf.range(size[1]))
        if labels is None
        else tf.constant(labels, tf.string)
    )
    if top_k is None:
        return {CLASSES: tf.tile(texts[tf.newaxis, :], [size[0], 1]), SCORES: scores}
    best, places = tf.math.top_k(scores, top_k)
    return {CLASSES: tf.gather(texts, places), SCORES: best}


def _unknown_outputs(outputs: tuple[str, ...]) -> list[str]:
    unknown = [name for name in outputs if name not in (CLASSES, SCORES)]
    if outputs and not unknown:
        return []
    return [f"outputs names classes, scores or both. Received: {outputs!r}"]


def _not_numeric(key: str, spec: Any) -> list[str]:
    dtype = tf.as_dtype(spec.dtype)
    if isinstance(spec, tf.TensorSpec) and (dtype.is_floating or dtype.is_integer):
        return []
    return [f"output {key!r} is {spec}, expected numbers"]
