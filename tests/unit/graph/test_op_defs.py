"""What the op registry tells about the outputs of nodes."""

import tensorflow as tf

from keras_metagraph.graph import op_defs


def _attrs(**values):
    return {key: tf.compat.v1.AttrValue(**value) for key, value in values.items()}


def test_unknown_op():
    assert op_defs.op_def("BilateralSliceApply") is None


def test_offsets_without_counting_one_by_one():
    # A hostile count must cost nothing.
    definition = op_defs.op_def("Unpack")
    offsets = op_defs.output_offsets(definition, _attrs(num={"i": 2**62}))
    assert offsets == {"output": (0, 2**62)}


def test_offsets_stop_where_attributes_are_missing():
    assert op_defs.output_offsets(op_defs.op_def("Unpack"), {}) == {}


def test_output_types():
    batch_norm = op_defs.op_def("FusedBatchNormV2")
    attrs = _attrs(T={"type": 19}, U={"type": 1})
    assert op_defs.output_type(batch_norm, attrs, 0) == tf.float16
    assert op_defs.output_type(batch_norm, attrs, 4) == tf.float32
    assert op_defs.output_type(batch_norm, attrs, 5) is None


def test_type_from_a_default():
    assert op_defs.output_type(op_defs.op_def("ArgMax"), {}, 0) == tf.int64


def test_reference_type():
    variable = op_defs.op_def("VariableV2")
    dtype = op_defs.output_type(variable, _attrs(dtype={"type": 1}), 0)
    assert dtype == tf.dtypes.as_dtype(101)
    assert dtype.base_dtype == tf.float32


def test_position_of_a_flat_output():
    split = op_defs.op_def("Split")
    attrs = _attrs(num_split={"i": 3})
    argument, place = op_defs.output_position(split, attrs, 2)
    assert (argument.name, place) == ("output", 2)
    assert op_defs.output_position(split, attrs, 3) is None
