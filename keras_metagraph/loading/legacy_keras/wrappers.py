"""Layers around others, for what Keras 3 or TensorFlow computes otherwise."""

from typing import Any

import keras
from keras import ops

_register = keras.saving.register_keras_serializable("keras_metagraph")


@_register
class ChannelsFirst(keras.layers.Wrapper):
    """Runs a layer on tensors that have their channels before the sizes.

    TensorFlow computes convolutions on a CPU with channels last only, and Keras 3
    leaves `data_format="channels_first"` to it.

    Args:
        layer: A layer with `data_format="channels_last"`.
        axis: Where the channels are: 1, or 2 in a sequence of images.
        **kwargs: As for any layer.

    Example:
        >>> ChannelsFirst(keras.layers.Conv2D(4, 3))(images)
    """

    def __init__(self, layer: Any, axis: int = 1, **kwargs: Any) -> None:
        super().__init__(layer, **kwargs)
        self.axis = axis

    def build(self, input_shape: Any) -> None:
        """Builds the layer."""
        if not self.layer.built:
            self.layer.build(_moved(input_shape, self.axis, len(input_shape) - 1))

    def call(self, inputs: Any) -> Any:
        """Maps `(batch, channels, *sizes)` to the same with other sizes."""
        outputs = self.layer(ops.moveaxis(inputs, self.axis, -1))
        return ops.moveaxis(outputs, -1, self._place(len(outputs.shape)))

    def compute_output_shape(self, input_shape: Any) -> Any:
        """The shape that the layer gives, with channels in their place."""
        shape = _moved(input_shape, self.axis, len(input_shape) - 1)
        shape = self.layer.compute_output_shape(shape)
        return _moved(shape, len(shape) - 1, self._place(len(shape)))

    def _place(self, rank: int) -> int:
        """Where the channels of an output are: a layer may drop the sequence."""
        return self.axis if rank == 5 else 1

    def get_config(self) -> dict[str, Any]:
        """Returns the arguments."""
        return {**super().get_config(), "axis": self.axis}


@_register
class FromState(keras.layers.Wrapper):
    """Calls a recurrent layer with the sequence and its initial state in one list.

    Keras 3 passes no mask to a layer that is called with two arguments; Keras 2 gave
    the layer that of the sequence.

    Args:
        layer: A recurrent layer.
        **kwargs: As for any layer.

    Example:
        >>> FromState(keras.layers.GRU(4))([sequence, state])
    """

    def __init__(self, layer: Any, **kwargs: Any) -> None:
        super().__init__(layer, **kwargs)
        self.supports_masking = True

    def build(self, input_shape: Any) -> None:
        """Builds the layer."""
        if not self.layer.built:
            self.layer.build(input_shape[0])

    def call(self, inputs: Any, training: bool = False, mask: Any = None) -> Any:
        """Maps `[(batch, steps, size), state...]` to what the layer returns."""
        sequence, *state = inputs
        first = mask[0] if isinstance(mask, list | tuple) else mask
        return self.layer(sequence, initial_state=state, mask=first, training=training)

    def compute_mask(self, inputs: Any, mask: Any = None) -> Any:
        """The mask of the sequence, where the layer returns one."""
        return self.layer.compute_mask(inputs[0], mask)


@_register
class AddLoss(keras.layers.Layer):
    """Adds tensors of a model to its loss (`Model.add_loss` of Keras 2).

    Keras 3 keeps the layers between inputs and outputs only, so that this one passes
    an output on.

    Args:
        **kwargs: As for any layer.

    Example:
        >>> AddLoss()([output, keras.ops.mean(hidden)])
    """

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.supports_masking = True

    def call(self, inputs: Any) -> Any:
        """Adds all but the first of a list, which is returned."""
        output, *losses = inputs
        for loss in losses:
            self.add_loss(loss)
        return output

    def compute_mask(self, inputs: Any, mask: Any = None) -> Any:
        """The mask of the output."""
        return mask[0] if isinstance(mask, list | tuple) else mask

    def compute_output_spec(self, inputs: Any) -> Any:
        """That of the output."""
        return keras.KerasTensor(inputs[0].shape, inputs[0].dtype)


def _moved(shape: Any, source: int, target: int) -> tuple[Any, ...]:
    sizes = list(shape)
    sizes.insert(target, sizes.pop(source))
    return tuple(sizes)


@_register
class FoldedTimeDistributed(keras.layers.TimeDistributed):
    """`TimeDistributed` as Keras 1 and 2 computed it: all steps as one large batch.

    Keras 3 calls the layer once a step, so that batch normalization inside would take
    the statistics of each step by itself.

    Args:
        *args: As for `keras.layers.TimeDistributed`.
        **kwargs: As for `keras.layers.TimeDistributed`.

    Example:
        >>> FoldedTimeDistributed(keras.layers.BatchNormalization())(sequence)
    """

    def call(self, inputs: Any, training: bool | None = None, mask: Any = None) -> Any:
        """Maps `(batch, steps, ...)` to what the layer makes of each step."""
        if mask is not None:
            return super().call(inputs, training=training, mask=mask)
        shape = ops.shape(inputs)
        outputs = self.layer(ops.reshape(inputs, (-1, *inputs.shape[2:])))
        return ops.reshape(outputs, (-1, shape[1], *outputs.shape[1:]))
