"""Makes `tf.Example`s of Python values."""

from collections.abc import Iterable
from typing import Any

import numpy as np
import tensorflow as tf


def example(**features: Any) -> bytes:
    """A serialized example: texts, whole numbers or floats by feature."""
    made = {name: feature(value) for name, value in features.items()}
    return tf.train.Example(
        features=tf.train.Features(feature=made)
    ).SerializeToString()


def feature(value: Any) -> tf.train.Feature:
    """The feature of a text, number, list or array."""
    if isinstance(value, str | bytes):
        value = [value]
    values = np.asarray(value, dtype=object).ravel().tolist()
    if any(isinstance(each, str | bytes) for each in values):
        texts = [v.encode() if isinstance(v, str) else v for v in values]
        return tf.train.Feature(bytes_list=tf.train.BytesList(value=texts))
    if values and all(isinstance(each, int) for each in values):
        return tf.train.Feature(int64_list=tf.train.Int64List(value=values))
    return tf.train.Feature(float_list=tf.train.FloatList(value=values))


def split(serialized: Iterable[bytes]) -> dict[str, np.ndarray]:
    """Serialized examples as arrays for the other Python: all bytes, and lengths."""
    contents = list(serialized)
    lengths = np.asarray([len(content) for content in contents], np.int64)
    return {
        "bytes": np.frombuffer(b"".join(contents), np.uint8),
        "lengths": lengths,
    }
