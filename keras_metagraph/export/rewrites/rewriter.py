"""What a rewrite works with: the node, and ways to add others beside it."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from keras_metagraph.export.nodes import attr, const_node, make_node
from keras_metagraph.graph.ir import Graph, Node, TensorName

_SHAPES = "_output_shapes"

Rewrite = Callable[["Rewriter"], str | None]
"""Rewrites one node in place; returns why it cannot, or None if it is done."""


class Rewriter:
    """One node to rewrite, in the graph or function that it lies in.

    Args:
        graph: Where the node is.
        node: The node; its outputs must mean the same afterwards.
    """

    def __init__(self, graph: Graph, node: Node) -> None:
        self.graph = graph
        self.node = node

    def input(self, index: int) -> TensorName:
        """An input of the node."""
        return self.node.inputs[index]

    def dtype(self, name: str, default: tf.DType | None = None) -> Any:
        """A dtype attribute of the node."""
        if name not in self.node.attrs:
            return default
        return tf.as_dtype(self.node.attrs[name].type)

    def producer(self, index: int) -> Node | None:
        """The node that makes an input; None for a function's argument."""
        return self.graph.nodes.get(self.input(index).node)

    def shape(self, index: int) -> list[int | None] | None:
        """The static shape of an input, as the trace knew it; None for any rank."""
        return _recorded_shape(self.producer(index), self.input(index).index)

    def output_shape(self) -> list[int | None] | None:
        """The static shape of the node's first output, as the trace knew it."""
        return _recorded_shape(self.node, 0)

    def constant(self, index: int) -> Any:
        """The value of an input that is a constant, else None."""
        node = self.producer(index)
        while node is not None and node.op == "Identity" and node.inputs:
            node = self.graph.nodes.get(node.inputs[0].node)
        if node is None or node.op != "Const":
            return None
        return tf.make_ndarray(node.attrs["value"].tensor)

    def add(
        self, suffix: str, op: str, inputs: Sequence[TensorName], **attrs: Any
    ) -> TensorName:
        """Adds a node beside the one that is rewritten; returns its first output."""
        name = self.graph.unique_name(f"{self.node.name}/{suffix}")
        control = list(self.node.control_inputs) if not inputs else []
        self.graph.add(make_node(name, op, inputs, control, **attrs))
        return TensorName(name)

    def add_constant(self, suffix: str, value: Any, dtype: tf.DType) -> TensorName:
        """Adds a constant beside the node."""
        name = self.graph.unique_name(f"{self.node.name}/{suffix}")
        self.graph.add(const_node(name, np.asarray(value), dtype))
        return TensorName(name)

    def cast(
        self, tensor: TensorName, source: tf.DType, target: tf.DType
    ) -> TensorName:
        """The tensor in another dtype."""
        if source == target:
            return tensor
        return self.add("Cast", "Cast", [tensor], SrcT=source, DstT=target)

    def replace(self, op: str, inputs: Sequence[TensorName], **attrs: Any) -> None:
        """Makes the node another op."""
        self.node.op = op
        self.node.inputs = list(inputs)
        self.node.attrs = {key: attr(value) for key, value in attrs.items()}


def _recorded_shape(node: Node | None, index: int) -> list[int | None] | None:
    """The shape of an output that a node's note or its op tells."""
    if node is None:
        return None
    shape = None
    if _SHAPES in node.attrs and index < len(node.attrs[_SHAPES].list.shape):
        shape = tf.TensorShape(node.attrs[_SHAPES].list.shape[index])
    elif node.op == "Placeholder":
        shape = tf.TensorShape(node.attrs["shape"].shape)
    return None if shape is None or shape.rank is None else list(shape.as_list())
