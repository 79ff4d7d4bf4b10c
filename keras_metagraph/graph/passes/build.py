"""Makes attributes and nodes for passes."""

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from keras_metagraph.graph.ir import AttrValue, Graph, Node, TensorName

FLOAT = tf.float32.as_datatype_enum
INT32 = tf.int32.as_datatype_enum
STRING = tf.string.as_datatype_enum
RESOURCE = tf.resource.as_datatype_enum
VARIANT = tf.variant.as_datatype_enum
BOOL = tf.bool.as_datatype_enum


def type_attr(enum: int) -> AttrValue:
    """An attribute that is a `DataType`."""
    return tf.compat.v1.AttrValue(type=enum)


def types_attr(enums: Iterable[int]) -> AttrValue:
    """An attribute that is a list of `DataType`."""
    value = tf.compat.v1.AttrValue()
    value.list.type.extend(enums)
    return value


def string_attr(text: str) -> AttrValue:
    """An attribute that is a string."""
    return tf.compat.v1.AttrValue(s=text.encode())


def bool_attr(value: bool) -> AttrValue:
    """An attribute that is a truth value."""
    return tf.compat.v1.AttrValue(b=value)


def int_attr(value: int) -> AttrValue:
    """An attribute that is an integer."""
    return tf.compat.v1.AttrValue(i=value)


def ints_attr(values: Iterable[int]) -> AttrValue:
    """An attribute that is a list of integers."""
    attr = tf.compat.v1.AttrValue()
    attr.list.i.extend(values)
    return attr


def function_attr(name: str) -> AttrValue:
    """An attribute that names a function of the library."""
    value = tf.compat.v1.AttrValue()
    value.func.name = name
    return value


def shape_attr(dims: Sequence[int | None] | None) -> AttrValue:
    """An attribute that is a shape; None stands for an unknown rank or dimension."""
    return tf.compat.v1.AttrValue(shape=tf.TensorShape(dims).as_proto())


def shapes_attr(shapes: Iterable[Sequence[int | None] | None]) -> AttrValue:
    """An attribute that is a list of shapes."""
    value = tf.compat.v1.AttrValue()
    value.list.shape.extend(tf.TensorShape(dims).as_proto() for dims in shapes)
    return value


def const_node(name: str, value: Any, dtype: int, controls: Iterable[str] = ()) -> Node:
    """A `Const` node.

    Args:
        name: Its name.
        value: What `np.asarray` takes.
        dtype: The `DataType` enum.
        controls: Control inputs; `frame_controls` of the node that uses the constant.
    """
    numpy_type = tf.dtypes.as_dtype(dtype).as_numpy_dtype
    proto = tf.make_tensor_proto(np.asarray(value, numpy_type), dtype=dtype)
    return Node(
        name,
        "Const",
        control_inputs=list(controls),
        attrs={
            "dtype": type_attr(dtype),
            "value": tf.compat.v1.AttrValue(tensor=proto),
        },
    )


def frame_controls(node: Node) -> list[str]:
    """Control inputs that keep a new node in the while frame and branch of `node`."""
    return list(node.control_inputs) or [tensor.node for tensor in node.inputs[:1]]


def dtype_of(node: Node, attr: str, default: int = 0) -> int:
    """The `DataType` enum that an attribute holds, references as their base type."""
    if attr not in node.attrs:
        return default
    enum = int(node.attrs[attr].type)
    return enum - 100 if enum > 100 else enum


class Rewriter:
    """Copies a graph while nodes are replaced, added and dropped.

    New nodes stand before the node that they were made for, so that a file keeps its
    order.

    Args:
        graph: The graph to start from; it stays as it is.
    """

    def __init__(self, graph: Graph) -> None:
        self.source = graph
        self.nodes: dict[str, Node] = dict(graph.nodes)
        self.functions = dict(graph.functions)
        self.modified = False

    def add(self, node: Node) -> TensorName:
        """Adds a node under a free name near its own; returns its first output."""
        node.name = self.unique_name(node.name)
        self.nodes[node.name] = node
        self.modified = True
        return TensorName(node.name)

    def replace(self, node: Node) -> None:
        """Puts `node` in the place of the one that has its name."""
        self.nodes[node.name] = node
        self.modified = True

    def unique_name(self, name: str) -> str:
        """`name`, or `name_1`, `name_2` ... if it is taken."""
        candidate, count = name, 0
        while candidate in self.nodes:
            count += 1
            candidate = f"{name}_{count}"
        return candidate

    def graph(self) -> Graph:
        """The graph with all changes; the source itself where there are none."""
        if not self.modified:
            return self.source
        return Graph(self.nodes, self.functions, self.source.producer)
