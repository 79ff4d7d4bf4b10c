"""Constants are measured before memory is taken for them."""

import tracemalloc

import ml_dtypes
import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from keras_metagraph.audit import Limits, decode_tensor
from keras_metagraph.audit.tensors import tensor_problem
from keras_metagraph.errors import FormatError, UntrustedContentError


def _proto(dtype, shape, **fields):
    tensor = tf.make_tensor_proto(0.0)
    tensor.Clear()
    tensor.dtype = tf.as_dtype(dtype).as_datatype_enum
    for size in shape:
        tensor.tensor_shape.dim.add(size=size)
    for key, value in fields.items():
        if isinstance(value, bytes):
            setattr(tensor, key, value)
        else:
            getattr(tensor, key).extend(value)
    return tensor


def _same(read, expected):
    assert read.dtype == expected.dtype
    assert read.shape == expected.shape
    if expected.dtype == object:
        assert read.tolist() == expected.tolist()
    else:
        assert read.tobytes() == expected.tobytes()


@pytest.mark.parametrize(
    "dtype",
    [
        "bool", "int8", "uint8", "int16", "uint16", "int32", "uint32", "int64",
        "uint64", "float16", "float32", "float64", "complex64", "complex128",
        ml_dtypes.bfloat16, ml_dtypes.float8_e5m2, ml_dtypes.float8_e4m3fn,
    ],
)  # fmt: skip
@pytest.mark.parametrize("shape", [(), (0,), (1,), (2, 3)])
def test_reads_what_tensorflow_writes(dtype, shape):
    array = (np.arange(np.prod(shape)) - 1).reshape(shape).astype(dtype)
    _same(decode_tensor(tf.make_tensor_proto(array)), array)


@pytest.mark.parametrize("dtype", ["qint8", "quint8", "qint16", "quint16", "qint32"])
def test_reads_quantized_numbers(dtype):
    read = decode_tensor(_proto(dtype, [2], int_val=[1, 100]))
    assert read.tolist() == [1, 100]


@given(
    hnp.arrays(
        st.sampled_from(["int32", "float32", "float16", "int64", "bool", "complex64"]),
        hnp.array_shapes(max_dims=3, max_side=4, min_side=0),
    )
)
def test_agrees_with_tensorflow(array):
    typed = tf.make_tensor_proto(array)
    packed = tf.constant(array).numpy()
    _same(decode_tensor(typed), packed)


def test_reads_strings():
    array = np.array([[b"a", b""], [b"\xff\x00", b"bc"]], object)
    _same(decode_tensor(tf.make_tensor_proto(array)), array)
    _same(decode_tensor(tf.make_tensor_proto(b"x")), np.array(b"x", object))


@pytest.mark.parametrize(
    ("tensor", "expected"),
    [
        (_proto("float32", [2, 2], float_val=[5.0]), [[5.0, 5.0], [5.0, 5.0]]),
        (_proto("int32", [4], int_val=[1, 2]), [1, 2, 2, 2]),
        (_proto("float32", [3]), [0.0, 0.0, 0.0]),
        (_proto("complex64", [3], scomplex_val=[1.0, 2.0]), [1 + 2j] * 3),
        (_proto("float16", [2], half_val=[0x3C00]), [1.0, 1.0]),
        (_proto("string", [2], string_val=[b"a"]), [b"a", b"a"]),
        (_proto("string", [2]), [b"", b""]),
    ],
)
def test_last_value_stands_for_those_left_out(tensor, expected):
    assert decode_tensor(tensor).tolist() == expected


@pytest.mark.parametrize(
    "tensor",
    [
        _proto("float32", [2**31], float_val=[1.0]),
        _proto("float32", [2**40]),
        _proto("bool", [2**20, 2**20, 2**20, 2**20], bool_val=[True]),
        _proto("int64", [10**9, 10**9], int64_val=[1, 2]),
        _proto("string", [2**40], string_val=[b"a"]),
        _proto("string", [2**16], string_val=[b"a" * 2**16]),
    ],
)
def test_refuses_bombs_without_taking_memory(tensor):
    tracemalloc.start()
    try:
        with pytest.raises(UntrustedContentError, match="would take"):
            decode_tensor(tensor)
        assert tracemalloc.get_traced_memory()[1] < 10**6
    finally:
        tracemalloc.stop()


def test_what_is_stored_whole_may_be_larger_than_the_limit():
    tensor = tf.make_tensor_proto(np.arange(100.0, dtype=np.float32))
    limits = Limits(tensor_bytes=10)
    assert decode_tensor(tensor, limits).shape == (100,)
    whole = _proto("float32", [3], float_val=[1.0, 2.0, 3.0])
    assert decode_tensor(whole, limits).tolist() == [1.0, 2.0, 3.0]
    with pytest.raises(UntrustedContentError):
        decode_tensor(_proto("float32", [3], float_val=[1.0]), limits)


@pytest.mark.parametrize(
    ("tensor", "why"),
    [
        (_proto("float32", [-1], float_val=[1.0]), "negative"),
        (_proto("float32", [2], float_val=[1.0, 2.0, 3.0]), "3 values for 2"),
        (_proto("float32", [2], tensor_content=bytes(7)), "8 bytes, not 7"),
        (_proto("float32", [2**40], tensor_content=bytes(8)), "bytes, not 8"),
        (_proto("bfloat16", [3], tensor_content=bytes(3)), "6 bytes, not 3"),
        (_proto("string", [2], tensor_content=b"ab"), "raw bytes"),
        (_proto("resource", []), "encoded object"),
        (_proto("variant", []), "encoded object"),
        (_proto("float32", [1] * 255, float_val=[1.0]), "255 dimensions"),
        (_proto(tf.dtypes.as_dtype(101), []), "type"),
    ],
)
def test_refuses_what_does_not_fit(tensor, why):
    assert why in tensor_problem(tensor)
    with pytest.raises(FormatError, match=why):
        decode_tensor(tensor)


def test_refuses_unknown_rank():
    tensor = _proto("float32", [], float_val=[1.0])
    tensor.tensor_shape.unknown_rank = True
    with pytest.raises(FormatError, match="unknown"):
        decode_tensor(tensor)
