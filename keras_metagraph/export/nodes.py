"""Makes single nodes of a graph from plain Python values."""

from collections.abc import Sequence
from typing import Any

import tensorflow as tf

from keras_metagraph.graph.ir import AttrValue, Node, TensorName


def attr(value: Any) -> AttrValue:
    """An attribute: a dtype, shape, number, text, tensor; dtypes or texts in a list.

    Example:
        >>> attr(tf.float32).type
        1
    """
    result = tf.compat.v1.AttrValue()
    if isinstance(value, tf.DType):
        result.type = value.as_datatype_enum
    elif isinstance(value, tf.TensorShape):
        result.shape.CopyFrom(value.as_proto())
    elif isinstance(value, bool):
        result.b = value
    elif isinstance(value, int):
        result.i = value
    elif isinstance(value, float):
        result.f = value
    elif isinstance(value, str):
        result.s = value.encode("utf-8")
    elif isinstance(value, list) and all(isinstance(each, str) for each in value):
        result.list.s.extend(each.encode("utf-8") for each in value)
    elif isinstance(value, list):
        result.list.type.extend(dtype.as_datatype_enum for dtype in value)
    else:
        result.tensor.CopyFrom(value)
    return result


def make_node(
    name: str,
    op: str,
    inputs: Sequence[TensorName | str] = (),
    control: Sequence[str] = (),
    **attrs: Any,
) -> Node:
    """A node; inputs may be texts such as `"x"` or `"split:1"`."""
    return Node(
        name,
        op,
        [TensorName.parse(i) if isinstance(i, str) else i for i in inputs],
        list(control),
        {key: attr(value) for key, value in attrs.items()},
    )


def const_node(name: str, value: Any, dtype: tf.DType | None = None) -> Node:
    """A constant; texts become a string tensor."""
    proto = tf.make_tensor_proto(value, dtype=dtype)
    return make_node(name, "Const", dtype=tf.as_dtype(proto.dtype), value=proto)


def dtype_attr(node: Node, name: str) -> tf.DType:
    """A dtype attribute of a node."""
    return tf.as_dtype(node.attrs[name].type)
