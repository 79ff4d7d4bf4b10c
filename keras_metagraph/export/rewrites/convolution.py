"""Grouped convolutions, which TensorFlow 1.15 does not run on a CPU.

The number of groups stands in no attribute: it is how often the filter's input channels
go into those of the image. One channel a group is a depthwise convolution; others are
split, convolved and put together again.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
import tensorflow as tf

from keras_metagraph.export.rewrites.rewriter import Rewrite, Rewriter
from keras_metagraph.graph.ir import TensorName

_ATTRIBUTES = ("strides", "padding", "data_format", "dilations")


def rewrite_forward(rewriter: Rewriter) -> str | None:
    """`Conv2D(image, filter)`."""
    image, kernel = rewriter.shape(0), rewriter.shape(1)
    groups = _groups(image, kernel)
    if groups == 1:
        return None
    reason = _refused(rewriter, "Conv2D")
    if reason or image is None or kernel is None:
        return reason
    if _is_depthwise(rewriter, image, groups):
        kernel_in = _reshaped(rewriter, rewriter.input(1), _depthwise(kernel, groups))
        _become(rewriter, "DepthwiseConv2dNative", [rewriter.input(0), kernel_in])
        return None
    images = _split(rewriter, rewriter.input(0), groups)
    kernels = _split(rewriter, rewriter.input(1), groups)
    _in_groups(rewriter, groups, -1, lambda place: [images[place], kernels[place]])
    return None


def rewrite_filter_gradient(rewriter: Rewriter) -> str | None:
    """`Conv2DBackpropFilter(image, filter sizes, gradient)`."""
    image, kernel = rewriter.shape(0), rewriter.output_shape()
    groups = _groups(image, kernel)
    if groups == 1:
        return None
    reason = _refused(rewriter, "Conv2DBackpropFilter")
    if reason or image is None or kernel is None:
        return reason
    if _is_depthwise(rewriter, image, groups):
        inner = rewriter.add_constant(
            "filter_sizes", _depthwise(kernel, groups), tf.int32
        )
        gradient = _added(
            rewriter,
            "DepthwiseConv2dNativeBackpropFilter",
            [rewriter.input(0), inner, rewriter.input(2)],
        )
        sizes = rewriter.add_constant("sizes", kernel, tf.int32)
        rewriter.replace(
            "Reshape", [gradient, sizes], T=rewriter.dtype("T"), Tshape=tf.int32
        )
        return None
    images = _split(rewriter, rewriter.input(0), groups)
    gradients = _split(rewriter, rewriter.input(2), groups)
    part = [*kernel[:3], (kernel[3] or 0) // groups]
    sizes = rewriter.add_constant("filter_sizes", part, tf.int32)
    _in_groups(
        rewriter, groups, -1, lambda place: [images[place], sizes, gradients[place]]
    )
    return None


def rewrite_input_gradient(rewriter: Rewriter) -> str | None:
    """`Conv2DBackpropInput(image sizes, filter, gradient)`."""
    image, kernel = rewriter.output_shape(), rewriter.shape(1)
    groups = _groups(image, kernel)
    if groups == 1:
        return None
    reason = _refused(rewriter, "Conv2DBackpropInput")
    if reason or image is None or kernel is None:
        return reason
    if _is_depthwise(rewriter, image, groups):
        kernel_in = _reshaped(rewriter, rewriter.input(1), _depthwise(kernel, groups))
        _become(
            rewriter,
            "DepthwiseConv2dNativeBackpropInput",
            [rewriter.input(0), kernel_in, rewriter.input(2)],
        )
        return None
    kernels = _split(rewriter, rewriter.input(1), groups)
    gradients = _split(rewriter, rewriter.input(2), groups)
    keep = rewriter.add_constant("keep", [1, 1, 1, 0], tf.int32)
    channels = rewriter.add_constant("channels", [0, 0, 0, kernel[2]], tf.int32)
    sizes = rewriter.add("Mul", "Mul", [rewriter.input(0), keep], T=tf.int32)
    sizes = rewriter.add("AddV2", "AddV2", [sizes, channels], T=tf.int32)
    _in_groups(
        rewriter, groups, -1, lambda place: [sizes, kernels[place], gradients[place]]
    )
    return None


def _groups(image: list[int | None] | None, kernel: list[int | None] | None) -> int:
    """How many groups there are; one where the shapes do not tell."""
    channels = image[-1] if image else None
    inner = kernel[2] if kernel else None
    return channels // inner if channels and inner else 1


def _refused(rewriter: Rewriter, what: str) -> str | None:
    layout = rewriter.node.attrs.get("data_format")
    if layout is not None and layout.s != b"NHWC":
        return f"{what} has groups and channels first"
    return None


def _depthwise(kernel: list[int | None], groups: int) -> list[int | None]:
    """The shape of the same filter for a depthwise convolution."""
    return [*kernel[:2], groups, (kernel[3] or 0) // groups]


def _is_depthwise(rewriter: Rewriter, image: list[int | None], groups: int) -> bool:
    """Whether each channel is a group, and 1.15 has a kernel for the rest."""
    attrs = rewriter.node.attrs
    strides = list(attrs["strides"].list.i)
    dilations = list(attrs["dilations"].list.i) if "dilations" in attrs else [1]
    return groups == image[-1] and strides[1] == strides[2] and set(dilations) == {1}


def _attributes(rewriter: Rewriter) -> dict[str, Any]:
    attrs = rewriter.node.attrs
    return {name: attrs[name] for name in _ATTRIBUTES if name in attrs}


def _become(rewriter: Rewriter, op: str, inputs: list[TensorName]) -> None:
    """Makes the node another convolution with the same strides and padding."""
    kept = _attributes(rewriter)
    rewriter.replace(op, inputs, T=rewriter.dtype("T"))
    rewriter.node.attrs.update(kept)


def _added(rewriter: Rewriter, op: str, inputs: list[TensorName]) -> TensorName:
    """Adds a convolution with the node's strides and padding."""
    tensor = rewriter.add(op, op, inputs, T=rewriter.dtype("T"))
    rewriter.graph.nodes[tensor.node].attrs.update(_attributes(rewriter))
    return tensor


def _reshaped(
    rewriter: Rewriter, tensor: TensorName, shape: list[int | None]
) -> TensorName:
    sizes = rewriter.add_constant("sizes", np.asarray(shape), tf.int32)
    return rewriter.add(
        "Reshape", "Reshape", [tensor, sizes], T=rewriter.dtype("T"), Tshape=tf.int32
    )


def _split(rewriter: Rewriter, tensor: TensorName, groups: int) -> list[TensorName]:
    """The parts of a tensor along its last axis."""
    axis = rewriter.add_constant("axis", -1, tf.int32)
    first = rewriter.add(
        "split", "Split", [axis, tensor], T=rewriter.dtype("T"), num_split=groups
    )
    return [TensorName(first.node, place) for place in range(groups)]


def _in_groups(
    rewriter: Rewriter,
    groups: int,
    axis: int,
    inputs: Callable[[int], list[TensorName]],
) -> None:
    """Makes the node what its op gives for each group, side by side."""
    op = rewriter.node.op
    parts = [_added(rewriter, op, inputs(place)) for place in range(groups)]
    place = rewriter.add_constant("concat_axis", axis, tf.int32)
    rewriter.replace(
        "ConcatV2", [*parts, place], T=rewriter.dtype("T"), Tidx=tf.int32, N=groups
    )


REWRITES: dict[str, Rewrite] = {
    "Conv2D": rewrite_forward,
    "Conv2DBackpropFilter": rewrite_filter_gradient,
    "Conv2DBackpropInput": rewrite_input_gradient,
}
