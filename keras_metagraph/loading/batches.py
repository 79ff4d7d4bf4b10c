"""Arrays as the calls of a Keras model take them."""

from collections.abc import Iterator
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from keras_metagraph.errors import SignatureError

_WHOLE = {
    "fit": "train_on_batch",
    "evaluate": "test_on_batch",
    "predict": "predict_on_batch",
}


def with_strings(data: Any) -> Any:
    """NumPy strings as tensors, since Keras batches only numbers from arrays."""

    def convert(value: Any) -> Any:
        if isinstance(value, np.ndarray) and value.dtype.kind in "SUO":
            return tf.constant(value.tolist(), tf.string, value.shape)
        return value

    return keras.tree.map_structure(convert, data)


def require_rows(call: str, *data: Any) -> None:
    """Refuses arrays that cannot be cut into batches by their first axes.

    Args:
        call: The method of the model: `"fit"`, `"evaluate"`, `"predict"`.
        *data: What it was given; datasets and generators are not looked at.

    Raises:
        SignatureError: If the arrays have different numbers of rows; lists them.
    """
    shapes = [pair for each in data for pair in _shapes(each)]
    if len({shape[:1] for _, shape in shapes}) > 1:
        raise SignatureError(
            f"`{call}` cuts batches off the first axis, and the arrays have different "
            "numbers of rows.",
            findings=[f"{name}: shape {shape}" for name, shape in shapes],
            fix=f"if they are one batch as they are, call model.{_WHOLE[call]}.",
        )


def _shapes(data: Any) -> Iterator[tuple[str, tuple[int, ...]]]:
    """Names and shapes of the arrays in a structure."""
    for path, value in keras.tree.flatten_with_path(data):
        if isinstance(value, np.ndarray | tf.Tensor):
            yield "/".join(map(str, path)) or "array", tuple(value.shape)
