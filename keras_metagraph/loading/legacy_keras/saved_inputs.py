"""What a subclassed model of a Keras 2 SavedModel was called with."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import tensorflow as tf

from keras_metagraph.loading.legacy_keras.saved_objects import SavedObjects

_SIGNATURE = "serving_default"


@dataclasses.dataclass(frozen=True, slots=True)
class TensorKind:
    """Shape and type of an input."""

    shape: tuple[int | None, ...]
    dtype: str


def input_specs(saved: SavedObjects) -> tuple[list[Any], dict[str, Any]]:
    """Finds the inputs of a model that has none of its own until it is called.

    Args:
        saved: The SavedModel.

    Returns:
        The positional arguments of a call and those by name, in nested structures with
        a `TensorKind` for each tensor. Releases before TensorFlow 2.4 did not note
        them: there the signature says it.
    """
    metadata = saved.root.metadata
    full = _decode(metadata.get("full_save_spec"))
    if isinstance(full, tuple) and len(full) == 2:
        arguments, keywords = full
        named = {key: value for key, value in keywords.items() if _has_kind(value)}
        return [value for value in arguments if _has_kind(value)], named
    first = _decode(metadata.get("save_spec"))
    if first is None or not _has_kind(first):
        first = _of_signature(saved.meta_graph_def)
    return [first], {}


def _decode(value: Any) -> Any:
    """Puts a `TensorKind` in the place of each `TypeSpec`."""
    if isinstance(value, Mapping):
        if value.get("class_name") == "TypeSpec":
            return _kind(value.get("serialized"))
        return {key: _decode(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(_decode(item) for item in value)
    return value


def _kind(serialized: Any) -> TensorKind | None:
    """A `tf.TensorSpec`; None of other kinds, such as ragged tensors."""
    if not isinstance(serialized, list | tuple) or len(serialized) < 2:
        return None
    shape, dtype = serialized[:2]
    if not isinstance(shape, tuple) or not isinstance(dtype, str):
        return None
    return TensorKind(shape, dtype)


def _has_kind(value: Any) -> bool:
    """Whether there is a tensor in a structure."""
    if isinstance(value, Mapping):
        return any(_has_kind(item) for item in value.values())
    if isinstance(value, list | tuple):
        return any(_has_kind(item) for item in value)
    return isinstance(value, TensorKind)


def _of_signature(meta_graph_def: Any) -> Any:
    """The input of the signature that serves; a list where it has several."""
    infos = meta_graph_def.signature_def[_SIGNATURE].inputs
    kinds = [
        TensorKind(
            tuple(None if d.size < 0 else d.size for d in info.tensor_shape.dim)
            or (None,),
            tf.dtypes.as_dtype(info.dtype).name,
        )
        for _, info in sorted(infos.items())
    ]
    return kinds[0] if len(kinds) == 1 else kinds
