"""How newer ops are said in the words of TensorFlow 1.15, one op family a file."""

from keras_metagraph.export.rewrites.convolution import REWRITES as CONVOLUTION
from keras_metagraph.export.rewrites.counting import REWRITES as COUNTING
from keras_metagraph.export.rewrites.decoding import REWRITES as DECODING
from keras_metagraph.export.rewrites.images import REWRITES as IMAGES
from keras_metagraph.export.rewrites.math import REWRITES as MATH
from keras_metagraph.export.rewrites.matrix import REWRITES as MATRIX
from keras_metagraph.export.rewrites.parsing import REWRITES as PARSING
from keras_metagraph.export.rewrites.random import REWRITES as RANDOM
from keras_metagraph.export.rewrites.rewriter import Rewrite
from keras_metagraph.export.rewrites.slicing import REWRITES as SLICING

__all__ = ["REWRITES"]

REWRITES: dict[str, Rewrite] = {
    **CONVOLUTION,
    **COUNTING,
    **DECODING,
    **IMAGES,
    **MATH,
    **MATRIX,
    **PARSING,
    **RANDOM,
    **SLICING,
}
