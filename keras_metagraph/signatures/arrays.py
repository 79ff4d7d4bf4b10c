"""Python values as arrays of the dtype that a tensor takes."""

from typing import Any

import numpy as np
import tensorflow as tf

_TEXT = (str, bytes, np.str_, np.bytes_)


def fitted(value: Any, spec: tf.TensorSpec) -> Any:
    """An array of the dtype and shape that a tensor takes.

    Args:
        value: An array, a tensor, nested lists, a number or a string.
        spec: The dtype and shape; open dimensions take any size.

    Returns:
        A NumPy array; strings as objects.

    Raises:
        ValueError: If the value cannot become one without a loss.
    """
    array = _array(value, spec.dtype)
    rank = spec.shape.rank
    if array.shape == (0,) and rank is not None:  # an empty list has no more to say
        array = array.reshape([size or 0 for size in spec.shape])
    if not spec.shape.is_compatible_with(array.shape):
        raise ValueError(
            f"has the shape {list(array.shape)}, expected {spec.shape.as_list()}"
        )
    return array


def _array(value: Any, dtype: tf.DType) -> Any:
    typed = hasattr(value, "dtype")
    # NumPy would make strings of all that stands beside a string.
    wanted = object if dtype == tf.string and not typed else None
    try:
        array = np.asarray(value.numpy() if tf.is_tensor(value) else value, wanted)
    except (ValueError, TypeError, AttributeError) as error:
        raise ValueError(f"is no array: {error}") from None
    if array.size == 0 and not typed:
        return np.zeros(array.shape, _numpy_type(dtype))
    if dtype == tf.string:
        return _strings(array)
    if array.dtype == object:
        array = _of_objects(array)
    if array.dtype.kind in "SU":
        raise ValueError(f"holds strings, expected {dtype.name}")
    source, target = tf.as_dtype(array.dtype), dtype
    if source != target and not _is_lossless(array, source, target):
        raise ValueError(f"has the dtype {source.name}, expected {target.name}")
    return array.astype(_numpy_type(dtype))


def _numpy_type(dtype: tf.DType) -> Any:
    return object if dtype == tf.string else dtype.as_numpy_dtype


def _strings(array: Any) -> Any:
    if array.dtype.kind in "SU":
        return array.astype(object)
    wrong = [x for x in array.ravel().tolist() if not isinstance(x, _TEXT)]
    if array.dtype != object or wrong:
        kind = type(wrong[0]).__name__ if array.dtype == object else array.dtype.name
        raise ValueError(f"holds {kind}, expected strings")
    return array


def _of_objects(array: Any) -> Any:
    """An array of Python objects as one of numbers, or of strings."""
    try:
        return np.array(array.tolist())
    except ValueError as error:
        raise ValueError(f"is no array: {error}") from None


def _is_lossless(array: Any, source: tf.DType, target: tf.DType) -> bool:
    """Whether a cast keeps the values; floats lose precision only."""
    if target == tf.bool or source == tf.string:
        return False
    if target.is_integer and source.is_integer:
        low, high = (array.min(), array.max()) if array.size else (0, 0)
        return bool(target.min <= low and high <= target.max)
    if target.is_floating or target.is_complex:
        return bool(target.is_complex or not source.is_complex)
    return bool(source == tf.bool and target.is_integer)
