"""Where a `fit` stands in its data, for each kind of data.

The iterator of arrays and of most `tf.data` pipelines can be written down, with its
order and its buffers. Of a finite pipeline the beginning of the pass is, and the
batches that were trained on are skipped: an iterator that has read all of its input
does not tell in which order the next pass of a shuffled dataset comes, one that has
read nothing does. An iterator with Python in it cannot be written: that of a
`PyDataset`, or of `from_generator`. There the pass is begun again, and checksums of the
first and the last skipped batch tell whether it gave the same ones. A plain generator
cannot even be begun again, and is refused.
"""

import itertools
import math
import types
import zlib
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NoReturn

import keras
import numpy as np
import tensorflow as tf

from keras_metagraph.errors import CheckpointError
from keras_metagraph.resuming.callback_state import (
    attribute_digests,
    encode_object,
    restore_object,
)
from keras_metagraph.resuming.encoding import Encoder, decode
from keras_metagraph.resuming.fit_call import FitCall
from keras_metagraph.resuming.iterator_state import read_iterator, write_iterator
from keras_metagraph.resuming.random_state import (
    drawn_since,
    random_state,
    set_random_state,
)

Read = Callable[[str], Any]


def check_data(fit: FitCall) -> None:
    """Refuses data in which no position can be found again.

    Args:
        fit: The call of `fit`.

    Raises:
        CheckpointError: If the data is such; says why.
    """
    problem = _refusal(fit)
    if problem:
        raise CheckpointError(
            f"This training cannot be resumed exactly: {problem[0]}",
            fix=f"{problem[1]} Or leave out resume=True.",
        )


def _refusal(fit: FitCall) -> tuple[str, str] | None:
    """Why a `fit` cannot be resumed, and what to do about it."""
    if fit.model.distribute_strategy.num_replicas_in_sync > 1:
        return (
            "each replica has an iterator of its own, whose state cannot be saved.",
            "train in one replica.",
        )
    if isinstance(fit.data, types.GeneratorType):
        return (
            "a Python generator has no position that could be saved, and cannot be "
            "begun again.",
            "pass a keras.utils.PyDataset, or a tf.data.Dataset made by "
            "tf.data.Dataset.from_generator.",
        )
    if not isinstance(fit.data, tf.data.Dataset | keras.utils.PyDataset) and not all(
        hasattr(leaf, "shape") or isinstance(leaf, int | float)
        for leaf in tf.nest.flatten(fit.data)
    ):
        return (
            f"where it stands in data of type {type(fit.data).__qualname__} is not "
            "known.",
            "pass arrays, a tf.data.Dataset or a keras.utils.PyDataset.",
        )
    if (
        isinstance(fit.data, tf.data.Dataset)
        and fit.data.options().deterministic is False
    ):
        return (
            "the dataset gives its elements in an order that is not deterministic.",
            "set the dataset's option deterministic to True.",
        )
    steps, count = fit.steps_per_epoch, _cardinality(fit)
    if steps and count != steps and count != math.inf:
        batches = "a number of batches that is not known" if count is None else count
        return (
            f"steps_per_epoch is {steps}, and one pass over the data has {batches}, so "
            "that epochs begin in the middle of passes.",
            "repeat() the dataset, or leave out steps_per_epoch.",
        )
    return None


def _cardinality(fit: FitCall) -> float | None:
    """The number of batches of one pass over the data; None if it is not known."""
    if isinstance(fit.data, tf.data.Dataset):
        count = int(fit.data.cardinality())
        if count == tf.data.INFINITE_CARDINALITY:
            return math.inf
        return None if count == tf.data.UNKNOWN_CARDINALITY else count
    if isinstance(fit.data, keras.utils.PyDataset):
        count = fit.data.num_batches
        return math.inf if count is None else count
    samples = len(tf.nest.flatten(fit.data)[0])
    steps, batch_size = fit.steps_per_epoch, fit.batch_size
    batch_size = batch_size or (math.ceil(samples / steps) if steps else 32)
    return math.ceil(samples / batch_size)


class DataPosition:
    """Follows one `fit` through its data.

    Args:
        fit: The call of `fit`.
    """

    def __init__(self, fit: FitCall) -> None:
        self._data = fit.data
        self._count = _cardinality(fit)
        self._endless = self._count == math.inf
        is_dataset = isinstance(fit.data, tf.data.Dataset)
        self._is_passed_again = is_dataset and not self._endless
        self._begin_state: dict[str, bytes] | None = None
        self._batches = 0
        self._steps = fit.model.steps_per_execution
        self._counts_steps = bool(fit.steps_per_epoch)
        self._source: Any = None
        self._relay: _Relay | None = None
        self._writable: bool | None = None
        self._is_py = isinstance(fit.data, keras.utils.PyDataset)
        self._before = attribute_digests(fit.data) if self._is_py else {}
        self._epoch_begin: dict[str, Any] = {}
        self._drawn: set[str] = set()

    def begin_epoch(self, encoder: Encoder | None = None) -> None:
        """Notes what an epoch begins with, before the data gives its first batch."""
        if self._endless and self._epoch_begin:
            return  # Its only pass began with the first epoch.
        encoder = Encoder(_EPOCH_BEGIN)
        self._epoch_begin = {
            "random": encoder.encode(random_state()),
            "dataset": self._encode_dataset(encoder),
            "tensors": encoder.tensors,
        }

    def train_from(self, source: Any) -> Any:
        """Returns the iterator to train from, given that of Keras."""
        if source is not self._source:
            self._source = source
            self._batches = 0
            if self._is_passed_again or self._writable is None:
                self._begin_state = None if self._is_py else write_iterator(source)
                self._writable = self._begin_state is not None
            self._relay = None if self._writable else _Relay(source)
        self._batches += self._steps
        return source if self._relay is None else self._relay.iterator

    def encode(self, encoder: Encoder) -> dict[str, Any]:
        """Writes down where the data stands.

        Args:
            encoder: Takes the values.

        Returns:
            A record for JSON.
        """
        if self._relay is None and self._is_passed_again:
            state = encoder.encode(self._begin_state)
            return {"iterator": state, "skip": self._batches}
        if self._relay is None:
            return {"iterator": encoder.encode(write_iterator(self._source)), "skip": 0}
        begin = dict(self._epoch_begin)
        encoder.tensors.update(begin.pop("tensors", {}))
        return {
            "batches": self._relay.batches,
            "first": self._relay.first,
            "last": self._relay.last_checksum(),
            "begin": begin,
            "now": self._encode_dataset(encoder),
        }

    def prepare(self, record: Mapping[str, Any], epoch: int) -> None:
        """Repeats what earlier epochs did to the data, but for giving batches.

        Args:
            record: What `encode` returned.
            epoch: The epoch that goes on.
        """
        if "iterator" in record or self._endless:
            return
        if self._is_py:
            for _ in range(epoch):
                self._data.on_epoch_begin()
                self._data.on_epoch_end()
        elif isinstance(self._data, tf.data.Dataset):
            # Each iterator draws the next order of a shuffled dataset. Keras makes
            # one more at the end of an epoch, if it knows that it is the end.
            once = self._count is None or self._counts_steps
            for _ in range(epoch if once else 2 * epoch):
                iter(self._data)

    def restore_begin(self, record: Mapping[str, Any], read: Read) -> None:
        """Restores what the interrupted epoch began with."""
        if "iterator" not in record:
            begin = record["begin"]
            set_random_state(decode(begin["random"], read))
            if begin["dataset"] is not None:
                restore_object(self._data, begin["dataset"], read)
            self.begin_epoch()

    def restore(
        self, source: Any, record: Mapping[str, Any], read: Read, *, at_end: bool
    ) -> None:
        """Goes to the place in an epoch where the record was made.

        Args:
            source: The iterator of Keras, at the beginning of that epoch.
            record: What `encode` returned.
            read: Gives the array of a name.
            at_end: Whether the epoch was over. Its batches are not needed then; the
                first one is compared.

        Raises:
            CheckpointError: If the data is not the same.
        """
        self.train_from(source)
        if ("iterator" in record) != (self._relay is None):
            _refuse_data("its pipeline has other operations")
        if self._relay is None:
            state = decode(record["iterator"], read)
            read_iterator(source, state)
            if self._is_passed_again:
                self._begin_state, self._batches = state, record["skip"]
                for _ in itertools.islice(source, 0 if at_end else record["skip"]):
                    pass
            return
        if at_end and self._is_py and not self._endless:
            return  # `restore_end` says all that is left of the pass.
        before = random_state()
        count = record["batches"]
        brief = at_end and not self._endless
        self._relay.skip(min(count, 1) if brief else count)
        if self._relay.first != record["first"]:
            _refuse_data("the first batch of the pass differs")
        self._drawn = drawn_since(before)
        if brief:
            if self._drawn:  # What is read ahead would go on drawing.
                self._relay.skip(count)
            self._drawn = set()
        elif self._relay.last_checksum() != record["last"]:
            _refuse_data(f"batch {count} of the pass differs")

    def restore_end(self, record: Mapping[str, Any], read: Read) -> None:
        """Restores what was left of an epoch that was over."""
        if "iterator" not in record and record["now"] is not None:
            restore_object(self._data, record["now"], read)

    def drew(self) -> set[str]:
        """Which random generators the skipped batches drew from."""
        return self._drawn

    def _encode_dataset(self, encoder: Encoder) -> dict[str, Any] | None:
        if not self._is_py:
            return None
        return encode_object(self._data, encoder, self._before)


_EPOCH_BEGIN = "keras_metagraph/epoch_begin/"


class _Relay:
    """Hands the batches of an iterator on, one by one, and looks at them."""

    def __init__(self, source: Any) -> None:
        self.batches = 0
        self.first: int | None = None
        self._source = source
        self._last: Any = None
        dataset = tf.data.Dataset.from_generator(
            self._hand_on, output_signature=source.element_spec
        )
        options = tf.data.Options()
        # Whatever is read ahead would be counted too early.
        options.experimental_optimization.apply_default_optimizations = False
        options.autotune.enabled = False
        self.iterator = iter(dataset.with_options(options))

    def skip(self, count: int) -> None:
        """Takes batches away."""
        for _ in itertools.islice(self._hand_on(), count):
            pass

    def last_checksum(self) -> int | None:
        """The checksum of the last batch."""
        return None if self._last is None else _checksum(self._last)

    def _hand_on(self) -> Iterator[Any]:
        for batch in self._source:
            self.batches += 1
            self._last = batch
            if self.first is None:
                self.first = _checksum(batch)
            yield batch


def _checksum(batch: Any) -> int:
    """A checksum of the tensors of a batch."""
    total = 0
    for tensor in tf.nest.flatten(batch, expand_composites=True):
        array = np.ascontiguousarray(tensor.numpy())
        content = repr(array) if array.dtype.kind == "O" else array.tobytes()
        text = content.encode("utf-8") if isinstance(content, str) else content
        total = zlib.crc32(text, total)
    return total


def _refuse_data(reason: str) -> NoReturn:
    raise CheckpointError(
        "The data of this run is not that of the run that is resumed, or it is not the "
        f"same each time it is passed over: {reason}.",
        fix="pass fit the data that the run began with, and seed what is random in it; "
        "a PyDataset may say with get_state() and set_state(state) what else it "
        "remembers from epoch to epoch.",
    )
