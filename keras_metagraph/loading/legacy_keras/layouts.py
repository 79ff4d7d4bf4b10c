"""Turns the arrays of a layer of Keras 1 or 2 into those of its Keras 3 twin.

The rules of Keras 1 and of cuDNN layers are those of `preprocess_weights_for_loading`
in `keras/engine/saving.py` of Keras 2.3.1. Each only moves or joins numbers (but for
the bias of `CuDNNLSTM`, a sum), so that it holds for an optimizer's slots as well.
"""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]
Arrays = list[Array]

# The gates in the order in which Keras 1 stored them apart, as Keras 2 joins them.
_LSTM_GATES = (0, 2, 1, 3)  # i, c, f, o as i, f, c, o
_GRU_GATES = (0, 1, 2)
_FLIPPED = frozenset(
    {"Conv1D", "Conv2D", "Conv2DTranspose", "Conv3D", "ConvLSTM2D", "DepthwiseConv2D"}
    | {"SeparableConv2D"}
)


def stored_count(layer: Any, release: tuple[int, ...], fused: bool) -> int:
    """How many arrays old Keras stored for a layer that holds no others.

    Args:
        layer: The layer of Keras 3.
        release: The release of Keras that wrote the file.
        fused: Whether Keras 1 was told to join the gates (`consume_less="gpu"`).

    Returns:
        The number; Keras 1 stored the weights of each gate apart.

    Example:
        >>> stored_count(keras.layers.LSTM(4), (1, 2, 2), fused=False)
        12
    """
    apart = release < (2,) and not fused
    gates = {"LSTM": 12, "ConvLSTM2D": 12, "GRU": 9} if apart else {}
    return gates.get(type(layer).__name__, len(layer.weights))


def convert(
    layer: Any,
    arrays: Sequence[Array],
    release: tuple[int, ...],
    backend: str,
    *,
    channels_first: bool,
) -> Arrays:
    """Brings the arrays of a layer into the layout of Keras 3.

    Args:
        layer: The layer of Keras 3, which holds no other layers but cells.
        arrays: What the file has, in its order.
        release: The release of Keras that wrote the file.
        backend: The backend that wrote it: Theano stored convolutions flipped.
        channels_first: Whether the layer had its channels before the sizes.

    Returns:
        Arrays in the order of `layer.weights`.

    Example:
        >>> kernel, bias = convert(conv, [stored, bias], (1, 2, 2), "theano")
    """
    kind = type(layer).__name__
    arrays = list(arrays)
    if not arrays:
        return arrays
    if release < (2,) and kind in _KERAS1:
        arrays = _KERAS1[kind](layer, arrays, channels_first)
    if backend == "theano" and kind in _FLIPPED:
        count = 2 if kind in ("ConvLSTM2D", "SeparableConv2D") else 1
        arrays[:count] = [_flip(array) for array in arrays[:count]]
    if len(arrays) == 3 and kind in _CUDNN:
        arrays = _CUDNN[kind](layer, arrays)
    if kind == "Conv2D" and arrays[0].shape != tuple(layer.kernel.shape):
        arrays[0] = _if_it_fits(arrays[0], (3, 2, 0, 1), layer.kernel)
    return arrays


def is_lossy(layer: Any, arrays: Sequence[Array]) -> bool:
    """Whether an optimizer's slots of a layer cannot be converted.

    Args:
        layer: The layer of Keras 3.
        arrays: What the file has.

    Returns:
        Whether it was a `CuDNNLSTM`, which trained two biases that are added.
    """
    if type(layer).__name__ != "LSTM" or len(arrays) != 3:
        return False
    return bool(arrays[2].shape == (8 * layer.units,))


def _flip(kernel: Array) -> Array:
    """Turns a kernel around in all places but the last two axes, the channels."""
    return np.flip(kernel, axis=tuple(range(kernel.ndim - 2)))


def _if_it_fits(array: Array, axes: tuple[int, ...], weight: Any) -> Array:
    if array.ndim != len(axes):
        return array
    moved = np.transpose(array, axes)
    return moved if moved.shape == tuple(weight.shape) else array


def _joined(arrays: Arrays, gates: Sequence[int]) -> Arrays:
    """Joins W, U, b of each gate to one kernel, recurrent kernel and bias."""
    return [
        np.concatenate([arrays[3 * gate + part] for gate in gates], axis=-1)
        for part in range(3)
    ]


def _lstm(layer: Any, arrays: Arrays, first: bool) -> Arrays:
    return _joined(arrays, _LSTM_GATES) if len(arrays) == 12 else arrays


def _gru(layer: Any, arrays: Arrays, first: bool) -> Arrays:
    return _joined(arrays, _GRU_GATES) if len(arrays) == 9 else arrays


def _conv_lstm(layer: Any, arrays: Arrays, first: bool) -> Arrays:
    if len(arrays) != 12:
        return arrays
    if first:
        kernels = [_to_last(a) if a.ndim == 4 else a for a in arrays]
        return _joined(kernels, _LSTM_GATES)
    return _joined(arrays, _LSTM_GATES)


def _conv1d(layer: Any, arrays: Arrays, first: bool) -> Arrays:
    kernel = arrays[0]
    # `(filters, channels, length, 1)` in the first releases of Keras 1.
    if (
        kernel.shape[:2] != (layer.kernel_size[0], 1)
        or kernel.shape[3] != layer.filters
    ):
        kernel = _to_last(kernel)
    return [kernel[:, 0], *arrays[1:]]


def _conv(layer: Any, arrays: Arrays, first: bool) -> Arrays:
    return [_to_last(arrays[0]), *arrays[1:]] if first else arrays


def _conv_transpose(layer: Any, arrays: Arrays, first: bool) -> Arrays:
    axes = (2, 3, 0, 1) if first else (0, 1, 3, 2)
    return [np.transpose(arrays[0], axes), *arrays[1:]]


def _separable(layer: Any, arrays: Arrays, first: bool) -> Arrays:
    if not first:
        return arrays
    return [_to_last(arrays[0]), _to_last(arrays[1]), *arrays[2:]]


def _to_last(kernel: Array) -> Array:
    """`(filters, channels, *sizes)` as `(*sizes, channels, filters)`."""
    return np.transpose(kernel, (*range(2, kernel.ndim), 1, 0))


def _cudnn_lstm(layer: Any, arrays: Arrays) -> Arrays:
    if arrays[2].shape != (8 * layer.units,):
        return arrays
    return [*_cudnn_kernels(arrays, 4), arrays[2].reshape(2, -1).sum(axis=0)]


def _cudnn_gru(layer: Any, arrays: Arrays) -> Arrays:
    if arrays[2].shape != (6 * layer.units,):
        return arrays
    return [*_cudnn_kernels(arrays, 3), arrays[2].reshape(2, -1)]


def _cudnn_kernels(arrays: Arrays, gates: int) -> Arrays:
    """The kernels of a cuDNN layer, whose gates are stored in Fortran's order."""
    kernels = np.split(arrays[0], gates, axis=1)
    recurrent = np.split(arrays[1], gates, axis=1)
    return [
        np.hstack([kernel.T.reshape(kernel.shape, order="F") for kernel in kernels]),
        np.hstack([kernel.T for kernel in recurrent]),
    ]


_KERAS1: dict[str, Callable[[Any, Arrays, bool], Arrays]] = {
    "Conv1D": _conv1d,
    "Conv2D": _conv,
    "Conv2DTranspose": _conv_transpose,
    "Conv3D": _conv,
    "ConvLSTM2D": _conv_lstm,
    "GRU": _gru,
    "LSTM": _lstm,
    "SeparableConv2D": _separable,
}
_CUDNN: dict[str, Callable[[Any, Arrays], Arrays]] = {
    "GRU": _cudnn_gru,
    "LSTM": _cudnn_lstm,
}
