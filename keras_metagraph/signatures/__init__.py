"""Signatures: endpoints of a model, as servers call them."""

from keras_metagraph.signatures.images import EncodedImage
from keras_metagraph.signatures.signature import Signature

__all__ = ["EncodedImage", "Signature"]
