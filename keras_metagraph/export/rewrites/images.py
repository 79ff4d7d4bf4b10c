"""Projective transforms of images, which rotate, shift and zoom them.

TensorFlow 1.15 has no op for them in its core: the sampling is written out, as the
kernel does it.
"""

from collections.abc import Callable
from typing import Any

import tensorflow as tf

from keras_metagraph.export.rewrites.rewriter import Rewrite, Rewriter
from keras_metagraph.graph.ir import TensorName

_FILL_MODES = ("CONSTANT", "NEAREST", "REFLECT", "WRAP")


def rewrite_projective_transform(rewriter: Rewriter) -> str | None:
    """`ImageProjectiveTransformV3(images, transforms, output shape, fill value)`."""
    attrs = rewriter.node.attrs
    fill_mode = attrs["fill_mode"].s.decode() if "fill_mode" in attrs else "CONSTANT"
    interpolation = attrs["interpolation"].s.decode()
    if fill_mode not in _FILL_MODES or interpolation not in ("BILINEAR", "NEAREST"):
        return f"it fills by {fill_mode} and interpolates by {interpolation}"
    math = _Math(rewriter)
    images, transforms, output_shape, fill = rewriter.node.inputs
    sampler = _Sampler(math, images, rewriter.dtype("dtype"), fill)
    x_in, y_in, scale = _source_coordinates(math, transforms, output_shape)
    place = {
        axis: _mapped(math, fill_mode, math.divide(value, scale), sampler.sizes[axis])
        for axis, value in (("x", x_in), ("y", y_in))
    }
    sample = sampler.bilinear if interpolation == "BILINEAR" else sampler.nearest
    value = sample(place["x"], place["y"])
    undefined = math.last_axis(math.add("Equal", scale, math.number(0.0)), tf.bool)
    value = math.select(undefined, math.broadcast_like(fill, value), value)
    dtype = rewriter.dtype("dtype")
    rewriter.replace("Cast", [value], SrcT=tf.float32, DstT=dtype)
    return None


class _Math:
    """Adds float nodes beside the one that is rewritten."""

    def __init__(self, rewriter: Rewriter) -> None:
        self._rewriter = rewriter
        self._numbers: dict[tuple[Any, str], TensorName] = {}

    def add(self, op: str, *inputs: TensorName, dtype: Any = tf.float32) -> TensorName:
        """A node of an op with one type."""
        return self._rewriter.add(op, op, inputs, T=dtype)

    def node(self, op: str, inputs: list[TensorName], **attrs: Any) -> TensorName:
        """A node of any op."""
        return self._rewriter.add(op, op, inputs, **attrs)

    def number(self, value: Any, dtype: tf.DType = tf.float32) -> TensorName:
        """A constant, added once."""
        key = (str(value), dtype.name)
        if key not in self._numbers:
            self._numbers[key] = self._rewriter.add_constant("value", value, dtype)
        return self._numbers[key]

    def divide(self, a: TensorName, b: TensorName) -> TensorName:
        """The quotient; zero where it has none."""
        return self.add("DivNoNan", a, b)

    def truncate(self, a: TensorName) -> TensorName:
        """The whole part, towards zero."""
        return self.add(
            "Mul", self.add("Sign", a), self.add("Floor", self.add("Abs", a))
        )

    def select(self, where: TensorName, yes: TensorName, no: TensorName) -> TensorName:
        """One of two, element by element."""
        return self.add("SelectV2", where, yes, no)

    def cast(self, a: TensorName, source: tf.DType, target: tf.DType) -> TensorName:
        """The tensor in another dtype."""
        return self._rewriter.cast(a, source, target)

    def last_axis(self, a: TensorName, dtype: tf.DType = tf.float32) -> TensorName:
        """The tensor with one more axis, at the end."""
        axis = self.number(-1, tf.int32)
        return self.node("ExpandDims", [a, axis], T=dtype, Tdim=tf.int32)

    def reshape(self, a: TensorName, shape: Any, dtype: tf.DType) -> TensorName:
        """The tensor in another shape."""
        sizes = shape if isinstance(shape, TensorName) else self.number(shape, tf.int32)
        return self.node("Reshape", [a, sizes], T=dtype, Tshape=tf.int32)

    def broadcast_like(self, a: TensorName, other: TensorName) -> TensorName:
        """A scalar in the shape of another tensor."""
        shape = self.node("Shape", [other], T=tf.float32, out_type=tf.int32)
        return self.node("Fill", [shape, a], T=tf.float32, index_type=tf.int32)

    def parts(
        self, a: TensorName, count: int, axis: int, dtype: Any
    ) -> list[TensorName]:
        """The slices of a tensor along an axis."""
        first = self.node("Unpack", [a], T=dtype, num=count, axis=axis)
        return [TensorName(first.node, place) for place in range(count)]

    def count_to(self, size: TensorName) -> TensorName:
        """0, 1, 2 ... up to a size, as whole numbers."""
        limits = [self.number(0, tf.int32), size, self.number(1, tf.int32)]
        return self.node("Range", limits, Tidx=tf.int32)


def _source_coordinates(
    math: _Math, transforms: TensorName, output_shape: TensorName
) -> tuple[TensorName, TensorName, TensorName]:
    """Where pixels come from, `(batch or 1, height, width)`, before the division."""
    height, width = math.parts(output_shape, 2, 0, tf.int32)
    x = math.cast(math.count_to(width), tf.int32, tf.float32)
    y = math.cast(math.count_to(height), tf.int32, tf.float32)
    x = math.reshape(x, [1, 1, -1], tf.float32)
    y = math.reshape(y, [1, -1, 1], tf.float32)
    rows = [
        math.reshape(part, [-1, 1, 1], tf.float32)
        for part in math.parts(transforms, 8, 1, tf.float32)
    ]

    def plane(a: TensorName, b: TensorName, c: TensorName) -> TensorName:
        sum_of_two = math.add("AddV2", math.add("Mul", a, x), math.add("Mul", b, y))
        return math.add("AddV2", sum_of_two, c)

    one = math.number(1.0)
    return plane(*rows[0:3]), plane(*rows[3:6]), plane(rows[6], rows[7], one)


def _mapped(
    math: _Math, fill_mode: str, place: TensorName, size: TensorName
) -> TensorName:
    """A coordinate moved into the image, as the fill mode says."""
    if fill_mode == "CONSTANT":
        return place
    zero, one = math.number(0.0), math.number(1.0)
    last = math.add("Sub", size, one)
    if fill_mode in _OUTSIDE:
        below, above = _OUTSIDE[fill_mode](math, place, size, last)
        outside = math.select(math.add("Less", place, zero), below, place)
        place = math.select(math.add("Greater", place, last), above, outside)
    return math.add("Minimum", math.add("Maximum", place, zero), last)


def _reflected(
    math: _Math, place: TensorName, size: TensorName, last: TensorName
) -> tuple[TensorName, TensorName]:
    """Coordinates before and behind the image, mirrored at its edges."""
    twice, one = math.add("AddV2", size, size), math.number(1.0)
    turns = math.truncate(math.divide(place, twice))
    inside = math.add("Sub", place, math.add("Mul", twice, turns))
    minus_size, opposite = math.add("Neg", size), math.add("Neg", inside)
    below = math.select(
        math.add("Less", inside, minus_size),
        math.add("AddV2", inside, twice),
        math.add("Sub", opposite, one),
    )
    back = math.add("Sub", math.add("Sub", twice, inside), one)
    above = math.select(math.add("GreaterEqual", inside, size), back, inside)
    return below, above


def _wrapped(
    math: _Math, place: TensorName, size: TensorName, last: TensorName
) -> tuple[TensorName, TensorName]:
    """Coordinates before and behind the image, counted on from the other edge."""
    one = math.number(1.0)
    turns = math.truncate(math.divide(place, last))
    back = math.add("Sub", one, turns)
    below = math.add("AddV2", place, math.add("Mul", size, back))
    above = math.add("Sub", place, math.add("Mul", size, turns))
    return below, above


_OUTSIDE: dict[str, Callable[..., tuple[TensorName, TensorName]]] = {
    "REFLECT": _reflected,
    "WRAP": _wrapped,
}


class _Sampler:
    """Reads pixels of a batch of images, `(batch, height, width, channels)`."""

    def __init__(
        self, math: _Math, images: TensorName, dtype: tf.DType, fill: TensorName
    ) -> None:
        self._math, self._fill = math, fill
        shape = math.node("Shape", [images], T=dtype, out_type=tf.int32)
        batch, self._height, self._width, channels = math.parts(shape, 4, 0, tf.int32)
        self.sizes = {
            "x": math.cast(self._width, tf.int32, tf.float32),
            "y": math.cast(self._height, tf.int32, tf.float32),
        }
        rest = math.number(-1, tf.int32)
        flat = math.node("Pack", [rest, channels], T=tf.int32, N=2, axis=0)
        pixels = math.reshape(images, flat, dtype)
        self._pixels = math.cast(pixels, dtype, tf.float32)
        self._image = math.reshape(math.count_to(batch), [-1, 1, 1], tf.int32)

    def read(self, x: TensorName, y: TensorName) -> TensorName:
        """The pixels at whole coordinates; the fill value outside of the image."""
        math = self._math
        inside = None
        clipped = {}
        for axis, place in (("x", x), ("y", y)):
            zero, size = math.number(0.0), self.sizes[axis]
            last = math.add("Sub", size, math.number(1.0))
            for op, limit in (("GreaterEqual", zero), ("LessEqual", last)):
                test = math.add(op, place, limit)
                if inside is None:
                    inside = test
                else:
                    inside = math.node("LogicalAnd", [inside, test])
            kept = math.add("Minimum", math.add("Maximum", place, zero), last)
            clipped[axis] = math.cast(kept, tf.float32, tf.int32)
        row = math.add("Mul", self._image, self._height, dtype=tf.int32)
        row = math.add("AddV2", row, clipped["y"], dtype=tf.int32)
        index = math.add("Mul", row, self._width, dtype=tf.int32)
        index = math.add("AddV2", index, clipped["x"], dtype=tf.int32)
        types = {"Tparams": tf.float32, "Tindices": tf.int32, "Taxis": tf.int32}
        zero_axis = math.number(0, tf.int32)
        values = math.node("GatherV2", [self._pixels, index, zero_axis], **types)
        fill = math.broadcast_like(self._fill, values)
        where = math.last_axis(inside or x, tf.bool)
        return math.select(where, values, fill)

    def nearest(self, x: TensorName, y: TensorName) -> TensorName:
        """The pixel beside; halves are rounded away from zero."""
        math, half = self._math, self._math.number(0.5)
        whole = []
        for place in (x, y):
            size = math.add("AddV2", math.add("Abs", place), half)
            whole.append(
                math.add("Mul", math.add("Sign", place), math.add("Floor", size))
            )
        return self.read(*whole)

    def bilinear(self, x: TensorName, y: TensorName) -> TensorName:
        """The mean of four pixels, weighted by how near they are."""
        math, one = self._math, self._math.number(1.0)
        left, top = math.add("Floor", x), math.add("Floor", y)
        right, bottom = math.add("AddV2", left, one), math.add("AddV2", top, one)

        def between(
            a: TensorName,
            b: TensorName,
            low: TensorName,
            high: TensorName,
            place: TensorName,
        ) -> TensorName:
            near = math.last_axis(math.add("Sub", high, place))
            far = math.last_axis(math.add("Sub", place, low))
            return math.add("AddV2", math.add("Mul", near, a), math.add("Mul", far, b))

        rows = [
            between(self.read(left, row), self.read(right, row), left, right, x)
            for row in (top, bottom)
        ]
        return between(rows[0], rows[1], top, bottom, y)


REWRITES: dict[str, Rewrite] = {
    "ImageProjectiveTransformV3": rewrite_projective_transform
}
