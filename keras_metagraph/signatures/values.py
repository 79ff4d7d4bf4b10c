"""Turns what a caller passes into the tensors that a signature takes."""

from collections.abc import Mapping, Sequence
from typing import Any

import tensorflow as tf

from keras_metagraph.errors import SignatureError, nearest
from keras_metagraph.signatures.arrays import fitted


def bind_values(
    name: str,
    specs: Mapping[str, Any],
    values: Sequence[Any],
    keyed: Mapping[str, Any],
) -> dict[str, Any]:
    """Finds the tensor for every input of a signature.

    Args:
        name: What errors call the signature.
        specs: Specs of its inputs by key.
        values: What was passed by position, or one mapping of all inputs.
        keyed: What was passed by key.

    Returns:
        Tensors by input key, in the order of the specs.

    Raises:
        SignatureError: If inputs are missing, unknown, given twice, or do not fit;
            lists all of it.
    """
    findings: list[str] = []
    whole = values[0] if len(values) == 1 and not keyed else None
    if isinstance(whole, Mapping):
        values, keyed = (), whole
    if len(values) > len(specs):
        findings.append(f"{len(values)} inputs were passed, expected {len(specs)}")
    by_place = dict(zip(specs, values, strict=False))
    findings += [f"input {key!r} was passed twice" for key in by_place if key in keyed]
    findings += [
        f"there is no input {key!r}{nearest(str(key), specs)}"
        for key in keyed
        if key not in specs
    ]
    given = {**keyed, **by_place}
    tensors = {}
    for key, spec in specs.items():
        if key not in given:
            findings.append(f"input {key!r} is missing: {_shown(spec)}")
            continue
        try:
            tensors[key] = as_tensor(given[key], spec)
        except (TypeError, ValueError, tf.errors.OpError) as error:
            findings.append(f"input {key!r} {error}")
    if findings:
        raise SignatureError(
            f"The signature {name!r} was called with what it does not take.",
            findings=findings,
            fix="it takes "
            + ", ".join(f"{key!r}: {_shown(spec)}" for key, spec in specs.items()),
        )
    return tensors


def as_tensor(value: Any, spec: Any) -> Any:
    """A value as the tensor that a spec asks for.

    Numbers are converted where nothing but precision is lost: integers become floats,
    64-bit floats 32-bit ones. Tensors must have the dtype.

    Args:
        value: An array, tensor, list or number; nested lists for a ragged tensor; a
            dense value for a sparse one.
        spec: A `tf.TensorSpec`, `tf.SparseTensorSpec` or `tf.RaggedTensorSpec`.

    Returns:
        A tensor, sparse or ragged where the spec is.

    Raises:
        TypeError: If it is another kind of tensor, or not of strings.
        ValueError: If dtype or shape are others. The texts go on after the input's
            name.
    """
    dtype = tf.as_dtype(spec.dtype)
    if isinstance(spec, tf.RaggedTensorSpec) and not tf.is_tensor(value):
        value = tf.ragged.constant(
            value,
            dtype,
            ragged_rank=spec.ragged_rank,
            row_splits_dtype=spec.row_splits_dtype,
        )
    elif not tf.is_tensor(value):
        array = fitted(value, tf.TensorSpec(None, dtype))
        value = tf.convert_to_tensor(array, dtype)
    if isinstance(spec, tf.SparseTensorSpec) and isinstance(value, tf.Tensor):
        value = tf.sparse.from_dense(value)
    if not isinstance(value, spec.value_type):
        kind = "Tensor" if isinstance(value, tf.Tensor) else type(value).__name__
        raise TypeError(f"is a {kind}, expected {_shown(spec)}")
    if value.dtype != dtype:
        raise ValueError(f"has the dtype {value.dtype.name}, expected {dtype.name}")
    if not spec.shape.is_compatible_with(value.shape):
        raise ValueError(
            f"has the shape {_dims(value.shape)}, expected {_dims(spec.shape)}"
        )
    return value


def _shown(spec: Any) -> str:
    kind = type(spec).__name__.removesuffix("Spec")
    prefix = "" if isinstance(spec, tf.TensorSpec) else f"{kind} "
    return f"{prefix}{tf.as_dtype(spec.dtype).name} {_dims(spec.shape)}"


def _dims(shape: Any) -> str:
    dims = tf.TensorShape(shape)
    if dims.rank is None:
        return "of any shape"
    return f"[{', '.join('None' if d is None else str(d) for d in dims.as_list())}]"
