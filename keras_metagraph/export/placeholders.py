"""Placeholders of the flat graph: inputs, labels and sample weights."""

from typing import Any

import tensorflow as tf
from tensorflow.core.protobuf import struct_pb2

from keras_metagraph.export.nodes import make_node
from keras_metagraph.export.specs import NamedSpec
from keras_metagraph.graph.ir import Graph, TensorName

_SPARSE_PARTS = ("indices", "values", "shape")


def add_placeholders(graph: Graph, structure: Any) -> None:
    """Adds a placeholder for each leaf; a sparse or ragged leaf has several."""
    for leaf in named_leaves(structure):
        for name, spec in _parts(leaf):
            if name not in graph.nodes:
                shape = tf.TensorShape(spec.shape)
                graph.add(make_node(name, "Placeholder", dtype=spec.dtype, shape=shape))


def placeholder_tensors(structure: Any) -> list[TensorName]:
    """The tensors to feed for a structure, as a trace takes them: flat, with parts."""
    return [
        TensorName(name) for leaf in named_leaves(structure) for name, _ in _parts(leaf)
    ]


def named_leaves(structure: Any) -> list[NamedSpec]:
    """The leaves of a structure that are not None."""
    return [leaf for leaf in tf.nest.flatten(structure) if leaf is not None]


def plain_specs(structure: Any) -> Any:
    """The structure with specs for leaves, as a trace takes it."""
    return tf.nest.map_structure(
        lambda leaf: None if leaf is None else leaf.spec, structure
    )


def fill_tensor_info(info: Any, names: list[str], spec: Any) -> None:
    """Describes a tensor in a signature.

    Args:
        info: The `TensorInfo` to fill.
        names: The tensor's name; of a sparse one indices, values and shape; of a
            ragged one its values and row splits.
        spec: Its spec.
    """
    if isinstance(spec, tf.RaggedTensorSpec):
        _fill_ragged(info, names, spec)
        return
    info.dtype = tf.as_dtype(spec.dtype).as_datatype_enum
    info.tensor_shape.CopyFrom(tf.TensorShape(spec.shape).as_proto())
    if isinstance(spec, tf.SparseTensorSpec):
        info.coo_sparse.indices_tensor_name = names[0]
        info.coo_sparse.values_tensor_name = names[1]
        info.coo_sparse.dense_shape_tensor_name = names[2]
    else:
        info.name = names[0]


def _fill_ragged(info: Any, names: list[str], spec: Any) -> None:
    """Describes a ragged tensor: its spec as TensorFlow writes it, and its parts."""
    described = info.composite_tensor.type_spec
    described.type_spec_class = struct_pb2.TypeSpecProto.RAGGED_TENSOR_SPEC
    described.type_spec_class_name = "RaggedTensorSpec"
    state = described.type_state.tuple_value.values
    state.add().tensor_shape_value.CopyFrom(tf.TensorShape(spec.shape).as_proto())
    state.add().tensor_dtype_value = tf.as_dtype(spec.dtype).as_datatype_enum
    state.add().int64_value = spec.ragged_rank
    state.add().tensor_dtype_value = spec.row_splits_dtype.as_datatype_enum
    parts = tf.nest.flatten(spec, expand_composites=True)
    for name, part in zip(names, parts, strict=True):
        fill_tensor_info(info.composite_tensor.components.add(), [name], part)


def _parts(leaf: NamedSpec) -> list[tuple[str, Any]]:
    """The placeholders of a leaf, by name."""
    if isinstance(leaf.spec, tf.TensorSpec):
        return [(leaf.name, leaf.spec)]
    specs = tf.nest.flatten(leaf.spec, expand_composites=True)
    if isinstance(leaf.spec, tf.SparseTensorSpec):
        names: tuple[str, ...] = _SPARSE_PARTS
    else:
        names = ("values", *(f"row_splits_{place}" for place in range(len(specs) - 1)))
    return [
        (f"{leaf.name}/{name}", spec) for name, spec in zip(names, specs, strict=True)
    ]
