import collections
import json
import random

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_metagraph.resuming.encoding import Encoder, decode


def again(value, current=None):
    encoder = Encoder("state/")
    text = json.dumps(encoder.encode(value), allow_nan=False)
    tensors = {k: np.array(v) for k, v in encoder.tensors.items()}
    return decode(json.loads(text), tensors.__getitem__, current)


@pytest.mark.parametrize(
    "value",
    [
        None,
        True,
        7,
        0.1,
        float("inf"),
        "text",
        b"\0\xff",
        [1, [2.5, None]],
        (1, (2,)),
        {"a": 1, 2: "b", (3, 4): [5]},
        {1, 2},
        frozenset({"a"}),
        collections.deque([1, 2], maxlen=3),
        collections.OrderedDict(b=1, a=2),
        {"array": [1]},
        {},
        [],
    ],
)
def test_value_comes_back(value):
    found = again(value)
    assert found == value
    assert type(found) is type(value)
    if isinstance(value, collections.deque):
        assert found.maxlen == value.maxlen


@pytest.mark.parametrize("dtype", ["float16", "float64", "int8", "uint64", "bool"])
def test_arrays_and_numbers_of_numpy(dtype):
    array = np.array([[0, 1], [1, 0]], dtype)
    found, number = again([array, array[0, 1]])
    np.testing.assert_array_equal(found, array)
    assert found.dtype == number.dtype == dtype
    assert number.shape == ()


def test_not_a_number():
    assert np.isnan(again(float("nan")))


def test_array_that_changes_later_is_copied():
    array = np.zeros(3)
    encoder = Encoder()
    encoder.encode(array)
    array[:] = 1
    assert not encoder.tensors["0"].any()


def test_variables_are_assigned_in_place():
    for make in (keras.Variable, tf.Variable):
        variable, other = make(np.float32([1, 2])), make(np.float32([0, 0]))
        assert again(variable, other) is other
        np.testing.assert_array_equal(other.numpy(), [1, 2])


@pytest.mark.parametrize(
    ("make", "draw"),
    [
        (np.random.default_rng, lambda g: g.random()),
        (
            lambda seed: np.random.Generator(np.random.MT19937(seed)),
            lambda g: g.random(),
        ),
        (np.random.RandomState, lambda g: g.normal()),
        (random.Random, lambda g: g.gauss(0, 1)),
    ],
)
def test_generators_go_on(make, draw):
    generator, other = make(1), make(2)
    draw(generator)
    assert again(generator, other) is other
    fresh = again(generator)
    expected = draw(generator)
    assert draw(other) == draw(fresh) == expected


@pytest.mark.parametrize("value", [object(), [1, object()], len, np.array(["a"])])
def test_other_objects_are_refused_and_leave_nothing(value):
    encoder = Encoder()
    encoder.encode(np.zeros(1))
    with pytest.raises(TypeError):
        encoder.encode([np.ones(1), value])
    assert list(encoder.tensors) == ["0"]


def test_unknown_json_is_refused():
    with pytest.raises(ValueError, match="class"):
        decode({"class": "os.system"}, {}.__getitem__)
