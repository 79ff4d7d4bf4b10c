"""Variables of a model as TensorFlow 1 resource variables.

Weights are no constants in the graph, whose size is limited. So a weight's initial
value is not the one that it has, which is in the checkpoint, but one to start from: a
matrix has random numbers of the usual size, others the one value that all elements
have, or zeros.
"""

import dataclasses
import math
from typing import Any

import numpy as np
import tensorflow as tf
from tensorflow.core.framework.variable_pb2 import VariableDef

from keras_metagraph.export.names import NamedVariable
from keras_metagraph.export.nodes import const_node, make_node
from keras_metagraph.graph.ir import Graph, Node

_LARGEST_CONSTANT = 16
_LARGEST_INSPECTED = 1 << 16


@dataclasses.dataclass(frozen=True, slots=True)
class VariableNodes:
    """The nodes of one variable.

    Attributes:
        name: Name of its handle.
        role: Its role in the model (`NamedVariable.role`).
        dtype: Type of its value.
        trainable: Whether the model trains it.
        initial_value: Name of the node that makes its initial value.
    """

    name: str
    role: str
    dtype: tf.DType
    trainable: bool
    initial_value: str

    @property
    def read(self) -> str:
        """Name of the node that reads it."""
        return f"{self.name}/Read/ReadVariableOp"

    @property
    def key(self) -> str:
        """Its name in the checkpoint."""
        return self.name

    @property
    def slice_spec(self) -> str:
        """Empty: the checkpoint has all of it in one tensor."""
        return ""

    def assign_node(self, scope: str, suffix: str, value: str) -> Node:
        """A node that gives it a value."""
        name = f"{scope}/AssignVariableOp{suffix}"
        inputs = [self.name, value]
        return make_node(name, "AssignVariableOp", inputs, dtype=self.dtype)

    @property
    def initializer(self) -> str:
        """Name of the node that gives it its initial value."""
        return f"{self.name}/Assign"

    def definition(self) -> bytes:
        """The `VariableDef` for collections."""
        message = VariableDef(
            variable_name=f"{self.name}:0",
            initial_value_name=f"{self.initial_value}:0",
            initializer_name=self.initializer,
            snapshot_name=f"{self.read}:0",
            is_resource=True,
            trainable=self.trainable,
        )
        return bytes(message.SerializeToString(deterministic=True))


def add_variable(graph: Graph, variable: NamedVariable) -> VariableNodes:
    """Adds handle, initial value, initializer and read of a variable.

    Args:
        graph: The graph to add them to.
        variable: The variable.

    Returns:
        The names of its nodes.
    """
    name, held = variable.name, variable.variable
    dtype, shape = tf.as_dtype(held.dtype), tf.TensorShape(held.shape)
    handle = {"container": "", "shared_name": name, "dtype": dtype, "shape": shape}
    graph.add(make_node(name, "VarHandleOp", **handle))
    if variable.role == "weight" and dtype.is_floating and (shape.rank or 0) > 1:
        initial = _add_random(graph, name, dtype, shape)
    else:
        initial = _add_constant(graph, name, dtype, shape, _start_value(variable))
    graph.add(
        make_node(f"{name}/Assign", "AssignVariableOp", [name, initial], dtype=dtype)
    )
    graph.add(
        make_node(f"{name}/Read/ReadVariableOp", "ReadVariableOp", [name], dtype=dtype)
    )
    return VariableNodes(name, variable.role, dtype, variable.trainable, initial)


def _start_value(variable: NamedVariable) -> Any:
    """The value to start from: an array, or a number for all elements."""
    if variable.initial is not None:
        return variable.initial
    held = variable.variable
    dtype = tf.as_dtype(held.dtype)
    size = tf.TensorShape(held.shape).num_elements() or 0
    if dtype == tf.string:
        return ""
    counts = dtype.is_integer and variable.role == "optimizer"
    if variable.role == "metric" or counts or size > _LARGEST_INSPECTED or not size:
        return 0
    value = np.asarray(held)
    if size > _LARGEST_CONSTANT:
        return value.flat[0] if (value == value.flat[0]).all() else 0
    return value


def _add_constant(
    graph: Graph, name: str, dtype: tf.DType, shape: tf.TensorShape, value: Any
) -> str:
    """Adds a constant, or a tensor filled with a number."""
    scope = f"{name}/Initializer"
    if np.ndim(value) or not shape.rank:
        return graph.add(const_node(f"{scope}/initial_value", value, dtype)).name
    dims = graph.add(const_node(f"{scope}/shape", shape.as_list(), tf.int32)).name
    fill = graph.add(const_node(f"{scope}/value", value, dtype)).name
    types = {"T": dtype, "index_type": tf.int32}
    return graph.add(make_node(f"{scope}/Fill", "Fill", [dims, fill], **types)).name


def _add_random(graph: Graph, name: str, dtype: tf.DType, shape: tf.TensorShape) -> str:
    """Adds random numbers of the size that Glorot's initializer gives them."""
    scope = f"{name}/Initializer"
    *_, inputs, outputs = shape.as_list()
    kernel = (shape.num_elements() or 0) / max(inputs * outputs, 1)
    scale = math.sqrt(2.0 / max(kernel * (inputs + outputs), 1.0))
    dims = graph.add(const_node(f"{scope}/shape", shape.as_list(), tf.int32)).name
    drawn = make_node(
        f"{scope}/TruncatedNormal",
        "TruncatedNormal",
        [dims],
        dtype=dtype,
        T=tf.int32,
        seed=0,
        seed2=0,
    )
    factor = graph.add(const_node(f"{scope}/stddev", scale, dtype)).name
    product = make_node(f"{scope}/mul", "Mul", [graph.add(drawn).name, factor], T=dtype)
    return graph.add(product).name
