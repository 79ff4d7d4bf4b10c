"""Serialized boosted trees; that predictions are TensorFlow's, tests/parity shows."""

import numpy as np
import pytest

from keras_metagraph.errors import FormatError
from keras_metagraph.loading.tree_ensembles import read_ensemble


def field(number, value):
    """A field of a serialized message: a number, a float or a message."""
    if isinstance(value, float):
        return bytes([number << 3 | 5]) + np.float32(value).tobytes()
    if isinstance(value, int):
        return bytes([number << 3, value])
    return bytes([number << 3 | 2, len(value)]) + value


def leaf(value):
    return field(1, field(1, field(3, value)))


def split(feature, threshold, left, right, kind=2):
    parts = zip((1, 2, 3, 4), (feature, threshold, left, right), strict=True)
    return field(1, field(kind, b"".join(field(n, v) for n, v in parts)))


STUMP = split(1, 7, 1, 2) + leaf(0.5) + leaf(-0.25)


def test_nodes_of_all_trees_stand_in_a_row():
    data = field(1, STUMP) + field(1, leaf(1.0)) + field(2, 1.0) + field(2, 0.5)
    ensemble = read_ensemble(data, logits=1)
    assert ensemble.roots.tolist() == [0, 3]
    assert ensemble.feature.tolist()[:1] == [1]
    assert ensemble.threshold.tolist()[:1] == [7]
    assert ensemble.left.tolist() == [1, 1, 2, 3]
    assert ensemble.right.tolist() == [2, 1, 2, 3]
    assert ensemble.value.tolist() == [[0.0], [0.5], [-0.25], [0.5]]
    assert ensemble.depth == 2


def test_categories_go_left_alone():
    data = field(1, split(0, 3, 1, 2, kind=3) + leaf(1.0) + leaf(2.0))
    assert read_ensemble(data, 1).equal.tolist() == [True, False, False]


def test_no_trees():
    ensemble = read_ensemble(b"", logits=2)
    assert ensemble.roots.size == 0
    assert ensemble.value.shape == (0, 2)


@pytest.mark.parametrize(
    ("tree", "message"),
    [
        (split(0, 1, 0, 1) + leaf(1.0), "node 0 goes to 0"),
        (split(0, 1, 1, 9) + leaf(1.0), "node 0 goes to 9"),
        (
            b"".join(split(0, 1, i + 1, i + 1) for i in range(80)) + leaf(1.0),
            "81 levels",
        ),
    ],
)
def test_trees_that_are_none(tree, message):
    length = len(tree)
    prefix = bytes([1 << 3 | 2, length & 0x7F | 0x80, length >> 7])
    data = prefix + tree if length > 127 else field(1, tree)
    with pytest.raises(FormatError, match=message):
        read_ensemble(data, 1)


def test_bytes_that_are_no_message():
    with pytest.raises(FormatError, match="cannot be read"):
        read_ensemble(b"\x0a\xff", 1)
