"""Values as JSON, as the REST interface of TensorFlow Serving has them.

Bytes that are no text are `{"b64": "..."}`.
"""

import base64
import binascii
from typing import Any

import numpy as np

from keras_metagraph.errors import SignatureError


def is_bytes(value: Any) -> bool:
    """Whether a JSON value stands for bytes: `{"b64": "..."}`."""
    return isinstance(value, dict) and set(value) == {"b64"}


def is_record(value: Any) -> bool:
    """Whether a JSON value has values by name."""
    return isinstance(value, dict) and not is_bytes(value)


def to_bytes(value: Any) -> bytes:
    """The bytes of a text or of `{"b64": "..."}`.

    Raises:
        SignatureError: If it is not base64.
    """
    if isinstance(value, str):
        return value.encode("utf-8")
    try:
        return base64.b64decode(value["b64"], validate=True)
    except (TypeError, binascii.Error) as error:
        raise SignatureError(f"has {value!r}, which is not base64: {error}") from error


def to_value(value: Any) -> Any:
    """Nested lists of JSON as a signature takes them.

    Args:
        value: Numbers, or nested lists of numbers or texts.

    Returns:
        The same; texts as bytes, and if they fill an array, as one of objects: NumPy's
        own strings lose zeros at their end.

    Raises:
        SignatureError: If bytes are not base64; its text goes on after the name of the
            input.
    """
    leaves: list[Any] = []
    plain = _mapped(value, leaves)
    if not any(isinstance(leaf, bytes) for leaf in leaves):
        return plain
    try:
        array = np.array(plain, dtype=object)
    except ValueError:  # ragged
        return plain
    return array if array.size == len(leaves) else plain


def from_array(value: Any) -> Any:
    """An array as nested lists that JSON can hold."""
    if value.dtype.kind not in "SUO":
        return value.tolist()
    return _texts(value.tolist())


def _mapped(value: Any, leaves: list[Any]) -> Any:
    if isinstance(value, list):
        return [_mapped(each, leaves) for each in value]
    leaves.append(
        to_bytes(value) if isinstance(value, str) or is_bytes(value) else value
    )
    return leaves[-1]


def _texts(value: Any) -> Any:
    if isinstance(value, list):
        return [_texts(each) for each in value]
    if not isinstance(value, bytes):
        return value
    try:
        return value.decode("utf-8")
    except UnicodeDecodeError:
        return {"b64": base64.b64encode(value).decode("ascii")}
