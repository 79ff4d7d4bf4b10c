"""`load_legacy_keras`: a Keras 3 model from an H5 file of Keras 1 or 2."""

import os
from collections.abc import Mapping
from typing import Any

from keras_metagraph.errors import FormatError
from keras_metagraph.formats.keras_h5 import KerasH5, read_keras_h5
from keras_metagraph.loading.legacy_keras.config import Objects
from keras_metagraph.loading.legacy_keras.keras1 import layout_of
from keras_metagraph.loading.legacy_keras.model import build_model
from keras_metagraph.loading.legacy_keras.training import compile_h5
from keras_metagraph.loading.legacy_keras.weights import (
    assign_leaves,
    distribute,
    pair_by_order,
)


def load_legacy_keras(
    filepath: str | os.PathLike[str],
    custom_objects: Mapping[str, Any] | None = None,
    *,
    compile: bool = True,
    safe_mode: bool = True,
) -> Any:
    """Loads a file of `model.save` of Keras 1 or 2, or of tf.keras, in HDF5.

    Args:
        filepath: The file.
        custom_objects: Classes and functions by the name that the file has for them;
            the functions of Lambda layers also by the name of the layer.
        compile: Whether to compile the model as it was, and to restore the optimizer.
        safe_mode: Whether to refuse Python code in the config.

    Returns:
        The model, with its weights; with its optimizer, if it was compiled.

    Raises:
        FormatError: If the file is damaged, has weights only, or has what Keras 3
            cannot compute.
        CheckpointError: If weights do not fit the config; lists all.
        CustomObjectError: If classes or functions are missing; lists all.
        UntrustedContentError: If Python code of the file is needed, or it links to
            other files.

    Example:
        >>> model = load_legacy_keras("model.h5")
    """
    content = read_keras_h5(filepath)
    _require_model(content)
    objects = Objects(
        custom_objects or {},
        safe_mode=safe_mode,
        release=content.release,
        is_tf_keras=content.is_tf_keras,
        layout=layout_of(content.model_config),
    )
    part = build_model(content.model_config or {}, objects)
    leaves = distribute(pair_by_order(part.parts, content), content)
    assign_leaves(leaves, content.path)
    if compile and content.training_config:
        compile_h5(part.layer, leaves, content, objects)
    return part.layer


def _require_model(content: KerasH5) -> None:
    if content.model_config is None:
        raise FormatError(
            f"{content.path!r} has weights, but no model: it is a file of "
            f"save_weights, of {len(content.weights)} layers.",
            fix="build the model in Keras 3, and load the weights with warm_start.",
        )
    if content.release >= (3,):
        raise FormatError(
            f"{content.path!r} was written by Keras {content.keras_version}.",
            fix="load it with keras.saving.load_model.",
        )
