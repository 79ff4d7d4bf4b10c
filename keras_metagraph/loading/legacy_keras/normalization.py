"""The normalizations of Keras 1 and 2 that Keras 3 computes otherwise."""

from collections.abc import Sequence
from typing import Any

import keras
from keras import ops

_register = keras.saving.register_keras_serializable("keras_metagraph")


class _Normalization(keras.layers.Layer):
    """A normalization with the weights of batch normalization, whether used or not."""

    def __init__(self, axis: int = -1, epsilon: float = 1e-3, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.supports_masking = True
        self.axis = axis
        self.epsilon = epsilon

    def build(self, input_shape: Any) -> None:
        """Creates the weights, in the order of Keras 1."""
        shape = (input_shape[self.axis],)
        self.gamma = self.add_weight(shape, "ones", name="gamma")
        self.beta = self.add_weight(shape, "zeros", name="beta")
        self.moving_mean = self.add_weight(
            shape, "zeros", trainable=False, name="moving_mean"
        )
        self.moving_variance = self.add_weight(
            shape, "ones", trainable=False, name="moving_variance"
        )

    def compute_output_shape(self, input_shape: Any) -> Any:
        """The shape of the input."""
        return input_shape

    def get_config(self) -> dict[str, Any]:
        """Returns the arguments."""
        own = {"axis": self.axis, "epsilon": self.epsilon}
        return {**super().get_config(), **own}


@_register
class SampleNormalization(_Normalization):
    """`BatchNormalization(mode=1)` of Keras 1: each sample by itself, last axis.

    Args:
        axis: The axis that has a weight for each index.
        epsilon: Added to the variance, and once more to the deviation.
        **kwargs: As for any layer.

    Example:
        >>> SampleNormalization(epsilon=1e-3)(x)
    """

    def call(self, inputs: Any) -> Any:
        """Normalizes; the shape stays."""
        mean = ops.mean(inputs, axis=-1, keepdims=True)
        variance = ops.var(inputs, axis=-1, keepdims=True)
        deviation = ops.sqrt(variance + self.epsilon) + self.epsilon
        return self.gamma * ((inputs - mean) / deviation) + self.beta


@_register
class BatchStatisticsNormalization(_Normalization):
    """`BatchNormalization(mode=2)` of Keras 1: by the batch, also in prediction.

    Args:
        axis: The axis that is not averaged over.
        epsilon: Added to the variance.
        **kwargs: As for any layer.

    Example:
        >>> BatchStatisticsNormalization(axis=1)(x)
    """

    def call(self, inputs: Any) -> Any:
        """Normalizes; the shape stays."""
        axes = list(range(len(inputs.shape)))
        kept = axes.pop(self.axis)
        shape = [1] * len(inputs.shape)
        shape[kept] = -1
        mean, variance = ops.moments(inputs, axes, keepdims=True)
        normed = (inputs - mean) / ops.sqrt(variance + self.epsilon)
        gamma, beta = ops.reshape(self.gamma, shape), ops.reshape(self.beta, shape)
        return normed * gamma + beta


@_register
class UnbiasedBatchNormalization(keras.layers.BatchNormalization):
    """Batch normalization whose moving variance is that of a sample, as in Keras 2.

    Keras 3 averages the variance of the batch. TensorFlow's fused op, which tf.keras
    takes for images, multiplies it by `N / (N - 1)`; standalone Keras from 2.1.4 on by
    `N / (N - 1 - epsilon)`, for images on top of the other.

    Args:
        *args: As for `keras.layers.BatchNormalization`.
        fused: Whether images were normalized by the fused op.
        standalone: Whether standalone Keras corrected the variance.
        fused_ranks: Of how many axes the inputs of the fused op were: with 5, volumes
            too.
        **kwargs: As for `keras.layers.BatchNormalization`.

    Example:
        >>> UnbiasedBatchNormalization(fused=True)(images, training=True)
    """

    def __init__(
        self,
        *args: Any,
        fused: bool = False,
        standalone: bool = False,
        fused_ranks: Sequence[int] = (4,),
        **kwargs: Any,
    ) -> None:
        super().__init__(*args, **kwargs)
        self.fused = fused
        self.standalone = standalone
        self.fused_ranks = tuple(fused_ranks)

    def call(self, inputs: Any, training: bool | None = None, mask: Any = None) -> Any:
        """Normalizes; the shape stays."""
        before = ops.copy(self.moving_variance)
        outputs = super().call(inputs, training=training, mask=mask)
        if training and self.trainable and mask is None:
            added = self.moving_variance - self.momentum * before
            corrected = self.momentum * before + added * self._factor(inputs)
            self.moving_variance.assign(corrected)
        return outputs

    def _factor(self, inputs: Any) -> Any:
        """What the variance of the batch is multiplied by."""
        sizes = list(ops.shape(inputs))
        del sizes[self.axis]
        count = ops.cast(ops.prod(ops.stack(sizes)), self.moving_variance.dtype)
        factor = ops.ones_like(count)
        if self.fused and len(inputs.shape) in self.fused_ranks:
            factor *= count / ops.maximum(count - 1.0, 1.0)
        if self.standalone:
            factor *= count / (count - (1.0 + self.epsilon))
        return factor

    def get_config(self) -> dict[str, Any]:
        """Returns the arguments."""
        own = {
            "fused": self.fused,
            "standalone": self.standalone,
            "fused_ranks": self.fused_ranks,
        }
        return {**super().get_config(), **own}
