"""Op definitions as this TensorFlow registers them.

TensorFlow has no public name for its op registry, and without it the outputs of a
node in a `FunctionDef` (`node:values:1`) cannot be numbered. This module is the one
place with the private import.
"""

from collections.abc import Mapping
from typing import Any

import tensorflow as tf
from tensorflow.python.framework import op_def_registry

AttrValue = Any  # tensorflow.AttrValue
ArgDef = Any  # tensorflow.OpDef.ArgDef
OpDef = Any  # tensorflow.OpDef

REF_OFFSET = 100  # DT_FLOAT_REF is DT_FLOAT + 100


def op_def(op: str) -> OpDef | None:
    """The definition of an op type, or None where this TensorFlow knows none."""
    return op_def_registry.get(op)


def attr_value(definition: OpDef, attrs: Mapping[str, AttrValue], name: str) -> Any:
    """The `AttrValue` of a node's attribute, or the op's default; None for neither."""
    if name in attrs:
        return attrs[name]
    for attr in definition.attr:
        if attr.name == name and attr.HasField("default_value"):
            return attr.default_value
    return None


def arg_count(
    arg: ArgDef, definition: OpDef, attrs: Mapping[str, AttrValue]
) -> int | None:
    """How many tensors stand behind one argument of an op; None if attrs lack it."""
    if arg.number_attr:
        value = attr_value(definition, attrs, arg.number_attr)
        return None if value is None or value.WhichOneof("value") != "i" else value.i
    if arg.type_list_attr:
        value = attr_value(definition, attrs, arg.type_list_attr)
        return None if value is None else len(value.list.type)
    return 1


def arg_type(
    arg: ArgDef, definition: OpDef, attrs: Mapping[str, AttrValue], index: int
) -> int | None:
    """The `DataType` number of the `index`-th tensor of an argument, if it is known."""
    if arg.type_list_attr:
        value = attr_value(definition, attrs, arg.type_list_attr)
        types = [] if value is None else value.list.type
        return types[index] if index < len(types) else None
    if arg.type_attr:
        value = attr_value(definition, attrs, arg.type_attr)
        number = 0 if value is None else value.type
    else:
        number = arg.type
    if not number:
        return None
    return number + REF_OFFSET if arg.is_ref and number < REF_OFFSET else number


def output_offsets(
    definition: OpDef, attrs: Mapping[str, AttrValue]
) -> dict[str, tuple[int, int]]:
    """Where the outputs of a node lie among all of its output tensors.

    Args:
        definition: The op's definition, or a function's signature.
        attrs: The node's attributes.

    Returns:
        For each output argument its first flat index and how many tensors it has, as
        far as the attributes tell.
    """
    offsets, first = {}, 0
    for arg in definition.output_arg:
        count = arg_count(arg, definition, attrs)
        if count is None or count < 0:
            break
        offsets[arg.name] = (first, count)
        first += count
    return offsets


def output_position(
    definition: OpDef, attrs: Mapping[str, AttrValue], index: int
) -> tuple[ArgDef, int] | None:
    """The output argument that a flat output index lies in, and the place there."""
    first = 0
    for arg in definition.output_arg:
        count = arg_count(arg, definition, attrs)
        if count is None or count < 0:
            return None
        if index < first + count:
            return arg, index - first
        first += count
    return None


def output_type(
    definition: OpDef, attrs: Mapping[str, AttrValue], index: int
) -> tf.DType | None:
    """The dtype of a node's flat output, where definition and attributes tell."""
    position = output_position(definition, attrs, index)
    if position is None:
        return None
    number = arg_type(position[0], definition, attrs, position[1])
    return None if number is None else tf.dtypes.as_dtype(number)
