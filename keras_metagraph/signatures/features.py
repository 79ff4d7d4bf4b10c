"""Says what is wrong with examples that could not be parsed.

TensorFlow names one feature of one example, and stops.
"""

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import numpy as np
import tensorflow as tf
from google.protobuf.message import DecodeError

_KINDS = {
    tf.string: "bytes_list",
    tf.int64: "int64_list",
    tf.float32: "float_list",
}
_SHOWN = 5


def wrong_features(
    features: Mapping[str, Any],
    serialized: Iterable[bytes],
    checks: Mapping[str, Callable[[bytes], str | None]],
) -> list[str]:
    """Finds features that are missing, of another type or of another length.

    Args:
        features: What was to be read, as `tf.io.parse_example` takes it.
        serialized: The serialized examples.
        checks: What is wrong with the one value of a feature, by its name.

    Returns:
        A line for each kind of mistake, with the numbers of the examples.
    """
    places: dict[str, list[int]] = {}
    for number, content in enumerate(serialized):
        for mistake in _mistakes(features, content, checks):
            places.setdefault(mistake, []).append(number)
    return [f"{mistake}: {_numbers(found)}" for mistake, found in places.items()]


def _mistakes(
    features: Mapping[str, Any],
    content: bytes,
    checks: Mapping[str, Callable[[bytes], str | None]],
) -> list[str]:
    try:
        example = tf.train.Example.FromString(content)
    except DecodeError:
        return ["not a serialized tf.Example"]
    found = example.features.feature
    mistakes = []
    for name, config in features.items():
        for key, dtype in _stored(name, config):
            kind = found[key].WhichOneof("kind") if key in found else None
            if kind is None:
                if _is_required(config):
                    mistakes.append(f"feature {key!r} ({dtype.name}) is missing")
            elif kind != _KINDS[dtype]:
                mistakes.append(
                    f"feature {key!r} is a {kind}, expected a {_KINDS[dtype]}"
                )
            else:
                values = getattr(found[key], kind).value
                wrong = _wrong_size(key, config, len(values))
                if key in checks and not wrong:
                    mistake = checks[key](values[0])
                    wrong = [f"feature {key!r} {mistake}"] if mistake else []
                mistakes += wrong
    return mistakes


def _stored(name: str, config: Any) -> list[tuple[str, tf.DType]]:
    """The features that a config reads, with their types."""
    dtype = tf.as_dtype(config.dtype)
    if isinstance(config, tf.io.SparseFeature):
        keys = config.index_key
        indices = [keys] if isinstance(keys, str) else list(keys)
        return [(config.value_key, dtype), *((key, tf.int64) for key in indices)]
    return [(getattr(config, "value_key", None) or name, dtype)]


def _is_required(config: Any) -> bool:
    return isinstance(config, tf.io.FixedLenFeature) and config.default_value is None


def _wrong_size(key: str, config: Any, size: int) -> list[str]:
    if isinstance(config, tf.io.FixedLenFeature):
        expected = int(np.prod(config.shape))
        if size != expected:
            return [f"feature {key!r} has {size} values, expected {expected}"]
    elif isinstance(config, tf.io.FixedLenSequenceFeature):
        part = int(np.prod(config.shape))
        if part and size % part:
            return [f"feature {key!r} has {size} values, expected a multiple of {part}"]
    return []


def _numbers(found: list[int]) -> str:
    shown = ", ".join(str(number) for number in found[:_SHOWN])
    more = len(found) - _SHOWN
    return f"example {shown}" + (f" and {more} more" if more > 0 else "")
