"""Decoding of images whose format the bytes tell."""

import tensorflow as tf

from keras_metagraph.export.rewrites.rewriter import Rewrite, Rewriter


def rewrite_decode_image(rewriter: Rewriter) -> str | None:
    """Takes `DecodePng`, which decodes JPEG and still GIF images too.

    TensorFlow 1.15's kernel of it looks at the bytes
    (`core/kernels/decode_image_op.cc`); it has no BMP.
    """
    attrs = rewriter.node.attrs
    dtype = rewriter.dtype("dtype", tf.uint8)
    if dtype != tf.uint8:
        return f"it gives {dtype.name}: decode to uint8, and convert that"
    if "expand_animations" not in attrs or attrs["expand_animations"].b:
        return "it expands animations: pass expand_animations=False"
    channels = attrs["channels"].i if "channels" in attrs else 0
    image = rewriter.node.inputs[0]
    rewriter.replace("DecodePng", [image], channels=channels, dtype=dtype)
    return None


REWRITES: dict[str, Rewrite] = {"DecodeImage": rewrite_decode_image}
