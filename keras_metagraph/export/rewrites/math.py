"""Ops that 1.15 has under another name or in another scale."""

import tensorflow as tf

from keras_metagraph.export.rewrites.rewriter import Rewrite, Rewriter


def rewrite_bessel(rewriter: Rewriter) -> str | None:
    """Takes the exponentially scaled Bessel function and undoes the scale."""
    dtype, argument = rewriter.dtype("T"), rewriter.input(0)
    scaled = rewriter.add("scaled", f"{rewriter.node.op}e", [argument], T=dtype)
    size = rewriter.add("size", "Abs", [argument], T=dtype)
    scale = rewriter.add("scale", "Exp", [size], T=dtype)
    rewriter.replace("Mul", [scaled, scale], T=dtype)
    return None


def rewrite_batch_matmul(rewriter: Rewriter) -> str | None:
    """Multiplies in the type of the result, where 1.15 has no mixed types."""
    left, right = rewriter.node.inputs
    result = rewriter.dtype("Tout")
    attrs = rewriter.node.attrs
    rewriter.replace(
        "BatchMatMulV2",
        [
            rewriter.cast(left, rewriter.dtype("Ta"), result),
            rewriter.cast(right, rewriter.dtype("Tb"), result),
        ],
        T=result,
        adj_x="adj_x" in attrs and bool(attrs["adj_x"].b),
        adj_y="adj_y" in attrs and bool(attrs["adj_y"].b),
    )
    return None


def rewrite_case(rewriter: Rewriter) -> str | None:
    """Chooses a branch; 1.15 makes no difference for branches without state."""
    rewriter.node.op = "Case"
    return None


def rewrite_top_k(rewriter: Rewriter) -> str | None:
    """Refuses what only newer releases return."""
    if rewriter.dtype("index_type", tf.int32) != tf.int32:
        return "it returns places as 64-bit integers"
    rewriter.node.attrs.pop("index_type", None)
    if rewriter.dtype("Tk", tf.int32) != tf.int32:
        rewriter.node.inputs[1] = rewriter.cast(
            rewriter.input(1), rewriter.dtype("Tk"), tf.int32
        )
    rewriter.node.attrs.pop("Tk", None)
    return None


REWRITES: dict[str, Rewrite] = {
    "BatchMatMulV3": rewrite_batch_matmul,
    "BesselI0": rewrite_bessel,
    "BesselI1": rewrite_bessel,
    "StatelessCase": rewrite_case,
    "TopKV2": rewrite_top_k,
}
