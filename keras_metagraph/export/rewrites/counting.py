"""Counts of integers, by one-hot rows that are summed."""

import tensorflow as tf

from keras_metagraph.export.rewrites.rewriter import Rewrite, Rewriter
from keras_metagraph.graph.ir import TensorName


def rewrite_dense_bincount(rewriter: Rewriter) -> str | None:
    """Counts the integers of each row of a vector or matrix."""
    values, size = rewriter.input(0), rewriter.input(1)
    rows = _weighted_rows(rewriter, values, size, weights=2)
    axis = rewriter.add_constant("axis", -2, tf.int32)
    _finish(rewriter, "Sum", [rows, axis], keep_dims=False, Tidx=tf.int32)
    return None


def rewrite_ragged_bincount(rewriter: Rewriter) -> str | None:
    """Counts the integers of each row of a ragged matrix."""
    splits, values, size = (rewriter.input(place) for place in range(3))
    rows = _weighted_rows(rewriter, values, size, weights=3)
    row_of_value, row_count = _rows_of_values(rewriter, splits, values)
    _finish(
        rewriter,
        "UnsortedSegmentSum",
        [rows, row_of_value, row_count],
        Tindices=tf.int32,
        Tnumsegments=tf.int32,
    )
    return None


def _weighted_rows(
    rewriter: Rewriter, values: TensorName, size: TensorName, weights: int
) -> TensorName:
    """One-hot rows of the values, times the weights if there are any."""
    index, dtype = rewriter.dtype("Tidx"), rewriter.dtype("T")
    rows = rewriter.add(
        "OneHot",
        "OneHot",
        [
            values,
            rewriter.cast(size, index, tf.int32),
            rewriter.add_constant("on_value", 1, dtype),
            rewriter.add_constant("off_value", 0, dtype),
        ],
        T=dtype,
        TI=index,
        axis=-1,
    )
    given = rewriter.constant(weights)
    if _binary(rewriter) or (given is not None and not given.size):
        return rows
    last = rewriter.add_constant("last_axis", -1, tf.int32)
    factors = rewriter.add(
        "ExpandDims", "ExpandDims", [rewriter.input(weights), last], T=dtype
    )
    return rewriter.add("Mul", "Mul", [rows, factors], T=dtype)


def _rows_of_values(
    rewriter: Rewriter, splits: TensorName, values: TensorName
) -> tuple[TensorName, TensorName]:
    """The row that each value of a ragged matrix lies in, and how many rows it has."""
    index = rewriter.dtype("Tidx")
    zero = rewriter.add_constant("zero", 0, tf.int32)
    one = rewriter.add_constant("one", 1, tf.int32)
    short = rewriter.cast(splits, tf.int64, tf.int32)
    size = {"out_type": tf.int32}
    count = rewriter.add("values_size", "Size", [values], T=index, **size)
    ends = rewriter.add("splits_size", "Size", [short], T=tf.int32, **size)
    places = rewriter.add("places", "Range", [zero, count, one], Tidx=tf.int32)
    lifted = [
        rewriter.add("lifted", "ExpandDims", [tensor, zero], T=tf.int32, Tdim=tf.int32)
        for tensor in (short, places)
    ]
    bounds = rewriter.add("bounds", "UpperBound", lifted, T=tf.int32, out_type=tf.int32)
    minus_one = rewriter.add_constant("minus_one", [-1], tf.int32)
    flat = rewriter.add(
        "flat", "Reshape", [bounds, minus_one], T=tf.int32, Tshape=tf.int32
    )
    rows = rewriter.add("rows", "Sub", [flat, one], T=tf.int32)
    return rows, rewriter.add("row_count", "Sub", [ends, one], T=tf.int32)


def _finish(
    rewriter: Rewriter, op: str, inputs: list[TensorName], **attrs: object
) -> None:
    """Makes the node the sum, or whether the sum is more than zero."""
    dtype = rewriter.dtype("T")
    if not _binary(rewriter):
        rewriter.replace(op, inputs, T=dtype, **attrs)
        return
    total = rewriter.add("total", op, inputs, T=dtype, **attrs)
    zero = rewriter.add_constant("none", 0, dtype)
    found = rewriter.add("found", "Greater", [total, zero], T=dtype)
    rewriter.replace("Cast", [found], SrcT=tf.bool, DstT=dtype)


def _binary(rewriter: Rewriter) -> bool:
    attrs = rewriter.node.attrs
    return "binary_output" in attrs and bool(attrs["binary_output"].b)


REWRITES: dict[str, Rewrite] = {
    "DenseBincount": rewrite_dense_bincount,
    "RaggedBincount": rewrite_ragged_bincount,
}
