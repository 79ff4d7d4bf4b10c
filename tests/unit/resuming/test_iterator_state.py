import os

import numpy as np
import pytest
import tensorflow as tf

from keras_metagraph.errors import CheckpointError
from keras_metagraph.resuming.iterator_state import read_iterator, write_iterator


def shuffled():
    tf.random.set_seed(1)
    return tf.data.Dataset.range(12).shuffle(12).batch(3)


def rest(iterator):
    return [batch.numpy().tolist() for batch in iterator]


@pytest.mark.parametrize("read", [0, 1, 3, 4])
def test_iterator_and_the_orders_that_follow(read, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    data = shuffled()
    rest(data)
    iterator = iter(data)
    for _ in range(read):
        next(iterator)
    files = write_iterator(iterator)
    expected = [rest(iterator), rest(data), rest(data)]
    data = shuffled()
    iterator = iter(data)
    read_iterator(iterator, files)
    assert [rest(iterator), rest(data), rest(data)] == expected
    assert os.listdir(tmp_path) == []


def test_pipeline_with_python_in_it_cannot_be_written():
    data = tf.data.Dataset.from_generator(
        lambda: range(3), output_signature=tf.TensorSpec([], tf.int64)
    )
    assert write_iterator(iter(data)) is None


def test_another_pipeline_is_refused():
    files = write_iterator(iter(shuffled()))
    other = iter(tf.data.Dataset.from_tensor_slices(np.arange(3)).repeat(2))
    with pytest.raises(CheckpointError, match="another pipeline"):
        read_iterator(other, files)
