"""Tensor arrays as tensor lists, whose gradient goes through `tf.while_loop`.

In TensorFlow 1 an array is a resource behind a handle, and the `flow`, a number, orders
what is done to it. Here the flow is the list itself, and the handle only says what the
elements are.
"""

import dataclasses
from collections.abc import Sequence
from typing import Any

import tensorflow as tf

from keras_metagraph.errors import PassError
from keras_metagraph.graph.ir import Node
from keras_metagraph.layers.graph_ops.builder import Scope
from keras_metagraph.layers.graph_ops.registry import REGISTRY


@dataclasses.dataclass(frozen=True, slots=True, eq=False)
class ArrayRef:
    """What stands for the handle of a tensor array.

    Attributes:
        dtype: Of its elements.
        shape: Of its elements, as far as it is known.
        dynamic: Whether it grows when it is written behind its end.
    """

    dtype: tf.DType
    shape: tf.TensorShape
    dynamic: bool

    @property
    def element_shape(self) -> Any:
        """The shape as list ops take it, -1 for what is not known."""
        if self.shape.rank is None:
            return tf.constant(-1, tf.int32)
        dims = [-1 if dim is None else dim for dim in self.shape.as_list()]
        return tf.constant(dims, tf.int32, shape=[len(dims)])


@REGISTRY.register("TensorArrayV3")
def build_array(scope: Scope, node: Node) -> Sequence[Any]:
    """An empty array: handle and flow."""
    attrs = node.attrs
    dtype = tf.as_dtype(attrs["dtype"].type)
    shape = tf.TensorShape(None)
    if "element_shape" in attrs:
        shape = tf.TensorShape(attrs["element_shape"].shape)
    dynamic = "dynamic_size" in attrs and attrs["dynamic_size"].b
    array = ArrayRef(dtype, shape, bool(dynamic))
    start = tf.raw_ops.TensorListReserve(
        element_shape=array.element_shape,
        num_elements=scope.tensor(node.inputs[0]),
        element_dtype=dtype,
    )
    return [array, start]


@REGISTRY.register("TensorArrayWriteV3")
def build_write(scope: Scope, node: Node) -> Sequence[Any]:
    """Writes one element; returns the flow."""
    array, index, value, flow = scope.inputs(node)
    return [
        tf.raw_ops.TensorListSetItem(
            input_handle=flow,
            index=index,
            item=value,
            resize_if_index_out_of_bounds=array.dynamic,
        )
    ]


@REGISTRY.register("TensorArrayReadV3")
def build_element(scope: Scope, node: Node) -> Sequence[Any]:
    """Reads one element."""
    array, index, flow = scope.inputs(node)
    return [
        tf.raw_ops.TensorListGetItem(
            input_handle=flow,
            index=index,
            element_shape=array.element_shape,
            element_dtype=array.dtype,
        )
    ]


@REGISTRY.register("TensorArrayGatherV3")
def build_stack(scope: Scope, node: Node) -> Sequence[Any]:
    """Stacks some elements."""
    array, indices, flow = scope.inputs(node)
    return [
        tf.raw_ops.TensorListGather(
            input_handle=flow,
            indices=indices,
            element_shape=array.element_shape,
            element_dtype=array.dtype,
        )
    ]


@REGISTRY.register("TensorArrayScatterV3")
def build_unstack(scope: Scope, node: Node) -> Sequence[Any]:
    """Writes the rows of a tensor; returns the flow."""
    _, indices, value, flow = scope.inputs(node)
    return [
        tf.raw_ops.TensorListScatterIntoExistingList(
            input_handle=flow, tensor=value, indices=indices
        )
    ]


@REGISTRY.register("TensorArrayConcatV3")
def build_concat(scope: Scope, node: Node) -> Sequence[Any]:
    """Joins all elements at their first axis; their lengths too."""
    array, flow = scope.inputs(node)
    rest = tf.TensorShape(None)
    if "element_shape_except0" in node.attrs:
        rest = tf.TensorShape(node.attrs["element_shape_except0"].shape)
    if rest.rank is not None:
        array = dataclasses.replace(
            array, shape=tf.TensorShape([None]).concatenate(rest)
        )
    joined = tf.raw_ops.TensorListConcatV2(
        input_handle=flow,
        element_shape=array.element_shape,
        leading_dims=tf.constant([], tf.int64),
        element_dtype=array.dtype,
    )
    return [joined.tensor, joined.lengths]


@REGISTRY.register("TensorArraySplitV3")
def build_split(scope: Scope, node: Node) -> Sequence[Any]:
    """Writes parts of a tensor of given lengths; returns the flow."""
    array, value, lengths, _ = scope.inputs(node)
    shape = array.element_shape if not array.shape.rank else tf.constant(-1, tf.int32)
    return [
        tf.raw_ops.TensorListSplit(tensor=value, element_shape=shape, lengths=lengths)
    ]


@REGISTRY.register("TensorArraySizeV3")
def build_size(scope: Scope, node: Node) -> Sequence[Any]:
    """How many elements there are."""
    _, flow = scope.inputs(node)
    return [tf.raw_ops.TensorListLength(input_handle=flow)]


@REGISTRY.register("TensorArrayCloseV3")
def build_close(scope: Scope, node: Node) -> Sequence[Any]:
    """Nothing to free."""
    scope.done(node, [])
    return []


@REGISTRY.register(
    "StackPopV2",
    "StackPushV2",
    "StackV2",
    "TensorArrayGradV3",
    "TensorArrayGradWithShape",
)
def refuse(scope: Scope, node: Node) -> Sequence[Any]:
    """State of a loop's own gradient, which has no gradient itself.

    Raises:
        PassError: Always.
    """
    raise PassError(
        f"{node.name!r} (op {node.op!r}) belongs to the gradient of a while loop; the "
        "outputs cannot be differentiated once more.",
        fix="run these outputs with the session executor.",
    )
