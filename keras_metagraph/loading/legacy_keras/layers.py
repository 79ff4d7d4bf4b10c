"""What Keras 1 and 2 had and Keras 3 has not, or computes otherwise."""

from typing import Any

import keras
import tensorflow as tf
from keras import ops

_register = keras.saving.register_keras_serializable("keras_metagraph")


@_register  # type: ignore[untyped-decorator]
def hard_sigmoid(x: Any) -> Any:
    """The `hard_sigmoid` of Keras 1 and 2: `clip(0.2 * x + 0.5, 0, 1)`.

    Keras 3 has `relu6(x + 3) / 6` under this name. Source: `hard_sigmoid` in
    `keras/backend/tensorflow_backend.py` of Keras 2.3.1.

    Args:
        x: A tensor of any shape.

    Returns:
        A tensor of the same shape, between 0 and 1.

    Example:
        >>> float(hard_sigmoid(keras.ops.convert_to_tensor(1.0)))
        0.7
    """
    # Over the full range the order of the operations is that of Keras 2.
    return ops.clip(x * 0.2 + 0.5, 0.0, 1.0)


@_register  # type: ignore[untyped-decorator]
def cosine_proximity(y_true: Any, y_pred: Any) -> Any:
    """The loss `cosine_proximity` of Keras 1 to 2.1: a mean in place of the sum.

    Args:
        y_true: Labels, `(batch, ..., size)`.
        y_pred: Predictions of the same shape.

    Returns:
        `-mean(normalize(y_true) * normalize(y_pred))`, `(batch, ...)`.

    Example:
        >>> model.compile("sgd", loss=cosine_proximity)
    """
    y_true, y_pred = (ops.normalize(ops.cast(y, "float32")) for y in (y_true, y_pred))
    return -ops.mean(y_true * y_pred, axis=-1)


@_register
class SummedActivityRegularizer(keras.regularizers.Regularizer):
    """L1 and L2 of an output as standalone Keras added them: not divided by the batch.

    Keras 3 divides what a layer's `activity_regularizer` returns by the size of the
    batch, as tf.keras did; Keras 1 and 2 did not.

    Args:
        l1: Factor of the sum of absolute values.
        l2: Factor of the sum of squares.

    Example:
        >>> Dense(2, activity_regularizer=SummedActivityRegularizer(l2=1e-3))
    """

    def __init__(self, l1: float = 0.0, l2: float = 0.0) -> None:
        self.l1 = float(l1)
        self.l2 = float(l2)

    def __call__(self, x: Any) -> Any:
        """Returns the penalty of an output, times the size of the batch."""
        penalty = self.l1 * ops.sum(ops.abs(x)) + self.l2 * ops.sum(ops.square(x))
        return penalty * ops.cast(ops.shape(x)[0], x.dtype)

    def get_config(self) -> dict[str, Any]:
        """Returns the factors."""
        return {"l1": self.l1, "l2": self.l2}


@_register
class ThresholdedReLU(keras.layers.Layer):
    """`x` where `x > theta`, else 0.

    Args:
        theta: The threshold.
        **kwargs: As for any layer.

    Example:
        >>> ThresholdedReLU(theta=0.5)(x)
    """

    def __init__(self, theta: float = 1.0, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.supports_masking = True
        self.theta = float(theta)

    def call(self, inputs: Any) -> Any:
        """Thresholds; the shape stays."""
        return inputs * ops.cast(inputs > self.theta, inputs.dtype)

    def compute_output_shape(self, input_shape: Any) -> Any:
        """The shape of the input."""
        return input_shape

    def get_config(self) -> dict[str, Any]:
        """Returns the arguments."""
        return {**super().get_config(), "theta": self.theta}


class _Shaped(keras.layers.Layer):
    """An activation with learnt values per unit, shared along some axes."""

    names: tuple[tuple[str, str], ...] = ()

    def __init__(self, shared_axes: Any = None, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.supports_masking = True
        self.shared_axes = [axis for axis in shared_axes or [] if axis is not None]

    def build(self, input_shape: Any) -> None:
        """Creates a weight of the input's shape for each name."""
        shape = list(input_shape[1:])
        for axis in self.shared_axes:
            shape[axis - 1] = 1
        for name, initializer in self.names:
            setattr(self, name, self.add_weight(shape, initializer, name=name))

    def compute_output_shape(self, input_shape: Any) -> Any:
        """The shape of the input."""
        return input_shape

    def get_config(self) -> dict[str, Any]:
        """Returns the arguments."""
        return {**super().get_config(), "shared_axes": self.shared_axes}


@_register
class SReLU(_Shaped):
    """The S-shaped ReLU of Keras 1, with four learnt values per unit.

    Slope `a_left` below `t_left`, 1 up to `t_left + |t_right|`, `a_right` beyond.

    Args:
        shared_axes: Axes along which values are shared, from 1 on.
        **kwargs: As for any layer.

    Example:
        >>> SReLU(shared_axes=[1, 2])(images)
    """

    names = (
        ("t_left", "zeros"),
        ("a_left", "glorot_uniform"),
        ("t_right", "glorot_uniform"),
        ("a_right", "ones"),
    )

    def call(self, inputs: Any) -> Any:
        """Applies the three pieces; the shape stays."""
        width = ops.abs(self.t_right)
        above = inputs - self.t_left
        # As K.relu(above, a_left, max_value=width) was computed.
        middle = ops.clip(ops.relu(above), 0.0, width) - self.a_left * ops.relu(-above)
        return self.t_left + middle + ops.relu(above - width) * self.a_right


@_register
class ParametricSoftplus(_Shaped):
    """`alpha * softplus(beta * x)` of Keras 1, with learnt values per unit.

    Args:
        shared_axes: Axes along which values are shared, from 1 on.
        **kwargs: As for any layer.

    Example:
        >>> ParametricSoftplus()(x)
    """

    names = (("alphas", "ones"), ("betas", "ones"))

    def call(self, inputs: Any) -> Any:
        """Applies the activation; the shape stays."""
        return ops.softplus(self.betas * inputs) * self.alphas


class _DenseLike(keras.layers.Layer):
    """What `MaxoutDense` and `Highway` have in common: arguments of the weights."""

    def __init__(
        self,
        use_bias: bool = True,
        kernel_initializer: Any = "glorot_uniform",
        kernel_regularizer: Any = None,
        bias_regularizer: Any = None,
        kernel_constraint: Any = None,
        bias_constraint: Any = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.use_bias = use_bias
        self.kernel_initializer = keras.initializers.get(kernel_initializer)
        self.kernel_regularizer = keras.regularizers.get(kernel_regularizer)
        self.bias_regularizer = keras.regularizers.get(bias_regularizer)
        self.kernel_constraint = keras.constraints.get(kernel_constraint)
        self.bias_constraint = keras.constraints.get(bias_constraint)

    def add_kernel(self, shape: Any) -> Any:
        """Adds the kernel that the arguments are meant for."""
        return self.add_weight(
            shape,
            self.kernel_initializer,
            regularizer=self.kernel_regularizer,
            constraint=self.kernel_constraint,
            name="kernel",
        )

    def add_bias(self, shape: Any) -> Any:
        """Adds the bias that the arguments are meant for; None without one."""
        if not self.use_bias:
            return None
        return self.add_weight(
            shape,
            "zeros",
            regularizer=self.bias_regularizer,
            constraint=self.bias_constraint,
            name="bias",
        )

    def get_config(self) -> dict[str, Any]:
        """Returns the arguments."""
        serialize = keras.saving.serialize_keras_object
        names = (
            "kernel_initializer",
            "kernel_regularizer",
            "bias_regularizer",
            "kernel_constraint",
            "bias_constraint",
        )
        return {
            **super().get_config(),
            "use_bias": self.use_bias,
            **{name: serialize(getattr(self, name)) for name in names},
        }


@_register
class MaxoutDense(_DenseLike):
    """The largest of several dense layers, unit by unit (Keras 1).

    Args:
        units: Size of the output.
        num_features: How many dense layers.
        **kwargs: As for `keras.layers.Dense`, without an activation.

    Example:
        >>> MaxoutDense(8, num_features=4)(x)
    """

    def __init__(self, units: int, num_features: int = 4, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.units = units
        self.num_features = num_features

    def build(self, input_shape: Any) -> None:
        """Creates the weights."""
        self.kernel = self.add_kernel((self.num_features, input_shape[-1], self.units))
        self.bias = self.add_bias((self.num_features, self.units))

    def call(self, inputs: Any) -> Any:
        """Maps `(batch, size)` to `(batch, units)`."""
        features = ops.einsum("bi,fio->bfo", inputs, self.kernel)
        if self.bias is not None:
            features = features + self.bias
        return ops.max(features, axis=1)

    def compute_output_shape(self, input_shape: Any) -> Any:
        """`(batch, units)`."""
        return (input_shape[0], self.units)

    def get_config(self) -> dict[str, Any]:
        """Returns the arguments."""
        own = {"units": self.units, "num_features": self.num_features}
        return {**super().get_config(), **own}


@_register
class Highway(_DenseLike):
    """A dense layer that lets part of its input pass (Keras 1).

    `t * activation(x W + b) + (1 - t) * x` with `t = sigmoid(x W_carry + b_carry)`.

    Args:
        activation: As for `keras.layers.Dense`.
        **kwargs: As for `keras.layers.Dense`.

    Example:
        >>> Highway(activation="relu")(x)
    """

    def __init__(self, activation: Any = None, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.activation = keras.activations.get(activation)

    def build(self, input_shape: Any) -> None:
        """Creates the weights, in the order of Keras 1."""
        size = input_shape[-1]
        self.kernel = self.add_kernel((size, size))
        self.carry_kernel = self.add_weight(
            (size, size), self.kernel_initializer, name="carry_kernel"
        )
        self.bias = self.add_bias((size,))
        self.carry_bias = (
            self.add_weight((size,), "ones", name="carry_bias")
            if self.use_bias
            else None
        )

    def call(self, inputs: Any) -> Any:
        """Mixes output and input, both `(batch, size)`."""
        carry = ops.matmul(inputs, self.carry_kernel)
        output = ops.matmul(inputs, self.kernel)
        if self.use_bias:
            carry, output = carry + self.carry_bias, output + self.bias
        transform = ops.sigmoid(carry)
        return self.activation(output) * transform + (1 - transform) * inputs

    def compute_output_shape(self, input_shape: Any) -> Any:
        """The shape of the input."""
        return input_shape

    def get_config(self) -> dict[str, Any]:
        """Returns the arguments."""
        activation = keras.activations.serialize(self.activation)
        return {**super().get_config(), "activation": activation}


@_register
class DropoutEmbedding(keras.layers.Embedding):
    """An embedding that drops whole rows of its table in training (Keras 1).

    Args:
        *args: As for `keras.layers.Embedding`.
        rate: Share of the rows that are dropped.
        **kwargs: As for `keras.layers.Embedding`.

    Example:
        >>> DropoutEmbedding(1000, 8, rate=0.2)(indices, training=True)
    """

    def __init__(self, *args: Any, rate: float = 0.0, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.rate = rate
        self.seed_generator = keras.random.SeedGenerator()

    def call(self, inputs: Any, training: bool = False) -> Any:
        """Looks up; a dropped row is zero wherever it is used in the batch."""
        outputs = super().call(inputs)
        if not training or not self.rate:
            return outputs
        kept = keras.random.dropout(
            ops.ones((self.input_dim, 1)), self.rate, seed=self.seed_generator
        )
        return outputs * ops.take(kept, ops.cast(inputs, "int32"), axis=0)

    def get_config(self) -> dict[str, Any]:
        """Returns the arguments."""
        return {**super().get_config(), "rate": self.rate}


@_register
class CosineMerge(keras.layers.Layer):
    """`Merge(mode="cos")` of Keras 1: the cosine between two inputs.

    Args:
        axes: The axis of each input that is summed over, or one for both.
        **kwargs: As for any layer.

    Example:
        >>> CosineMerge(axes=[1, 1])([a, b])
    """

    def __init__(self, axes: Any = -1, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.axes = axes

    def call(self, inputs: Any) -> Any:
        """Maps two tensors of `(batch, size)` to `(batch, 1, 1)`."""
        a, b = inputs
        dot = keras.layers.Dot(self.axes)
        norm = ops.sqrt(dot([a, a]) * dot([b, b]))
        cosine = dot([a, b]) / ops.maximum(norm, keras.config.epsilon())
        return ops.expand_dims(cosine, 1)

    def get_config(self) -> dict[str, Any]:
        """Returns the arguments."""
        return {**super().get_config(), "axes": self.axes}


@_register
class TextVectors(keras.layers.TextVectorization):
    """`TextVectorization` of counts and the like, for one text in each row.

    Keras 3 tells the wrong shape for texts of the shape `(batch, 1)`: it looks at them
    before it drops the axis, as it does when it is called.

    Args:
        *args: As for `keras.layers.TextVectorization`.
        **kwargs: As for `keras.layers.TextVectorization`.

    Example:
        >>> TextVectors(output_mode="tf_idf", vocabulary=["a"], idf_weights=[0.7])
    """

    def compute_output_shape(self, input_shape: Any) -> Any:
        """`(batch, size of the vocabulary)`."""
        if len(input_shape) > 1 and input_shape[-1] == 1:
            input_shape = input_shape[:-1]
        return super().compute_output_shape(input_shape)


@_register
class BilinearUpSampling2D(keras.layers.Layer):
    """`UpSampling2D(interpolation="bilinear")` as Keras 2 and TensorFlow 1 did it.

    Corners are where `tf.compat.v1.image.resize_bilinear` has them; Keras 3 and
    TensorFlow 2 shift them by half a pixel.

    Args:
        size: Factors of rows and columns.
        data_format: `"channels_last"` or `"channels_first"`.
        **kwargs: As for any layer.

    Example:
        >>> BilinearUpSampling2D((2, 2))(images)
    """

    def __init__(
        self, size: Any = (2, 2), data_format: str = "channels_last", **kwargs: Any
    ) -> None:
        super().__init__(**kwargs)
        self.size = tuple(size)
        self.data_format = data_format

    def call(self, inputs: Any) -> Any:
        """Resizes `(batch, rows, columns, channels)`, or with channels second."""
        first = self.data_format == "channels_first"
        images = ops.transpose(inputs, (0, 2, 3, 1)) if first else inputs
        size = tf.shape(images)[1:3] * tf.constant(self.size)
        images = tf.compat.v1.image.resize_bilinear(images, size)
        return ops.transpose(images, (0, 3, 1, 2)) if first else images

    def compute_output_shape(self, input_shape: Any) -> Any:
        """The shape with rows and columns multiplied."""
        shape = list(input_shape)
        start = 2 if self.data_format == "channels_first" else 1
        for place, factor in enumerate(self.size, start):
            if shape[place] is not None:
                shape[place] *= factor
        return tuple(shape)

    def get_config(self) -> dict[str, Any]:
        """Returns the arguments."""
        own = {"size": self.size, "data_format": self.data_format}
        return {**super().get_config(), **own}
