"""The inputs and outputs of signatures: Python values to tensors of a graph, and back.

A `TensorInfo` names one tensor, the three of a sparse one, or the parts of a composite
one (TF `meta_graph.proto`).
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from keras_metagraph.graph.ir import Graph, TensorName
from keras_metagraph.graph.specs import tensor_spec

_SPARSE, _RAGGED = 1, 3  # TypeSpecProto.TypeSpecClass (TF struct.proto)
_TEXT = (str, bytes, np.str_, np.bytes_)


class SignatureTensor:
    """One input or output of a signature.

    Args:
        key: Its key.
        info: Its `TensorInfo`.
        graph: The graph, repaired.

    Attributes:
        key: Its key.
        names: The tensors of the graph that it stands for: one, or several for a sparse
            or ragged one.
        spec: Its dtype and shape.
    """

    def __init__(self, key: str, info: Any, graph: Graph) -> None:
        self.key = key
        self._graph = graph
        self._kind, self.names = _components(info)
        self.spec: tf.TypeSpec = self._spec(info)

    @property
    def optional(self) -> bool:
        """Whether the graph has a default for it."""
        nodes = [self._graph.nodes.get(TensorName.parse(n).node) for n in self.names]
        return all(n is not None and n.op == "PlaceholderWithDefault" for n in nodes)

    def feeds(self, value: Any) -> tuple[dict[str, Any], str]:
        """What is fed for a value.

        Args:
            value: What the caller gave.

        Returns:
            Arrays by tensor name; and how the value does not fit, if so.
        """
        try:
            parts = zip(self.names, self._parts(value), strict=True)
            return {n: fitted(part, self._tensor_spec(n)) for n, part in parts}, ""
        except (ValueError, TypeError) as error:
            return {}, str(error)

    def value(self, arrays: Sequence[Any]) -> Any:
        """What the caller gets for the arrays of an output."""
        if self._kind == "sparse":
            return tf.compat.v1.SparseTensorValue(*arrays)
        if self._kind == "ragged":
            result = arrays[0]
            for splits in reversed(arrays[1:]):
                result = tf.compat.v1.ragged.RaggedTensorValue(result, splits)
            return result
        return arrays[0] if self._kind == "dense" else list(arrays)

    def __str__(self) -> str:
        shape = getattr(self.spec, "shape", None)
        dims = "" if shape is None or shape.rank is None else f"{shape.as_list()}"
        kind = "" if self._kind == "dense" else f"{self._kind} "
        dtype = getattr(self.spec, "dtype", None)
        return f"{self.key}: {kind}{dtype.name if dtype else ''}{dims}"

    def _tensor_spec(self, name: str) -> tf.TensorSpec:
        """What the graph itself takes; where it leaves the rank open, the file's."""
        spec = tensor_spec(self._graph, name)
        if spec.shape.rank is None and self._kind == "dense":
            return tf.TensorSpec(self.spec.shape, spec.dtype)
        return spec

    def _spec(self, info: Any) -> tf.TypeSpec:
        known = [n for n in self.names if TensorName.parse(n).node in self._graph.nodes]
        dtype = tf.as_dtype(info.dtype) if info.dtype else None
        if self._kind == "dense" and known and (dtype is None or not _says(info)):
            found = tensor_spec(self._graph, known[0])
            return tf.TensorSpec(found.shape, dtype or found.dtype)
        shape = tf.TensorShape(info.tensor_shape)
        if self._kind == "sparse":
            return tf.SparseTensorSpec(shape, dtype)
        if self._kind == "ragged":  # TensorFlow describes its components only
            parts = info.composite_tensor.components
            dtype = dtype or tf.as_dtype(parts[0].dtype)
            splits = tf.as_dtype(parts[-1].dtype)
            shape = shape if _says(info) else tf.TensorShape(None)
            return tf.RaggedTensorSpec(shape, dtype, len(self.names) - 1, splits)
        return tf.TensorSpec(shape, dtype or tf.float32)

    def _parts(self, value: Any) -> list[Any]:
        """The components of a value."""
        if self._kind == "dense":
            return [value]
        if self._kind == "sparse":
            return _sparse_parts(value)
        if self._kind == "ragged":
            rank = len(self.names) - 1
            if not isinstance(value, tf.RaggedTensor):
                value = tf.ragged.constant(value, self.spec.dtype, ragged_rank=rank)
            return [value.flat_values, *value.nested_row_splits]
        parts = list(value) if isinstance(value, list | tuple) else [value]
        if len(parts) != len(self.names):
            raise ValueError(f"has {len(parts)} parts, expected {len(self.names)}")
        return parts


def fitted(value: Any, spec: tf.TensorSpec) -> Any:
    """An array of the dtype and shape that a tensor takes.

    Args:
        value: An array, a tensor, nested lists, a number or a string.
        spec: The dtype and shape; open dimensions take any size.

    Returns:
        A NumPy array; strings as objects.

    Raises:
        ValueError: If the value cannot become one without a loss.
    """
    array = _array(value, spec.dtype)
    rank = spec.shape.rank
    if array.shape == (0,) and rank is not None:  # an empty list has no more to say
        array = array.reshape([size or 0 for size in spec.shape])
    if not spec.shape.is_compatible_with(array.shape):
        raise ValueError(
            f"has the shape {list(array.shape)}, expected {spec.shape.as_list()}"
        )
    return array


def _array(value: Any, dtype: tf.DType) -> Any:
    typed = hasattr(value, "dtype")
    # NumPy would make strings of all that stands beside a string.
    wanted = object if dtype == tf.string and not typed else None
    try:
        array = np.asarray(value.numpy() if tf.is_tensor(value) else value, wanted)
    except (ValueError, TypeError, AttributeError) as error:
        raise ValueError(f"is no array: {error}") from None
    if array.size == 0 and not typed:
        return np.zeros(array.shape, _numpy_type(dtype))
    if dtype == tf.string:
        return _strings(array)
    if array.dtype == object:
        array = _of_objects(array)
    if array.dtype.kind in "SU":
        raise ValueError(f"holds strings, expected {dtype.name}")
    source, target = tf.as_dtype(array.dtype), dtype
    if source != target and not _is_lossless(array, source, target):
        raise ValueError(f"has the dtype {source.name}, expected {target.name}")
    return array.astype(_numpy_type(dtype))


def _numpy_type(dtype: tf.DType) -> Any:
    return object if dtype == tf.string else dtype.as_numpy_dtype


def _strings(array: Any) -> Any:
    if array.dtype.kind in "SU":
        return array.astype(object)
    wrong = [x for x in array.ravel().tolist() if not isinstance(x, _TEXT)]
    if array.dtype != object or wrong:
        kind = type(wrong[0]).__name__ if array.dtype == object else array.dtype.name
        raise ValueError(f"holds {kind}, expected strings")
    return array


def _of_objects(array: Any) -> Any:
    """An array of Python objects as one of numbers, or of strings."""
    try:
        return np.array(array.tolist())
    except ValueError as error:
        raise ValueError(f"is no array: {error}") from None


def _is_lossless(array: Any, source: tf.DType, target: tf.DType) -> bool:
    """Whether a cast keeps the values; floats lose precision only."""
    if target == tf.bool or source == tf.string:
        return False
    if target.is_integer and source.is_integer:
        low, high = (array.min(), array.max()) if array.size else (0, 0)
        return bool(target.min <= low and high <= target.max)
    if target.is_floating or target.is_complex:
        return bool(target.is_complex or not source.is_complex)
    return bool(source == tf.bool and target.is_integer)


def _sparse_parts(value: Any) -> list[Any]:
    """Indices, values and dense shape."""
    if hasattr(value, "tocoo"):  # a matrix of SciPy
        matrix = value.tocoo()
        indices = np.stack([matrix.row, matrix.col], -1).astype(np.int64)
        return [indices, matrix.data, np.array(matrix.shape, np.int64)]
    if isinstance(value, tf.SparseTensor | tf.compat.v1.SparseTensorValue):
        return [value.indices, value.values, value.dense_shape]
    if isinstance(value, list | tuple) and len(value) == 3:
        return list(value)
    raise ValueError(
        f"is a {type(value).__name__}, expected a tf.SparseTensor, a SciPy matrix, or "
        "(indices, values, dense_shape)"
    )


def _components(info: Any) -> tuple[str, list[str]]:
    """What a `TensorInfo` describes, and the tensors that it names."""
    kind = info.WhichOneof("encoding")
    if kind == "coo_sparse":
        parts = info.coo_sparse
        return "sparse", [
            parts.indices_tensor_name,
            parts.values_tensor_name,
            parts.dense_shape_tensor_name,
        ]
    if kind != "composite_tensor":
        return "dense", [info.name]
    names = [part.name for part in info.composite_tensor.components]
    classes = {_SPARSE: "sparse", _RAGGED: "ragged"}
    given = info.composite_tensor.type_spec.type_spec_class
    return classes.get(given, "composite"), names


def _says(info: Any) -> bool:
    """Whether a `TensorInfo` says anything of the shape."""
    return bool(info.HasField("tensor_shape"))
