"""Variables that the optimizers of TensorFlow 1 keep and those of Keras do not.

Adam's powers of its decay rates are such: Keras computes them from `iterations`. A
plain TensorFlow 1 program looks for them in the checkpoint, so the exported graph has
them, and the checkpoint what they would be.
"""

import functools
from typing import Any

import numpy as np
import tensorflow as tf


class DerivedVariable:
    """A variable of the exported graph whose value follows from one of Keras's.

    Args:
        name: Its name in TensorFlow 1; for a slot the suffix.
        shape: Its shape.
        dtype: Its dtype.
        base: Its value is this number to the power of the updates made plus 1; None
            for one that is zero.
        iterations: The Keras variable that counts the steps.
        steps: How many steps accumulate gradients for one update.
    """

    trainable = False

    def __init__(
        self,
        name: str,
        shape: Any = (),
        dtype: Any = tf.float32,
        base: float | None = None,
        iterations: Any = None,
        steps: int = 1,
    ) -> None:
        self.name = name
        self.shape = tf.TensorShape(shape)
        self.dtype = tf.as_dtype(dtype)
        self.base = base
        self.iterations = iterations
        self.steps = steps

    @functools.cached_property
    def handle(self) -> Any:
        """What traces capture in its place. Nothing is kept behind it."""
        with tf.init_scope():
            return tf.raw_ops.VarHandleOp(
                dtype=self.dtype, shape=self.shape, shared_name=f"derived/{self.name}"
            )

    def at(self, iterations: int) -> np.ndarray:
        """Its value after so many steps."""
        shape, dtype = self.shape.as_list(), self.dtype.as_numpy_dtype
        if self.base is None:
            return np.zeros(shape, dtype)
        power = np.asarray(self.base, dtype).astype(np.float64)
        power **= iterations // self.steps + 1
        # TensorFlow has zeros for numbers that are too small to be normal.
        return np.full(shape, power if power >= np.finfo(dtype).tiny else 0.0, dtype)

    def read_value(self) -> Any:
        """Its value now, as a tensor."""
        if self.base is None:
            return tf.zeros(self.shape, self.dtype)
        return tf.constant(self.at(int(self.iterations.numpy())))

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> Any:
        """Its initial value."""
        return self.at(0)
