"""Constants of a graph: how large they are, and their values.

`tf.make_ndarray` allocates what the shape says: 20 bytes of a file become gigabytes.
Here the stored values are measured first.
"""

import importlib
import math
from typing import Any

import numpy as np

from keras_metagraph.audit.limits import DEFAULT_LIMITS, Limits
from keras_metagraph.errors import FormatError, UntrustedContentError

TensorProto = Any

DT_STRING, DT_RESOURCE, DT_VARIANT = 7, 20, 21
_STRING_BYTES = 64  # what an element costs beside its own bytes

# By `DataType` number (types.proto): NumPy's type and the proto's field of values.
_TYPES: dict[int, tuple[str, str]] = {
    1: ("float32", "float_val"),
    2: ("float64", "double_val"),
    3: ("int32", "int_val"),
    4: ("uint8", "int_val"),
    5: ("int16", "int_val"),
    6: ("int8", "int_val"),
    7: ("object", "string_val"),
    8: ("complex64", "scomplex_val"),
    9: ("int64", "int64_val"),
    10: ("bool", "bool_val"),
    11: ("int8", "int_val"),
    12: ("uint8", "int_val"),
    13: ("int32", "int_val"),
    14: ("bfloat16", "half_val"),
    15: ("int16", "int_val"),
    16: ("uint16", "int_val"),
    17: ("uint16", "int_val"),
    18: ("complex128", "dcomplex_val"),
    19: ("float16", "half_val"),
    22: ("uint32", "uint32_val"),
    23: ("uint64", "uint64_val"),
    24: ("float8_e5m2", "float8_val"),
    25: ("float8_e4m3fn", "float8_val"),
}


def tensor_problem(tensor: TensorProto, limits: Limits = DEFAULT_LIMITS) -> str:
    """Says why a constant is not to be decoded.

    Args:
        tensor: The constant.
        limits: How large it may become.

    Returns:
        A phrase such as `"its shape has a negative dimension"`, or an empty string for
        a constant that `decode_tensor` reads.
    """
    if tensor.dtype in (DT_RESOURCE, DT_VARIANT):
        return "it holds an encoded object, not numbers"
    if tensor.dtype not in _TYPES:
        return f"its type (number {tensor.dtype}) is not one of a constant"
    shape = tensor.tensor_shape
    if shape.unknown_rank or any(dim.size < 0 for dim in shape.dim):
        return "its shape has a negative or unknown dimension"
    if len(shape.dim) > limits.dimensions:
        return f"its shape has {len(shape.dim)} dimensions"
    elements = math.prod(dim.size for dim in shape.dim)
    if tensor.tensor_content:
        return _content_problem(tensor, elements)
    stored = _stored(tensor)
    if stored > elements:
        return f"it has {stored} values for {elements} elements"
    if tensor.dtype == DT_STRING:
        repeated = len(tensor.string_val[-1]) + _STRING_BYTES if stored else 0
        size = (elements - stored) * (repeated or _STRING_BYTES)
    else:
        size = elements * _item_size(tensor.dtype)
    # The last value stands for all that follow, which are not in the file.
    if elements > stored and size > limits.tensor_bytes:
        return f"it would take {size:,} bytes, of which the file has {stored} values"
    return ""


def decode_tensor(tensor: TensorProto, limits: Limits = DEFAULT_LIMITS) -> Any:
    """Reads a constant.

    Args:
        tensor: The constant.
        limits: How large it may become.

    Returns:
        A NumPy array; of `bytes` objects for strings. It may be read-only.

    Raises:
        UntrustedContentError: If it would become larger than `limits` says.
        FormatError: If shape, type and values do not fit together.

    Example:
        >>> decode_tensor(graph.node("Const").attrs["value"].tensor)
        array([1., 2.], dtype=float32)
    """
    if problem := tensor_problem(tensor, limits):
        bomb = "would take" in problem
        raise (UntrustedContentError if bomb else FormatError)(
            f"A constant cannot be read: {problem}.",
            fix="export the graph again with a smaller constant."
            if bomb
            else "export the graph again; it is damaged.",
        )
    shape = tuple(dim.size for dim in tensor.tensor_shape.dim)
    dtype = _numpy_type(tensor.dtype)
    if tensor.tensor_content:
        return np.frombuffer(tensor.tensor_content, dtype).reshape(shape)
    values = _values(tensor, dtype)
    elements = math.prod(shape)
    if len(values) == elements:
        return values.reshape(shape)
    array = np.zeros(elements, dtype)
    if dtype.hasobject:
        array[:] = b""
    if len(values):
        array[: len(values)] = values
        array[len(values) :] = values[-1]
    return array.reshape(shape)


def _content_problem(tensor: TensorProto, elements: int) -> str:
    if tensor.dtype == DT_STRING:
        return "it holds strings as raw bytes"
    expected = elements * _item_size(tensor.dtype)
    if len(tensor.tensor_content) == expected:
        return ""
    return f"its shape asks for {expected} bytes, not {len(tensor.tensor_content)}"


def _stored(tensor: TensorProto) -> int:
    """How many elements have a value in the file."""
    name, field = _TYPES[tensor.dtype]
    count = len(getattr(tensor, field))
    return count // 2 if name.startswith("complex") else count


def _values(tensor: TensorProto, dtype: Any) -> Any:
    name, field = _TYPES[tensor.dtype]
    stored = getattr(tensor, field)
    if field == "float8_val":
        return np.frombuffer(stored, dtype)
    if field == "half_val":
        return np.array(stored, np.uint16).view(dtype)
    if name.startswith("complex"):
        part = np.float32 if name == "complex64" else np.float64
        return np.array(stored, part)[: len(stored) // 2 * 2].view(dtype)
    if name == "object":
        array = np.empty(len(stored), object)
        array[:] = list(stored)
        return array
    return (
        np.array(stored, np.int64).astype(dtype)
        if field == "int_val"
        else (np.array(stored, dtype))
    )


def _numpy_type(number: int) -> Any:
    name = _TYPES[number][0]
    if name.startswith(("bfloat16", "float8")):
        return np.dtype(getattr(importlib.import_module("ml_dtypes"), name))
    return np.dtype(name)


def _item_size(number: int) -> int:
    name = _TYPES[number][0]
    if name.startswith("float8"):
        return 1
    return 2 if name == "bfloat16" else np.dtype(name).itemsize
