"""Gives the layers of Keras 1 the names that Keras 2 has for them and their arguments.

The names are those of `keras/legacy/interfaces.py` in Keras 2.3.1.
"""

from collections.abc import Callable, Mapping
from typing import Any

Config = dict[str, Any]

_CLASSES = {
    "AtrousConvolution1D": "Conv1D",
    "AtrousConvolution2D": "Conv2D",
    "Convolution1D": "Conv1D",
    "Convolution2D": "Conv2D",
    "Convolution3D": "Conv3D",
    "Deconvolution2D": "Conv2DTranspose",
    "Convolution2DTranspose": "Conv2DTranspose",
    "SeparableConvolution2D": "SeparableConv2D",
    # On a sequence a dense layer works on each step anyway.
    "TimeDistributedDense": "Dense",
}
_ARGUMENTS = {
    "W_constraint": "kernel_constraint",
    "W_regularizer": "kernel_regularizer",
    "U_regularizer": "recurrent_regularizer",
    "b_constraint": "bias_constraint",
    "b_regularizer": "bias_regularizer",
    "beta_init": "beta_initializer",
    "bias": "use_bias",
    "border_mode": "padding",
    "dropout_U": "recurrent_dropout",
    "dropout_W": "dropout",
    "gamma_init": "gamma_initializer",
    "init": "kernel_initializer",
    "inner_activation": "recurrent_activation",
    "inner_init": "recurrent_initializer",
    "nb_filter": "filters",
    "output_dim": "units",
    "p": "rate",
    "sigma": "stddev",
    "subsample": "strides",
}
# What says how a layer was computed, or what came before it; not what it computes.
_DROPPED = frozenset(
    {
        "concat_mode",
        "consume_less",
        "input_dim",
        "input_length",
        "input_shape",
        "transform_bias",
        "weights",
    }
)
_DATA_FORMATS = {"th": "channels_first", "tf": "channels_last"}
_MERGES = {
    "sum": "Add",
    "mul": "Multiply",
    "ave": "Average",
    "max": "Maximum",
    "concat": "Concatenate",
    "dot": "Dot",
    "cos": "CosineMerge",
}
_KERNELS = ("nb_row", "nb_col")
_KERNELS_3D = ("kernel_dim1", "kernel_dim2", "kernel_dim3")


def is_keras1(kind: str, config: Mapping[str, Any]) -> bool:
    """Says whether a layer's config is one of Keras 1.

    Args:
        kind: The name of its class.
        config: Its config.

    Returns:
        Whether it has a name that Keras 2 does not use.

    Example:
        >>> is_keras1("Dense", {"output_dim": 3})
        True
    """
    # `Embedding` and `ZeroPadding` have the same arguments in both.
    old = (
        _ARGUMENTS.keys() | {"dim_ordering", "inner_init", "mode", "atrous_rate"}
    ) - {
        "output_dim" if kind == "Embedding" else "",
    }
    old |= {"filter_length", "pool_length", "length", *_KERNELS, *_KERNELS_3D}
    if kind in _CLASSES or kind == "Merge" or old & config.keys():
        return True
    return any(key.endswith("_init") for key in config)


def layout_of(config: Any) -> str:
    """The order of axes that the layers of a model of Keras 1 say, if they agree.

    Some of its layers (`ZeroPadding2D`, `SpatialDropout2D`) did not save theirs.

    Args:
        config: The config of a model.

    Returns:
        `"channels_first"` if a layer says so and none says otherwise, else
        `"channels_last"`.

    Example:
        >>> layout_of([{"config": {"dim_ordering": "th"}}])
        'channels_first'
    """
    said, stack = set(), [config]
    while stack:
        value = stack.pop()
        if isinstance(value, Mapping):
            said.add(value.get("dim_ordering"))
            stack.extend(value.values())
        elif isinstance(value, list):
            stack.extend(value)
    return _DATA_FORMATS["th" if said <= {None, "th"} and "th" in said else "tf"]


def modernize(kind: str, config: Mapping[str, Any]) -> tuple[str, Config]:
    """Gives a layer of Keras 1 its names in Keras 2.

    Args:
        kind: The name of its class.
        config: Its config.

    Returns:
        The class and the config in Keras 2; other layers are left as they are.

    Example:
        >>> modernize("Dense", {"output_dim": 3, "bias": True})
        ('Dense', {'units': 3, 'use_bias': True})
    """
    config = dict(config)
    if not is_keras1(kind, config):
        return kind, config
    own = _OWN.get(kind)
    if own is not None:
        kind = own(kind, config) or kind
    if "dim_ordering" in config:
        ordering = config.pop("dim_ordering")
        config["data_format"] = _DATA_FORMATS.get(ordering, ordering)
    if kind == "Embedding":  # whose sizes have the same names in all releases
        return kind, config
    config = {key: value for key, value in config.items() if key not in _DROPPED}
    renamed = {_ARGUMENTS.get(key, key): value for key, value in config.items()}
    return _CLASSES.get(kind, kind), renamed


def _conv1d(kind: str, config: Config) -> None:
    config["kernel_size"] = config.pop("filter_length")
    config["strides"] = config.pop("subsample_length", 1)
    if "atrous_rate" in config:
        config["dilation_rate"] = config.pop("atrous_rate")
    config["data_format"] = "channels_last"


def _conv2d(kind: str, config: Config) -> None:
    names = _KERNELS_3D if kind == "Convolution3D" else _KERNELS
    config["kernel_size"] = [config.pop(name) for name in names]
    if "atrous_rate" in config:
        rate = config.pop("atrous_rate")
        config["dilation_rate"] = rate
    # Keras 2 and 3 infer it from padding and strides.
    config.pop("output_shape", None)


def _pooling1d(kind: str, config: Config) -> None:
    config["pool_size"] = config.pop("pool_length", 2)
    config["strides"] = config.pop("stride", None)


def _upsampling1d(kind: str, config: Config) -> None:
    config["size"] = config.pop("length", 2)


def _padding2d(kind: str, config: Config) -> None:
    padding = config["padding"]
    if isinstance(padding, Mapping):
        sides = ("top_pad", "bottom_pad", "left_pad", "right_pad")
        padding = [padding.get(side, 0) for side in sides]
    if len(padding) == 4:
        config["padding"] = [list(padding[:2]), list(padding[2:])]


def _padding1d(kind: str, config: Config) -> None:
    padding = config["padding"]
    if isinstance(padding, Mapping):
        sides = ("left_pad", "right_pad")
        config["padding"] = [padding.get(side, 0) for side in sides]


def _batch_normalization(kind: str, config: Config) -> str | None:
    mode = config.pop("mode", 0)
    if mode == 0:
        return None
    for unused in ("momentum", "beta_init", "gamma_init"):
        config.pop(unused, None)
    for regularizer in ("beta_regularizer", "gamma_regularizer"):
        if config.get(regularizer) is None:
            config.pop(regularizer, None)
    return "SampleNormalization" if mode == 1 else "BatchStatisticsNormalization"


def _maxout(kind: str, config: Config) -> None:
    config["num_features"] = config.pop("nb_feature")


def _embedding(kind: str, config: Config) -> str | None:
    config["embeddings_initializer"] = config.pop("init", "uniform")
    config["embeddings_regularizer"] = config.pop("W_regularizer", None)
    config["embeddings_constraint"] = config.pop("W_constraint", None)
    return None


def _separable(kind: str, config: Config) -> None:
    _conv2d(kind, config)
    initializer = config.pop("init", "glorot_uniform")
    config["depthwise_initializer"] = config["pointwise_initializer"] = initializer


def _parametric(kind: str, config: Config) -> None:
    if kind == "PReLU" and "init" in config:
        config["alpha_initializer"] = config.pop("init")
    for name in [name for name in config if name.endswith("_init")]:
        del config[name]


def _recurrent(kind: str, config: Config) -> None:
    forget = config.pop("forget_bias_init", None)
    if forget is not None and kind != "ConvLSTM2D":
        config["unit_forget_bias"] = forget == "one"
    if kind == "ConvLSTM2D":
        _conv2d(kind, config)


def _merge(kind: str, config: Config) -> str:
    mode = config.pop("mode", "sum")
    axis, dot_axes = config.pop("concat_axis", -1), config.pop("dot_axes", -1)
    arguments = config.pop("arguments", None) or {}
    mode_type = config.pop("mode_type", "raw")
    for name in [name for name in config if name not in ("name", "trainable")]:
        del config[name]  # shapes, masks and places, which Keras 3 finds by itself
    if mode_type != "raw" or mode not in _MERGES:
        config |= {"function": mode, "function_type": mode_type, "arguments": arguments}
        return "Lambda"
    found = _MERGES[mode]
    if found == "Concatenate":
        config["axis"] = axis
    elif mode in ("dot", "cos"):
        config["axes"] = dot_axes
    return found


_OWN: dict[str, Callable[[str, Config], str | None]] = {
    "AtrousConvolution1D": _conv1d,
    "Convolution1D": _conv1d,
    "LocallyConnected1D": _conv1d,
    "AtrousConvolution2D": _conv2d,
    "Convolution2D": _conv2d,
    "Convolution3D": _conv2d,
    "Deconvolution2D": _conv2d,
    "LocallyConnected2D": _conv2d,
    "SeparableConvolution2D": _separable,
    "AveragePooling1D": _pooling1d,
    "MaxPooling1D": _pooling1d,
    "UpSampling1D": _upsampling1d,
    "ZeroPadding1D": _padding1d,
    "ZeroPadding2D": _padding2d,
    "BatchNormalization": _batch_normalization,
    "MaxoutDense": _maxout,
    "Embedding": _embedding,
    "PReLU": _parametric,
    "SReLU": _parametric,
    "ParametricSoftplus": _parametric,
    "ConvLSTM2D": _recurrent,
    "GRU": _recurrent,
    "LSTM": _recurrent,
    "SimpleRNN": _recurrent,
    "Merge": _merge,
}
