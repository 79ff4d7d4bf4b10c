"""A consistent picture of a model's variables, taken without copying them."""

from collections.abc import Mapping
from typing import Any

import tensorflow as tf


def take_snapshot(variables: Mapping[str, Any]) -> dict[str, tf.Tensor]:
    """Reads variables so that later training steps do not change what was read.

    `read_value` shares the variable's buffer, and TensorFlow copies it on the next
    write: a snapshot of a large model costs milliseconds, and the memory only while
    both it and the changed variable live. Of a mirrored variable the copy of the first
    replica is read. Whoever writes the snapshot may do so in another thread.

    Args:
        variables: Keras variables, TensorFlow variables, tensors or arrays, by the
            names that they get in the checkpoint.

    Returns:
        One tensor a name, in the same order.

    Example:
        >>> values = take_snapshot({"step": tf.Variable(3)})
        >>> int(values["step"])
        3
    """
    return {name: read_value(variable) for name, variable in variables.items()}


def read_value(variable: Any) -> tf.Tensor:
    """Reads one variable, of the first replica, or turns an array into a tensor."""
    held = getattr(variable, "value", variable)
    if callable(held):  # tf.Variable.value is a method, keras.Variable.value is not.
        held = variable
    if hasattr(held, "read_value"):
        return held.read_value()
    return tf.convert_to_tensor(held)
