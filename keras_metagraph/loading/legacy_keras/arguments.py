"""Renames the arguments of the layers of Keras 2 to those of Keras 3."""

from collections.abc import Callable, Mapping
from typing import Any

from keras_metagraph.loading.legacy_keras.layers import SummedActivityRegularizer

Config = dict[str, Any]

_CLASSES = {
    "CuDNNLSTM": "LSTM",
    "CuDNNGRU": "GRU",
    "LSTMV2": "LSTM",
    "GRUV2": "GRU",
    "BatchNormalizationV1": "BatchNormalization",
    "BatchNormalizationV2": "BatchNormalization",
    "SyncBatchNormalization": "BatchNormalization",
}
# What says how a layer was computed or placed, not what it computes.
_DROPPED = frozenset(
    {
        "batch_input_shape",
        "batch_size",
        "consume_less",
        "implementation",
        "input_dim",
        "input_dtype",
        "input_length",
        "input_shape",
        "input_spec",
        "num_constants",
        "weights",
    }
)
# Whose configs have groups=1 in Keras 2.4 and later, and whose constructors have not.
_UNGROUPED = frozenset(
    {"Conv2DTranspose", "Conv3DTranspose", "DepthwiseConv2D", "SeparableConv1D"}
    | {"Conv1DTranspose", "DepthwiseConv1D", "SeparableConv2D"}
)
_LAYOUTS = frozenset(
    {
        "AveragePooling1D",
        "Conv1D",
        "Conv2D",
        "Conv2DTranspose",
        "Conv3D",
        "Conv3DTranspose",
        "ConvLSTM2D",
        "Cropping2D",
        "Cropping3D",
        "DepthwiseConv2D",
        "GlobalAveragePooling1D",
        "GlobalAveragePooling2D",
        "GlobalAveragePooling3D",
        "GlobalMaxPooling1D",
        "GlobalMaxPooling2D",
        "GlobalMaxPooling3D",
        "AveragePooling2D",
        "AveragePooling3D",
        "Flatten",
        "LocallyConnected1D",
        "LocallyConnected2D",
        "MaxPooling1D",
        "MaxPooling2D",
        "MaxPooling3D",
        "SeparableConv1D",
        "SeparableConv2D",
        "SpatialDropout2D",
        "SpatialDropout3D",
        "UpSampling2D",
        "UpSampling3D",
        "ZeroPadding2D",
        "ZeroPadding3D",
    }
)


def renew(
    kind: str,
    config: Mapping[str, Any],
    release: tuple[int, ...],
    is_tf_keras: bool,
    layout: str = "channels_last",
) -> tuple[str, Config]:
    """Gives a layer of Keras 2 its arguments in Keras 3.

    Args:
        kind: The name of its class.
        config: Its config.
        release: The release of Keras that wrote it.
        is_tf_keras: Whether it was TensorFlow's own Keras.
        layout: The order of axes of layers that do not say theirs.

    Returns:
        The class, in Keras 3 or this package, and the arguments of its constructor.

    Raises:
        ValueError: If the layer computes what Keras 3 cannot.

    Example:
        >>> renew("LeakyReLU", {"alpha": 0.3}, (2, 2, 4), False)
        ('LeakyReLU', {'negative_slope': 0.3})
    """
    if kind.startswith("LocallyConnected") and config.get("implementation", 1) != 1:
        raise ValueError("implementation=2 or 3, whose weights are stored otherwise")
    size = config.get("input_dim") if kind == "Embedding" else None
    config = {k: _value(v) for k, v in config.items() if k not in _DROPPED}
    if size is not None:
        config["input_dim"] = size
    _dtype(config)
    if kind in _UNGROUPED and config.get("groups") == 1:
        del config["groups"]
    if "name" in config:
        config["name"] = str(config["name"]).replace("/", "_")
    if kind in _LAYOUTS and not config.get("data_format"):
        # Before it had the argument, Flatten left the axes as they are.
        plain = kind == "Flatten" or kind.endswith("1D")
        config["data_format"] = "channels_last" if plain else layout
    _activity_regularizer(kind, config, is_tf_keras)
    own = _OWN.get(kind)
    if own is not None:
        kind = own(kind, config) or kind
    kind = _CLASSES.get(kind, kind)
    if kind == "BatchNormalization":
        kind = _sampled(config, release, is_tf_keras)
    if kind == "UpSampling2D" and _is_bilinear(config):
        kind = _bilinear(config, release, is_tf_keras)
    return kind, config


def _value(value: Any) -> Any:
    """A value in plain form: tf.keras wrote NumPy's and tuples as dicts."""
    if isinstance(value, Mapping) and value.get("type") == "ndarray":
        return value["value"]
    if isinstance(value, Mapping) and value.get("class_name") == "__tuple__":
        return tuple(value["items"])
    return value


def _dtype(config: Config) -> None:
    """Keeps a dtype to compute in; an integer one was that of the input."""
    dtype = config.get("dtype")
    if isinstance(dtype, Mapping):
        policy = dtype.get("config") or {}
        dtype = config["dtype"] = policy.get("name")
    if dtype is None or "int" in str(dtype) or str(dtype) in ("_infer", "infer"):
        config.pop("dtype", None)


def _activity_regularizer(kind: str, config: Config, is_tf_keras: bool) -> None:
    """Replaces the penalties of outputs, which standalone Keras summed."""
    if is_tf_keras:
        return
    if kind == "ActivityRegularization":
        value: Any = {"l1": config.pop("l1", 0.0), "l2": config.pop("l2", 0.0)}
    else:
        value = config.get("activity_regularizer")
        if not isinstance(value, Mapping):
            return
        if value.get("class_name", "L1L2") != "L1L2":
            return
        value = value.get("config", value)
    factors = {key: float(value.get(key) or 0.0) for key in ("l1", "l2")}
    config["activity_regularizer"] = SummedActivityRegularizer(**factors)


def _batch_normalization(kind: str, config: Config) -> None:
    axis = config.get("axis", -1)
    if isinstance(axis, list | tuple):
        if len(axis) != 1:
            raise ValueError(f"normalizes over the axes {axis}")
        config["axis"] = axis[0]
    if config.pop("renorm", False):
        raise ValueError("renorm=True, which Keras 3 has not")
    if config.pop("virtual_batch_size", None):
        raise ValueError("virtual_batch_size, which Keras 3 has not")
    for unused in ("fused", "renorm_clipping", "renorm_momentum", "adjustment"):
        config.pop(unused, None)


def _recurrent(kind: str, config: Config) -> None:
    if config.pop("time_major", False):
        raise ValueError("time_major=True, which Keras 3 has not")
    # The default until Keras 2, of files that do not say.
    if kind == "GRU" or kind == "GRUCell":
        config.setdefault("reset_after", False)


def _spatial_dropout(kind: str, config: Config) -> None:
    config.pop("noise_shape", None)  # which its own shape overrides


def _cudnn(kind: str, config: Config) -> None:
    config |= {"activation": "tanh", "recurrent_activation": "sigmoid"}
    config.pop("time_major", None)
    if kind == "CuDNNGRU":
        config["reset_after"] = True


def _leaky_relu(kind: str, config: Config) -> None:
    if "alpha" in config:
        config["negative_slope"] = float(config.pop("alpha"))


def _elu(kind: str, config: Config) -> None:
    config["alpha"] = float(config.get("alpha", 1.0))


def _separable(kind: str, config: Config) -> None:
    for name in ("initializer", "regularizer", "constraint"):
        config.pop(f"kernel_{name}", None)


def _embedding(kind: str, config: Config) -> str | None:
    rate = config.pop("dropout", 0.0)
    if not rate:
        return None
    config["rate"] = rate
    return "DropoutEmbedding"


def _local(kind: str, config: Config) -> None:
    if config.pop("padding", "valid") != "valid":
        raise ValueError('padding="same", whose weights are stored otherwise')


def _causal(kind: str, config: Config) -> None:
    if config.pop("causal", False):
        raise ValueError("causal=True, which Keras 3 takes when the layer is called")


def _multi_head(kind: str, config: Config) -> None:
    for name in ("query", "key", "value"):
        config.pop(f"{name}_shape", None)  # found anew when it is built
    if config.pop("softmax_robust_masking", False):
        raise ValueError("softmax_robust_masking=True, which Keras 3 has not")


def _lookup(kind: str, config: Config) -> str | None:
    for old, new in _LOOKUP_ARGUMENTS.items():
        if old in config:
            config[new] = config.pop(old)
    config.pop("vocabulary_size", None)  # that of the vocabulary, which is given
    if not str(config.get("dtype", "")).startswith("float"):
        config.pop("dtype", None)  # that of the tokens, or of their indices
    _output_mode(config, "int")
    if isinstance(config.get("ngrams"), list):
        config["ngrams"] = tuple(config["ngrams"])
    counts = kind == "TextVectorization" and config["output_mode"] != "int"
    return "TextVectors" if counts else None


def _crop(kind: str, config: Config) -> None:
    raise ValueError("a RandomCrop, which Keras 3 does not apply in prediction")


def _output_mode(config: Config, default: str) -> None:
    mode = str(config.get("output_mode") or default)
    config["output_mode"] = _OUTPUT_MODES.get(mode, mode)


def _hashing(kind: str, config: Config) -> None:
    _output_mode(config, "int")
    if not str(config.get("dtype", "")).startswith("float"):
        config.pop("dtype", None)


def _category(kind: str, config: Config) -> None:
    if "max_tokens" in config:
        config["num_tokens"] = config.pop("max_tokens")
    _output_mode(config, "multi_hot")


def _activation(kind: str, config: Config) -> str:
    """`ActivityRegularization`, whose penalty became an activity regularizer."""
    if "activity_regularizer" not in config:
        return kind
    config["activation"] = "linear"
    return "Activation"


def _is_bilinear(config: Mapping[str, Any]) -> bool:
    return config.get("interpolation") == "bilinear"


def _sampled(config: Config, release: tuple[int, ...], is_tf_keras: bool) -> str:
    """Which layer averages the variance as that release did."""
    standalone = not is_tf_keras and release >= (2, 1, 4)
    if not is_tf_keras and not standalone:
        return "BatchNormalization"
    config |= {"fused": True, "standalone": standalone}
    if release >= (2, 6):
        config["fused_ranks"] = (4, 5)
    return "UnbiasedBatchNormalization"


def _bilinear(config: Config, release: tuple[int, ...], is_tf_keras: bool) -> str:
    """Which layer interpolates as that release did.

    TensorFlow's Keras moved to half pixels in 1.14 (its Keras 2.2.4-tf).
    """
    if is_tf_keras and release >= (2, 2, 4):
        return "UpSampling2D"
    config.pop("interpolation")
    return "BilinearUpSampling2D"


_LOOKUP_ARGUMENTS = {
    "mask_value": "mask_token",
    "max_values": "max_tokens",
    "oov_value": "oov_token",
}
# Names until TensorFlow 2.5.
_OUTPUT_MODES = {"binary": "multi_hot", "tf-idf": "tf_idf"}
_OWN: dict[str, Callable[[str, Config], str | None]] = {
    "ActivityRegularization": _activation,
    "AdditiveAttention": _causal,
    "Attention": _causal,
    "BatchNormalization": _batch_normalization,
    "BatchNormalizationV1": _batch_normalization,
    "BatchNormalizationV2": _batch_normalization,
    "SyncBatchNormalization": _batch_normalization,
    "CuDNNGRU": _cudnn,
    "CuDNNLSTM": _cudnn,
    "ConvLSTM2D": _recurrent,
    "CategoryEncoding": _category,
    "ELU": _elu,
    "Embedding": _embedding,
    "GRU": _recurrent,
    "GRUCell": _recurrent,
    "Hashing": _hashing,
    "IntegerLookup": _lookup,
    "LSTM": _recurrent,
    "LeakyReLU": _leaky_relu,
    "LocallyConnected1D": _local,
    "LocallyConnected2D": _local,
    "MultiHeadAttention": _multi_head,
    "RNN": _recurrent,
    "RandomCrop": _crop,
    "SeparableConv1D": _separable,
    "SeparableConv2D": _separable,
    "SimpleRNN": _recurrent,
    "StringLookup": _lookup,
    "TextVectorization": _lookup,
    "SpatialDropout1D": _spatial_dropout,
    "SpatialDropout2D": _spatial_dropout,
    "SpatialDropout3D": _spatial_dropout,
}
