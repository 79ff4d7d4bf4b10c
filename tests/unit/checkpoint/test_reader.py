"""What TensorFlow's own reader does not give as it was stored."""

import numpy as np
import pytest
import tensorflow as tf

from keras_metagraph.checkpoint.reader import TensorReader

v1 = tf.compat.v1


@pytest.mark.parametrize("write_version", [1, 2])
@pytest.mark.parametrize("axis", [0, 1])
def test_the_parts_of_a_variable_are_one_tensor(write_version, axis, tmp_path):
    """The reader of TensorFlow knows no V1 checkpoints with parts."""
    whole = np.arange(35.0, dtype="float32").reshape(5, 7)
    with tf.Graph().as_default(), v1.Session() as session:
        v1.get_variable(
            "table",
            initializer=tf.constant(whole),
            partitioner=v1.fixed_size_partitioner(3, axis),
            use_resource=False,
        )
        session.run(v1.global_variables_initializer())
        saver = v1.train.Saver(write_version=write_version)
        prefix = saver.save(session, str(tmp_path / "[parts]"))

    np.testing.assert_array_equal(TensorReader(prefix).read("table"), whole)


@pytest.mark.parametrize("text", [b"", b"a\0b\0\0", b"\xff"])
def test_strings_keep_their_zeros(text, tmp_path):
    prefix = tf.train.Checkpoint(text=tf.Variable(text)).write(str(tmp_path / "c"))
    reader = TensorReader(prefix)

    value = reader.read("text/.ATTRIBUTES/VARIABLE_VALUE")

    assert value.dtype == object
    assert value.item() == text
