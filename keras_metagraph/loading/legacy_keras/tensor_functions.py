"""Functions of TensorFlow that Keras 2 stored as layers (`TFOpLambda`).

A functional model of Keras 2 may have any function of TensorFlow between its layers:
`x[:, 0] * 2`. The file has the name of the function, and what it was called with. Names
are looked up in a list of functions that compute on their arguments and do nothing
else; none is imported.
"""

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import keras
import tensorflow as tf

from keras_metagraph.errors import UntrustedContentError

_register = keras.saving.register_keras_serializable("keras_metagraph")
_TENSOR = "__tensor__"

_NAMES = {
    "": """argsort batch_to_space boolean_mask broadcast_dynamic_shape
        broadcast_static_shape broadcast_to cast clip_by_norm clip_by_value concat
        convert_to_tensor edit_distance ensure_shape expand_dims eye fill gather
        gather_nd identity linspace meshgrid norm one_hot ones ones_like pad range rank
        repeat reshape reverse reverse_sequence roll scatter_nd searchsorted
        sequence_mask shape shape_n size slice sort space_to_batch split squeeze stack
        stop_gradient strided_slice tensor_scatter_nd_add tensor_scatter_nd_max
        tensor_scatter_nd_min tensor_scatter_nd_sub tensor_scatter_nd_update tensordot
        tile transpose truncatediv truncatemod unique unstack where zeros zeros_like
        einsum""",
    "bitwise": "bitwise_and bitwise_or bitwise_xor invert left_shift right_shift",
    "image": """adjust_brightness adjust_contrast adjust_gamma adjust_hue
        adjust_saturation central_crop convert_image_dtype crop_and_resize
        crop_to_bounding_box extract_patches flip_left_right flip_up_down
        grayscale_to_rgb hsv_to_rgb image_gradients pad_to_bounding_box
        per_image_standardization psnr resize resize_with_crop_or_pad resize_with_pad
        rgb_to_grayscale rgb_to_hsv rgb_to_yiq rgb_to_yuv rot90 sobel_edges ssim
        total_variation transpose yiq_to_rgb yuv_to_rgb""",
    "linalg": """adjoint band_part cholesky cross det diag diag_part eigh einsum eye
        global_norm inv l2_normalize logdet lstsq matmul matrix_transpose matvec norm
        pinv qr set_diag slogdet solve sqrtm svd tensor_diag tensor_diag_part tensordot
        trace triangular_solve""",
    "math": """abs accumulate_n acos acosh add add_n angle argmax argmin asin asinh atan
        atan2 atanh bincount ceil confusion_matrix conj cos cosh count_nonzero cumprod
        cumsum cumulative_logsumexp digamma divide divide_no_nan equal erf erfc erfinv
        exp expm1 floor floordiv floormod greater greater_equal igamma igammac imag
        in_top_k invert_permutation is_finite is_inf is_nan is_non_decreasing
        is_strictly_increasing l2_normalize lbeta less less_equal lgamma log log1p
        log_sigmoid log_softmax logical_and logical_not logical_or logical_xor maximum
        minimum mod multiply multiply_no_nan ndtri negative nextafter not_equal
        polygamma polyval pow real reciprocal reciprocal_no_nan reduce_all reduce_any
        reduce_euclidean_norm reduce_logsumexp reduce_max reduce_mean reduce_min
        reduce_prod reduce_std reduce_sum reduce_variance rint round rsqrt scalar_mul
        segment_max segment_mean segment_min segment_prod segment_sum sigmoid sign sin
        sinh sobol_sample softmax softplus softsign sqrt square squared_difference
        subtract tan tanh top_k truediv unsorted_segment_max unsorted_segment_mean
        unsorted_segment_min unsorted_segment_prod unsorted_segment_sqrt_n
        unsorted_segment_sum xdivy xlog1py xlogy zero_fraction zeta""",
    "nn": """atrous_conv2d avg_pool avg_pool1d avg_pool2d avg_pool3d batch_normalization
        bias_add compute_average_loss conv1d conv1d_transpose conv2d conv2d_transpose
        conv3d conv3d_transpose conv_transpose convolution crelu depth_to_space
        depthwise_conv2d dilation2d dropout elu embedding_lookup erosion2d gelu
        in_top_k l2_loss l2_normalize leaky_relu local_response_normalization
        log_poisson_loss log_softmax max_pool max_pool1d max_pool2d max_pool3d
        max_pool_with_argmax moments normalize_moments pool relu relu6
        scale_regularization_loss selu separable_conv2d
        sigmoid_cross_entropy_with_logits silu softmax
        softmax_cross_entropy_with_logits softsign space_to_batch space_to_depth
        sparse_softmax_cross_entropy_with_logits sufficient_statistics swish top_k
        weighted_cross_entropy_with_logits weighted_moments with_space_to_batch
        zero_fraction""",
    "random": "categorical gamma normal poisson shuffle truncated_normal uniform",
    "signal": """dct fft fft2d fft3d fftshift frame hamming_window hann_window idct ifft
        ifft2d ifft3d ifftshift inverse_stft irfft irfft2d irfft3d overlap_and_add rfft
        linear_to_mel_weight_matrix mfccs_from_log_mel_spectrograms rfft2d rfft3d
        stft""",
    "strings": """as_string bytes_split format join length lower ngrams reduce_join
        regex_full_match regex_replace split strip substr to_hash_bucket
        to_hash_bucket_fast to_hash_bucket_strong to_number unicode_decode
        unicode_encode unicode_script unicode_split unicode_transcode
        unsorted_segment_join upper""",
    "compat.v1": """concat expand_dims gather gather_nd pad reduce_max reduce_mean
        reduce_min reduce_sum shape size squeeze transpose where zeros_like""",
    "compat.v1.math": "softmax log_softmax argmax argmin",
    "compat.v1.nn": "avg_pool dropout max_pool moments softmax log_softmax",
}


def _functions() -> Iterator[tuple[str, Callable[..., Any]]]:
    for space, names in _NAMES.items():
        found: Any = tf
        for part in filter(None, space.split(".")):
            found = getattr(found, part)
        for name in names.split():
            if hasattr(found, name):
                yield f"{space}.{name}".lstrip("."), getattr(found, name)


def _item(tensor: Any, slice_spec: Any) -> Any:
    """`tensor[slice_spec]`."""
    return tensor[slice_spec]


FUNCTIONS: dict[str, Callable[..., Any]] = {
    **dict(_functions()),
    # As operators of tensors: these have no other public names.
    "__operators__.add": tf.math.add,
    "__operators__.eq": tf.math.equal,
    "__operators__.getitem": _item,
    "__operators__.ne": tf.math.not_equal,
}
"""What a file may call, by the name that TensorFlow has for it."""


@_register
class TensorFunction(keras.layers.Layer):
    """A function of TensorFlow as a layer, with its constant arguments.

    Args:
        function: The name of the function: `"math.multiply"`; one of `FUNCTIONS`.
        arguments: The positional arguments and a dict of the others: `[[...], {...}]`.
            The place of each tensor has `{"__tensor__": i}`, its number among the
            inputs; slices, tuples and `...` are written as Keras 2 wrote them.
        **kwargs: As for any layer.

    Raises:
        UntrustedContentError: If the function is none of those that may be called.

    Example:
        >>> double = [[{"__tensor__": 0}], {"y": 2.0}]
        >>> TensorFunction("math.multiply", double)([x])
    """

    def __init__(self, function: str, arguments: Any = None, **kwargs: Any) -> None:
        super().__init__(**{**kwargs, "autocast": False})
        if function not in FUNCTIONS:
            raise UntrustedContentError(
                f"The function {function!r} of TensorFlow is not called for a file.",
                fix="give a layer in its place with custom_objects={name of the "
                "layer: the layer}.",
            )
        self.function = function
        self.arguments = [[{_TENSOR: 0}], {}] if arguments is None else arguments

    def call(self, inputs: Any) -> Any:
        """Calls the function with the list of its tensors."""
        positional, named = _filled(self.arguments, inputs)
        return FUNCTIONS[self.function](*positional, **named)

    def get_config(self) -> dict[str, Any]:
        """Returns the arguments."""
        own = {"function": self.function, "arguments": self.arguments}
        return {**super().get_config(), **own}


def bind(layer: TensorFunction, call: Any, again: bool) -> tuple[Any, list[Any]]:
    """Reads how a functional model of Keras 2 calls a function.

    Args:
        layer: The function, without its arguments.
        call: One of the `inbound_nodes` of its layer.
        again: Whether it is called once more: then it needs a name of its own.

    Returns:
        The layer with its constant arguments, and references to its inputs.

    Example:
        >>> bind(layer, ["dense", 0, 0, {"y": 2.0, "name": None}], False)[1]
        [['dense', 0, 0]]
    """
    references: list[Any] = []
    named: dict[str, Any] = {}
    first = _template(call, references, named)
    named = {
        key: _template(value, references, {})
        for key, value in named.items()
        if key != "name"
    }
    name = None if again else layer.name
    return TensorFunction(layer.function, [[first], named], name=name), references


def _template(value: Any, references: list[Any], named: dict[str, Any]) -> Any:
    """Puts placeholders where tensors stand, and collects keyword arguments."""
    if is_constant(value):
        named.update(value[3] if len(value) > 3 else {})
        return value[2]
    if is_reference(value):
        named.update(value[3] if len(value) > 3 else {})
        references.append(list(value[:3]))
        return {_TENSOR: len(references) - 1}
    if isinstance(value, Mapping):
        return {key: _template(item, references, named) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(_template(item, references, named) for item in value)
    return value


def is_reference(value: Any) -> bool:
    """Whether a value is `[layer, call, tensor]`, perhaps with keyword arguments."""
    return (
        isinstance(value, list | tuple)
        and len(value) in (3, 4)
        and isinstance(value[0], str)
        and type(value[1]) is int
        and type(value[2]) is int
        and value[1] >= 0
    )


def is_constant(value: Any) -> bool:
    """Whether a value stands where a tensor would, and is a constant."""
    return (
        isinstance(value, list | tuple)
        and len(value) in (3, 4)
        and value[0] == "_CONSTANT_VALUE"
        and value[1] == -1
    )


def _filled(value: Any, tensors: Any) -> Any:
    """Puts tensors into a template, and makes what JSON has not."""
    if isinstance(value, Mapping):
        if value.keys() == {_TENSOR}:
            return tensors[value[_TENSOR]]
        if value.keys() == {"start", "stop", "step"}:
            return slice(
                *(_filled(value[k], tensors) for k in ("start", "stop", "step"))
            )
        kind = value.get("class_name")
        if kind == "__ellipsis__":
            return ...
        if kind in ("TensorShape", "__tuple__"):
            return tuple(_filled(item, tensors) for item in value["items"])
        return {key: _filled(item, tensors) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(_filled(item, tensors) for item in value)
    return value
