"""The locally connected layers, which Keras 3 has not."""

from typing import Any

import keras
from keras import ops


class _LocallyConnected(keras.layers.Layer):
    """A convolution whose kernel differs from place to place; no padding."""

    rank = 0

    def __init__(
        self,
        filters: int,
        kernel_size: Any,
        strides: Any = 1,
        data_format: str = "channels_last",
        activation: Any = None,
        use_bias: bool = True,
        kernel_initializer: Any = "glorot_uniform",
        bias_initializer: Any = "zeros",
        kernel_regularizer: Any = None,
        bias_regularizer: Any = None,
        kernel_constraint: Any = None,
        bias_constraint: Any = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.filters = filters
        self.kernel_size = self._each(kernel_size)
        self.strides = self._each(strides)
        self.data_format = data_format
        self.activation = keras.activations.get(activation)
        self.use_bias = use_bias
        self.kernel_initializer = keras.initializers.get(kernel_initializer)
        self.bias_initializer = keras.initializers.get(bias_initializer)
        self.kernel_regularizer = keras.regularizers.get(kernel_regularizer)
        self.bias_regularizer = keras.regularizers.get(bias_regularizer)
        self.kernel_constraint = keras.constraints.get(kernel_constraint)
        self.bias_constraint = keras.constraints.get(bias_constraint)

    def _each(self, value: Any) -> tuple[int, ...]:
        return (value,) * self.rank if isinstance(value, int) else tuple(value)

    def _places(self, input_shape: Any) -> tuple[int, ...]:
        """How many places the kernel has along each axis."""
        first = self.data_format == "channels_first"
        sizes = input_shape[2:] if first else input_shape[1:-1]
        steps = zip(sizes, self.kernel_size, self.strides, strict=True)
        return tuple((size - kernel) // stride + 1 for size, kernel, stride in steps)

    def build(self, input_shape: Any) -> None:
        """Creates the weights: a kernel and a bias for each place."""
        first = self.data_format == "channels_first"
        channels = input_shape[1] if first else input_shape[-1]
        places = self._places(input_shape)
        window = channels
        for size in self.kernel_size:
            window *= size
        self.kernel = self.add_weight(
            (_product(places), window, self.filters),
            self.kernel_initializer,
            regularizer=self.kernel_regularizer,
            constraint=self.kernel_constraint,
            name="kernel",
        )
        if self.use_bias:
            self.bias = self.add_weight(
                (*places, self.filters),
                self.bias_initializer,
                regularizer=self.bias_regularizer,
                constraint=self.bias_constraint,
                name="bias",
            )

    def call(self, inputs: Any) -> Any:
        """Maps `(batch, *sizes, channels)` to `(batch, *places, filters)`."""
        first = self.data_format == "channels_first"
        places = self._places(inputs.shape)
        windows = ops.stack(self._windows(inputs, places, first))
        outputs = ops.einsum("pbw,pwf->bpf", windows, self.kernel)
        outputs = ops.reshape(outputs, (-1, *places, self.filters))
        if first:
            outputs = ops.moveaxis(outputs, -1, 1)
        if self.use_bias:
            # Old Keras read the bias in this order too, rather than transposed.
            shape = (self.filters, *places) if first else (*places, self.filters)
            outputs = outputs + ops.reshape(self.bias, (1, *shape))
        return self.activation(outputs)

    def _windows(self, inputs: Any, places: tuple[int, ...], first: bool) -> list[Any]:
        """The flat window of each place, `(batch, window)`."""
        found = []
        for index in _indices(places):
            where = [
                slice(i * stride, i * stride + size)
                for i, stride, size in zip(
                    index, self.strides, self.kernel_size, strict=True
                )
            ]
            every = slice(None)
            part = (every, every, *where) if first else (every, *where, every)
            window = inputs[part]
            found.append(ops.reshape(window, (-1, self.kernel.shape[1])))
        return found

    def compute_output_shape(self, input_shape: Any) -> Any:
        """The shape, with a place in place of each window."""
        places = self._places(input_shape)
        if self.data_format == "channels_first":
            return (input_shape[0], self.filters, *places)
        return (input_shape[0], *places, self.filters)

    def get_config(self) -> dict[str, Any]:
        """Returns the arguments."""
        serialize = keras.saving.serialize_keras_object
        objects = (
            "kernel_initializer",
            "bias_initializer",
            "kernel_regularizer",
            "bias_regularizer",
            "kernel_constraint",
            "bias_constraint",
        )
        values = ("filters", "kernel_size", "strides", "data_format", "use_bias")
        return {
            **super().get_config(),
            **{name: getattr(self, name) for name in values},
            "activation": keras.activations.serialize(self.activation),
            **{name: serialize(getattr(self, name)) for name in objects},
        }


@keras.saving.register_keras_serializable("keras_metagraph")
class LocallyConnected1D(_LocallyConnected):
    """A 1D convolution with a kernel of its own at each place.

    Args:
        *args: `filters`, `kernel_size`, `strides`, as for `keras.layers.Conv1D`.
        **kwargs: As for `keras.layers.Conv1D`; the padding is `"valid"`.

    Example:
        >>> LocallyConnected1D(4, 3)(sequence)
    """

    rank = 1


@keras.saving.register_keras_serializable("keras_metagraph")
class LocallyConnected2D(_LocallyConnected):
    """A 2D convolution with a kernel of its own at each place.

    Args:
        *args: `filters`, `kernel_size`, `strides`, as for `keras.layers.Conv2D`.
        **kwargs: As for `keras.layers.Conv2D`; the padding is `"valid"`.

    Example:
        >>> LocallyConnected2D(4, (3, 3))(images)
    """

    rank = 2


def _product(sizes: tuple[int, ...]) -> int:
    product = 1
    for size in sizes:
        product *= size
    return product


def _indices(sizes: tuple[int, ...]) -> list[tuple[int, ...]]:
    """All indices below `sizes`, the last axis fastest."""
    found: list[tuple[int, ...]] = [()]
    for size in sizes:
        found = [(*index, i) for index in found for i in range(size)]
    return found
