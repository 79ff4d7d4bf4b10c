"""Variables that follow from others have the values that TensorFlow 1 would keep."""

import keras
import numpy as np
import tensorflow as tf

from keras_metagraph.export.derived import DerivedVariable


def test_a_power_is_what_repeated_multiplication_gives():
    steps = keras.Variable(0, dtype="int64")
    power = DerivedVariable("beta2_power", base=0.999, iterations=steps)
    expected = base = np.float32(0.999)
    for step in range(1, 2000):
        expected = expected * base
        if step % 100 == 0:
            np.testing.assert_allclose(power.at(step), expected, rtol=5e-5)
    steps.assign(3)
    value = power.read_value()
    assert value.dtype == tf.float32
    assert value.shape == ()
    np.testing.assert_allclose(value, 0.999**4, rtol=1e-6)
    np.testing.assert_allclose(np.asarray(power), 0.999, rtol=1e-7)


def test_a_power_too_small_for_a_normal_number_is_zero():
    power = DerivedVariable("beta1_power", base=0.9)
    assert 0 < power.at(826) < 2e-38
    assert power.at(828) == 0  # as TensorFlow 1.15.5 has it from this step on
    assert power.at(10**9) == 0


def test_accumulated_gradients_make_one_update_of_several_steps():
    power = DerivedVariable("beta1_power", base=0.5, steps=3)
    assert [float(power.at(step)) for step in range(7)] == [
        *[0.5] * 3,
        *[0.25] * 3,
        0.125,
    ]


def test_without_a_base_it_is_zero():
    slot = DerivedVariable("RMSProp_1", (2, 3), "float16")
    assert slot.read_value().dtype == tf.float16
    np.testing.assert_array_equal(slot.read_value(), np.zeros((2, 3)))
    np.testing.assert_array_equal(np.asarray(slot), np.zeros((2, 3)))


def test_traces_capture_one_handle():
    power = DerivedVariable("beta1_power", base=0.9)

    @tf.function
    def read():
        return tf.raw_ops.ReadVariableOp(resource=power.handle, dtype=tf.float32)

    concrete = read.get_concrete_function()
    assert [id(each) for each in concrete.captured_inputs] == [id(power.handle)]
