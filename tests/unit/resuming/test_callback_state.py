import keras
import numpy as np

from keras_metagraph.resuming.callback_state import CallbackStates
from keras_metagraph.resuming.encoding import Encoder

X = np.ones((4, 1), "float32")


def moved(callbacks, others):
    """Gives `others` what `callbacks` remember after some training."""
    states = CallbackStates(callbacks)
    for callback in callbacks:
        callback.train()
    encoder = Encoder()
    records = states.encode(encoder)
    return CallbackStates(others).restore(records, encoder.tensors.__getitem__)


class Counter(keras.callbacks.Callback):
    def __init__(self, limit):
        super().__init__()
        self.limit = limit
        self.seen = []
        self.weights = None
        self.function = len
        self.data = np.arange(3.0)

    def train(self):
        self.seen += [1, 2.5]
        self.weights = [np.ones(2), np.zeros(1)]


def test_what_changed_is_remembered_and_settings_are_not():
    one, other = Counter(limit=3), Counter(limit=5)
    assert moved([one], [other]) == []
    assert other.seen == [1, 2.5]
    np.testing.assert_array_equal(other.weights[0], [1, 1])
    assert other.limit == 5


class Own(keras.callbacks.Callback):
    def __init__(self):
        super().__init__()
        self.members = {}

    def train(self):
        self.members["a"] = object()

    def get_state(self):
        return sorted(self.members)

    def set_state(self, state):
        self.members = dict.fromkeys(state)


def test_callback_that_says_what_it_remembers():
    other = Own()
    moved([Own()], [other])
    assert other.members == {"a": None}


def test_two_of_a_class_keep_their_order():
    first, second = Counter(1), Counter(2)
    second.train = lambda: None
    others = [Counter(1), Counter(2)]
    moved([first, second], others)
    assert [len(each.seen) for each in others] == [2, 0]


def test_callback_that_is_not_there_is_told():
    assert moved([Counter(1)], [Own()]) == ["Counter"]


class Data(Counter):
    def train(self):
        self.data[1] = 7.0


def test_array_that_changed_in_place_is_remembered():
    other = Data(1)
    moved([Data(1)], [other])
    np.testing.assert_array_equal(other.data, [0, 7, 2])
