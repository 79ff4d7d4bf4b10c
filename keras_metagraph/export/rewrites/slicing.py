"""Slices at computed places, which newer Keras takes from the XLA ops."""

import tensorflow as tf

from keras_metagraph.export.rewrites.rewriter import Rewrite, Rewriter
from keras_metagraph.graph.ir import TensorName


def rewrite_dynamic_slice(rewriter: Rewriter) -> str | None:
    """Slices after moving the start so that the slice fits, as XLA does."""
    source, start, size = rewriter.node.inputs
    dtype, index = rewriter.dtype("T"), rewriter.dtype("Tindices")
    start = _fitting(rewriter, source, start, size)
    rewriter.replace("Slice", [source, start, size], T=dtype, Index=index)
    return None


def rewrite_dynamic_update_slice(rewriter: Rewriter) -> str | None:
    """Pads the update to the size of the whole and selects it where it is."""
    source, update, start = rewriter.node.inputs
    dtype, index = rewriter.dtype("T"), rewriter.dtype("Tindices")
    size = rewriter.add("size", "Shape", [update], T=dtype, out_type=index)
    start = _fitting(rewriter, source, start, size)
    whole = rewriter.add("whole", "Shape", [source], T=dtype, out_type=index)
    end = rewriter.add("end", "AddV2", [start, size], T=index)
    after = rewriter.add("after", "Sub", [whole, end], T=index)
    paddings = rewriter.add("paddings", "Pack", [start, after], T=index, N=2, axis=1)
    yes = rewriter.add_constant("yes", True, tf.bool)
    inside = rewriter.add("inside", "Fill", [size, yes], T=tf.bool, index_type=index)
    padded = [
        rewriter.add("padded", "Pad", [part, paddings], T=kind, Tpaddings=index)
        for part, kind in ((inside, tf.bool), (update, dtype))
    ]
    rewriter.replace("SelectV2", [*padded, source], T=dtype)
    return None


def _fitting(
    rewriter: Rewriter, source: TensorName, start: TensorName, size: TensorName
) -> TensorName:
    """The start, moved into the range in which a slice of that size fits."""
    dtype, index = rewriter.dtype("T"), rewriter.dtype("Tindices")
    whole = rewriter.add("source_shape", "Shape", [source], T=dtype, out_type=index)
    last = rewriter.add("last_start", "Sub", [whole, size], T=index)
    start = rewriter.add("not_after", "Minimum", [start, last], T=index)
    zero = rewriter.add_constant("first_start", 0, index)
    return rewriter.add("not_before", "Maximum", [start, zero], T=index)


REWRITES: dict[str, Rewrite] = {
    "XlaDynamicSlice": rewrite_dynamic_slice,
    "XlaDynamicUpdateSlice": rewrite_dynamic_update_slice,
}
