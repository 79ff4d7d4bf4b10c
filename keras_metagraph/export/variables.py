"""Variables of a model as TensorFlow 1 resource variables, and the saver over them."""

import dataclasses
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import tensorflow as tf
from tensorflow.core.framework.variable_pb2 import VariableDef

from keras_metagraph.export.names import NamedVariable
from keras_metagraph.export.nodes import const_node, make_node
from keras_metagraph.graph.ir import Graph

_LARGEST_CONSTANT = 16
_LARGEST_INSPECTED = 1 << 16

FILENAME_TENSOR = "save/Const:0"
SAVE_TENSOR = "save/control_dependency:0"
RESTORE_OP = "save/restore_all"


@dataclasses.dataclass(frozen=True, slots=True)
class VariableNodes:
    """The nodes of one variable."""

    name: str
    role: str
    dtype: tf.DType
    definition: VariableDef

    @property
    def read(self) -> str:
        """Name of the node that reads it."""
        return f"{self.name}/Read/ReadVariableOp"

    @property
    def initializer(self) -> str:
        """Name of the node that gives it its initial value."""
        return f"{self.name}/Assign"


def add_variable(graph: Graph, variable: NamedVariable) -> VariableNodes:
    """Adds handle, initial value, initializer and read of a variable.

    Weights are no constants in the graph, whose size is limited: large variables start
    with zeros, or with the one value that all elements have.
    """
    name, held = variable.name, variable.variable
    dtype = tf.as_dtype(held.dtype)
    shape = tf.TensorShape(held.shape)
    graph.add(
        make_node(
            name,
            "VarHandleOp",
            container="",
            shared_name=name,
            dtype=dtype,
            shape=shape,
        )
    )
    initial = _add_initial_value(graph, name, dtype, shape, held)
    graph.add(
        make_node(f"{name}/Assign", "AssignVariableOp", [name, initial], dtype=dtype)
    )
    graph.add(
        make_node(f"{name}/Read/ReadVariableOp", "ReadVariableOp", [name], dtype=dtype)
    )
    definition = VariableDef(
        variable_name=f"{name}:0",
        initial_value_name=f"{initial}:0",
        initializer_name=f"{name}/Assign",
        snapshot_name=f"{name}/Read/ReadVariableOp:0",
        is_resource=True,
        trainable=variable.trainable,
    )
    return VariableNodes(name, variable.role, dtype, definition)


def _add_initial_value(
    graph: Graph, name: str, dtype: tf.DType, shape: tf.TensorShape, held: Any
) -> str:
    """Adds what the initializer assigns: a constant, or one value to fill with."""
    scope = f"{name}/Initializer"
    size = shape.num_elements() or 0
    value = np.asarray(held) if size <= _LARGEST_INSPECTED else None
    if value is not None and size <= _LARGEST_CONSTANT:
        node = graph.add(const_node(f"{scope}/initial_value", value, dtype))
        return node.name
    fill = "" if dtype == tf.string else 0
    if value is not None and (value == value.flat[0]).all():
        fill = value.flat[0]
    dims = graph.add(const_node(f"{scope}/shape", shape.as_list(), tf.int32))
    fill_node = graph.add(const_node(f"{scope}/value", fill, dtype))
    node = graph.add(
        make_node(
            f"{scope}/Fill",
            "Fill",
            [dims.name, fill_node.name],
            T=dtype,
            index_type=tf.int32,
        )
    )
    return node.name


def add_group(graph: Graph, name: str, members: Iterable[str]) -> str:
    """Adds a node that does nothing but wait for others."""
    graph.add(make_node(name, "NoOp", control=list(dict.fromkeys(members))))
    return name


def add_saver(
    graph: Graph, variables: Sequence[VariableNodes], also: Iterable[str] = ()
) -> Any:
    """Adds the nodes that `tf.train.Saver` would add.

    Args:
        graph: The graph, with the variables in it.
        variables: What is saved and restored, under its own names.
        also: Nodes to run with each restore: initializers of what is not saved.

    Returns:
        The `SaverDef` for them.
    """
    names = [variable.name for variable in variables]
    dtypes = [variable.dtype for variable in variables]
    graph.add(const_node("save/filename/input", "model"))
    for name, default in (
        ("save/filename", "save/filename/input"),
        ("save/Const", "save/filename"),
    ):
        graph.add(
            make_node(
                name,
                "PlaceholderWithDefault",
                [default],
                dtype=tf.string,
                shape=tf.TensorShape([]),
            )
        )
    for scope in ("save/SaveV2", "save/RestoreV2"):
        graph.add(const_node(f"{scope}/tensor_names", names, tf.string))
        graph.add(const_node(f"{scope}/shape_and_slices", [""] * len(names), tf.string))
    graph.add(
        make_node(
            "save/SaveV2",
            "SaveV2",
            [
                "save/Const",
                "save/SaveV2/tensor_names",
                "save/SaveV2/shape_and_slices",
                *(variable.read for variable in variables),
            ],
            dtypes=dtypes,
        )
    )
    graph.add(
        make_node(
            "save/control_dependency",
            "Identity",
            ["save/Const"],
            ["save/SaveV2"],
            T=tf.string,
        )
    )
    graph.add(
        make_node(
            "save/RestoreV2",
            "RestoreV2",
            [
                "save/Const",
                "save/RestoreV2/tensor_names",
                "save/RestoreV2/shape_and_slices",
            ],
            dtypes=dtypes,
        )
    )
    add_group(graph, RESTORE_OP, [*_add_restores(graph, variables), *also])
    return tf.compat.v1.train.SaverDef(
        filename_tensor_name=FILENAME_TENSOR,
        save_tensor_name=SAVE_TENSOR,
        restore_op_name=RESTORE_OP,
        max_to_keep=5,
        keep_checkpoint_every_n_hours=10000.0,
        version=tf.compat.v1.train.SaverDef.V2,
    )


def _add_restores(graph: Graph, variables: Sequence[VariableNodes]) -> list[str]:
    """Adds what assigns each restored tensor to its variable."""
    assigns = []
    for index, variable in enumerate(variables):
        suffix = f"_{index}" if index else ""
        identity = make_node(
            f"save/Identity{suffix}",
            "Identity",
            [f"save/RestoreV2:{index}"],
            T=variable.dtype,
        )
        assign = make_node(
            f"save/AssignVariableOp{suffix}",
            "AssignVariableOp",
            [variable.name, identity.name],
            dtype=variable.dtype,
        )
        graph.add(identity)
        graph.add(assign)
        assigns.append(assign.name)
    return assigns
