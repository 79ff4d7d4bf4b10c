"""The inputs and outputs of signatures: Python values to tensors of a graph, and back.

A `TensorInfo` names one tensor, the three of a sparse one, or the parts of a composite
one (TF `meta_graph.proto`).
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from keras_metagraph.errors import SignatureError
from keras_metagraph.graph.ir import Graph, TensorName
from keras_metagraph.graph.specs import tensor_spec
from keras_metagraph.signatures.arrays import fitted

_SPARSE, _RAGGED = 1, 3  # TypeSpecProto.TypeSpecClass (TF struct.proto)


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
        dtype = _dtype(info.dtype)
        shape = tf.TensorShape(info.tensor_shape)
        if self._kind == "dense" and known and (dtype is None or not _says(info)):
            try:
                found = tensor_spec(self._graph, known[0])
            except SignatureError:  # an operation, or of an op that nobody knows
                return tf.TensorSpec(None, dtype or tf.float32)
            return tf.TensorSpec(found.shape, dtype or found.dtype)
        if self._kind == "sparse":
            return tf.SparseTensorSpec(shape, dtype or tf.float32)
        if self._kind == "ragged":  # TensorFlow describes its components only
            parts = info.composite_tensor.components
            dtype = dtype or _dtype(parts[0].dtype) or tf.float32
            splits = _dtype(parts[-1].dtype) or tf.int64
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


def _dtype(number: int) -> tf.DType | None:
    """The dtype that a `TensorInfo` says, references as their base type."""
    try:
        return tf.as_dtype(number).base_dtype
    except TypeError:
        return None


def _says(info: Any) -> bool:
    """Whether a `TensorInfo` says anything of the shape."""
    return bool(info.HasField("tensor_shape"))
