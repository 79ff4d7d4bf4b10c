"""Builds models that create their variables when they are called."""

from typing import Any

import keras
import tensorflow as tf

from keras_metagraph.errors import MetaGraphError


def build_by_call(model: Any, *arguments: Any, **keywords: Any) -> None:
    """Calls a model, on nothing if that can be, so that it has its variables.

    Args:
        model: The model.
        *arguments: What its call takes by position: structures of objects with a
            shape and a dtype.
        **keywords: The same by name.

    Raises:
        MetaGraphError: If the call on zeros raises one.
        Exception: What the call raised, if neither symbols nor zeros do.
    """

    def call(make: Any) -> None:
        taken, named = keras.tree.map_structure(make, (arguments, keywords))
        model(*taken, **named)

    try:
        # As tracing would do it: nothing is computed, and no random seed advances.
        call(_symbol)
    except Exception as error:  # A call that only works on values says so in any way.
        try:
            call(_zeros)
        except MetaGraphError:
            raise
        except Exception:
            raise error from None


def _symbol(spec: Any) -> Any:
    return keras.Input(batch_shape=tuple(spec.shape), dtype=spec.dtype)


def _zeros(spec: Any) -> Any:
    """Zeros, of texts empty ones; one of what the shape leaves open."""
    return tf.zeros([1 if size is None else size for size in spec.shape], spec.dtype)
