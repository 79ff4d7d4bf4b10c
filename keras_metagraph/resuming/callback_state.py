"""What callbacks remember, so that a resumed run goes on with it.

A callback may say itself what that is, with `get_state()` and `set_state(state)`. Of
all others the attributes count that changed since training began and whose values can
be written down: counters, best values, best weights, lists of numbers. So early
stopping, plateaus and best checkpoints of Keras are covered, and most of the user's.
"""

import json
import os
import zlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import keras
import numpy as np

from keras_metagraph.resuming.encoding import Encoder, decode

# Attributes that Keras sets anew in each process, and would turn round a second time.
_NOT_STATE = frozenset({"params", "_model", "min_delta", "monitor_op", "append_header"})
# These remember only what they print or write.
_STATELESS = (keras.callbacks.ProgbarLogger, keras.callbacks.TensorBoard)


class CallbackStates:
    """Watches the callbacks of one `fit`.

    To be made when every `on_train_begin` has run.

    Args:
        callbacks: The callbacks, in their order.
    """

    def __init__(self, callbacks: Iterable[Any]) -> None:
        self._callbacks = [c for c in callbacks if not isinstance(c, _STATELESS)]
        self._before = [attribute_digests(c) for c in self._callbacks]

    def encode(self, encoder: Encoder) -> list[dict[str, Any]]:
        """Writes down what each callback remembers.

        Args:
            encoder: Takes the values.

        Returns:
            A record a callback, for JSON.
        """
        pairs = zip(self._callbacks, self._before, strict=True)
        return [
            {"name": _name(each), **encode_object(each, encoder, before)}
            for each, before in pairs
        ]

    def restore(
        self, records: Sequence[Mapping[str, Any]], read: Callable[[str], Any]
    ) -> list[str]:
        """Gives each callback what the one of the same class remembered.

        Args:
            records: What `encode` returned.
            read: Gives the array of a name.

        Returns:
            Classes of callbacks that remembered something and are not there.
        """
        waiting = list(self._callbacks)
        unused = []
        for record in records:
            found = next((c for c in waiting if _name(c) == record["name"]), None)
            if found is not None:
                waiting.remove(found)
                restore_object(found, record, read)
            elif record.get("attributes") or record.get("state"):
                unused.append(str(record["name"]))
        return unused


def encode_object(
    owner: Any, encoder: Encoder, before: Mapping[str, str]
) -> dict[str, Any]:
    """Writes down what an object remembers.

    Args:
        owner: A callback or a `PyDataset`.
        encoder: Takes the values.
        before: Its attributes at the beginning, as `attribute_digests` returned them.

    Returns:
        `{"state": ...}` of an object with `get_state`, else `{"attributes": ...}`.
    """
    if callable(getattr(owner, "get_state", None)):
        return {"state": encoder.encode(owner.get_state())}
    changed = (k for k, v in attribute_digests(owner).items() if before.get(k) != v)
    return {"attributes": {k: encoder.encode(vars(owner)[k]) for k in changed}}


def restore_object(
    owner: Any, record: Mapping[str, Any], read: Callable[[str], Any]
) -> None:
    """Lets an object remember what `encode_object` wrote down."""
    if "state" in record:
        owner.set_state(decode(record["state"], read))
    for name, encoded in record.get("attributes", {}).items():
        current = vars(owner).get(name)
        setattr(owner, name, decode(encoded, read, current))


def attribute_digests(owner: Any) -> dict[str, str]:
    """The attributes of an object that can be written down, with a checksum each."""
    found = {}
    for name, value in vars(owner).items():
        if name in _NOT_STATE:
            continue
        encoder = Encoder(copy=False)
        try:
            text = json.dumps(encoder.encode(value))
        except TypeError:
            continue
        sums = [checksum(tensor) for tensor in encoder.tensors.values()]
        found[name] = f"{text} {sums}"
    return found


def checksum(tensor: Any) -> str:
    """Text that differs where dtype, shape or values do.

    Args:
        tensor: A tensor or array.

    Returns:
        A short text; of texts and objects what they print.
    """
    array = np.ascontiguousarray(keras.ops.convert_to_numpy(tensor))
    if array.dtype.kind == "O":
        return repr(array)
    return f"{array.dtype} {array.shape} {zlib.crc32(array.tobytes())}"


def continue_logs(callbacks: Iterable[Any], sizes: Mapping[str, int]) -> None:
    """Lets CSV files go on where they stood, instead of starting anew.

    To be called before any `on_train_begin`, which opens them.

    Args:
        callbacks: The callbacks.
        sizes: What `log_sizes` returned.
    """
    for callback in callbacks:
        if not isinstance(callback, keras.callbacks.CSVLogger):
            continue
        size = sizes.get(callback.filename)
        if size is not None and os.path.isfile(callback.filename):
            if os.path.getsize(callback.filename) > size:
                os.truncate(callback.filename, size)
            callback.append = True


def log_sizes(callbacks: Iterable[Any]) -> dict[str, int]:
    """Returns the lengths of the CSV files that are being written, in bytes."""
    return {
        callback.filename: os.path.getsize(callback.filename)
        for callback in callbacks
        if isinstance(callback, keras.callbacks.CSVLogger)
        and os.path.isfile(callback.filename)
    }


def _name(callback: Any) -> str:
    return type(callback).__qualname__
