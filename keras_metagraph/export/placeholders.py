"""Placeholders of the flat graph: inputs, labels and sample weights."""

from typing import Any

import tensorflow as tf

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
        names: The tensor's name; of a sparse one indices, values and shape.
        spec: Its spec.
    """
    info.dtype = tf.as_dtype(spec.dtype).as_datatype_enum
    info.tensor_shape.CopyFrom(tf.TensorShape(spec.shape).as_proto())
    if isinstance(spec, tf.SparseTensorSpec):
        info.coo_sparse.indices_tensor_name = names[0]
        info.coo_sparse.values_tensor_name = names[1]
        info.coo_sparse.dense_shape_tensor_name = names[2]
    else:
        info.name = names[0]


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
