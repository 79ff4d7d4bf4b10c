"""Images that an example holds as the bytes of a file."""

import dataclasses
from collections.abc import Callable
from typing import Any

import tensorflow as tf

_CHANNELS = (1, 3, 4)


@dataclasses.dataclass(frozen=True)
class EncodedImage:
    """A feature with an encoded image: the bytes of a PNG or JPEG file.

    Args:
        size: Height and width to resize to; None takes images as they are, which then
            must all have the size that the model takes.
        method: How to resize, as `tf.image.resize` takes it.
        default: The encoded image for an example that has none; None makes it an
            error.
        scale: What pixels, 0 to 255, are multiplied by: `1 / 255` for a model that
            takes 0 to 1.

    Shape:
        `(batch, height, width, channels)`, in the model's dtype.

    Example:
        ```python
        signature = kmg.classify_signature(
            model, examples={"image": EncodedImage(size=(224, 224))}
        )
        ```
    """

    size: tuple[int, int] | None = None
    method: str = "bilinear"
    default: bytes | None = None
    scale: float | None = None

    @property
    def feature(self) -> Any:
        """The feature of the example."""
        return tf.io.FixedLenFeature([], tf.string, self.default)

    @staticmethod
    def suits(spec: Any) -> bool:
        """Whether an input surely holds images: 8-bit, with channels."""
        shape = tf.TensorShape(spec.shape)
        return (
            isinstance(spec, tf.TensorSpec)
            and spec.dtype == tf.uint8
            and shape.rank == 4
            and shape[3] in _CHANNELS
        )

    def decoder(self, spec: Any) -> Callable[[Any], Any]:
        """From a vector of encoded images to a batch of the spec's dtype.

        Args:
            spec: What the model takes.

        Returns:
            A function on a string tensor.
        """
        frame = self._frame(spec)
        dtype, channels = frame.dtype, frame.shape[2] or 0

        def decode(content: Any) -> Any:
            # It reads JPEG too, in TensorFlow 1.15 as well.
            image = tf.io.decode_png(content, channels=channels)
            if self.size is not None:
                image = tf.image.resize(image, self.size, method=self.method)
            if self.scale is not None:
                image = tf.cast(image, tf.float32) * self.scale
            if image.dtype.is_floating and dtype.is_integer:
                image = tf.round(image)
            return tf.ensure_shape(tf.cast(image, dtype), frame.shape)

        return lambda contents: tf.map_fn(decode, contents, fn_output_signature=frame)

    def mistake(self, content: bytes, spec: Any) -> str | None:
        """How the bytes of a feature are not what a model takes, if so.

        Args:
            content: The bytes.
            spec: What the model takes.

        Returns:
            What is wrong, to go on after the feature's name.
        """
        try:
            found = tf.io.decode_png(content, channels=self._frame(spec).shape[2] or 0)
        except tf.errors.InvalidArgumentError:
            return "is no image of a kind that is read"
        expected = tf.TensorShape(self._frame(spec).shape)[:2]
        if self.size is None and not expected.is_compatible_with(found.shape[:2]):
            return f"is an image of the size {found.shape[:2]}, expected {expected}"
        return None

    def _frame(self, spec: Any) -> tf.TensorSpec:
        """Shape and dtype of one image of a batch."""
        shape = tf.TensorShape(spec.shape)
        channels = shape[3] if shape.rank == 4 else None
        return tf.TensorSpec([*(self.size or shape[1:3]), channels], spec.dtype)
