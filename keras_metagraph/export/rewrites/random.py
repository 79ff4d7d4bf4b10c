"""Stateless random numbers: the same bits from the seed that the key is made of.

TensorFlow 2 splits a seed into a key and a counter in an op of its own; up to 1.15 the
random ops do that inside.
"""

import tensorflow as tf

from keras_metagraph.export.rewrites.rewriter import Rewrite, Rewriter
from keras_metagraph.graph.ir import TensorName

_OLD_OPS = {
    "StatelessRandomNormalV2": "StatelessRandomNormal",
    "StatelessRandomUniformV2": "StatelessRandomUniform",
    "StatelessTruncatedNormalV2": "StatelessTruncatedNormal",
}
_PHILOX = (1, 3)  # and "auto", which is Philox on CPU and GPU


def rewrite_random(rewriter: Rewriter) -> str | None:
    """Draws from the seed instead of its key and counter."""
    seed = _seed(rewriter)
    if isinstance(seed, str):
        return seed
    tensor, dtype = seed
    rewriter.replace(
        _OLD_OPS[rewriter.node.op],
        [rewriter.input(0), tensor],
        dtype=rewriter.dtype("dtype", tf.float32),
        T=rewriter.dtype("Tshape", tf.int32),
        Tseed=dtype,
    )
    return None


def rewrite_random_integers(rewriter: Rewriter) -> str | None:
    """Draws integers of a range from the seed instead of its key and counter."""
    seed = _seed(rewriter)
    if isinstance(seed, str):
        return seed
    tensor, dtype = seed
    rewriter.replace(
        "StatelessRandomUniformInt",
        [rewriter.input(0), tensor, rewriter.input(4), rewriter.input(5)],
        dtype=rewriter.dtype("dtype"),
        T=rewriter.dtype("Tshape", tf.int32),
        Tseed=dtype,
    )
    return None


def _seed(rewriter: Rewriter) -> tuple[TensorName, tf.DType] | str:
    """The seed behind key and counter with its dtype, or why there is none."""
    key, counter = rewriter.producer(1), rewriter.producer(2)
    if key is None or key.op != "StatelessRandomGetKeyCounter" or counter is not key:
        return "its key and counter do not come from a seed"
    algorithm = rewriter.constant(3)
    if algorithm is None or int(algorithm) not in _PHILOX:
        return "it uses a random number algorithm that is not Philox"
    return key.inputs[0], tf.as_dtype(key.attrs["Tseed"].type)


REWRITES: dict[str, Rewrite] = {
    **dict.fromkeys(_OLD_OPS, rewrite_random),
    "StatelessRandomUniformIntV2": rewrite_random_integers,
}
