"""Python values as JSON with tensors beside it, and back. No pickle, no classes.

A manifest holds the JSON; arrays, tensors and bytes in it stand in the checkpoint under
names of their own, with its checksums.
"""

import collections
import math
import random
from collections.abc import Callable, Mapping
from typing import Any

import keras
import numpy as np
import tensorflow as tf

_GENERATORS = {
    kind.__name__: kind
    for kind in (
        np.random.MT19937,
        np.random.PCG64,
        np.random.PCG64DXSM,
        np.random.Philox,
        np.random.SFC64,
    )
}


class Encoder:
    """Encodes values, and collects the tensors that they hold.

    Args:
        prefix: What the names of the tensors start with.
        copy: Whether arrays are copied, since their owner may change them later.

    Attributes:
        tensors: The tensors so far by name.

    Example:
        >>> Encoder("keras_metagraph/").encode((1, 2.5))
        {'tuple': [1, 2.5]}
    """

    def __init__(self, prefix: str = "", *, copy: bool = True) -> None:
        self.prefix = prefix
        self.copy = copy
        self.tensors: dict[str, Any] = {}

    def encode(self, value: Any) -> Any:
        """Encodes a value.

        Args:
            value: None, numbers, text, bytes, arrays, tensors, variables, random
                generators, and lists, tuples, sets, deques and dicts of them.

        Returns:
            What `json.dumps` takes.

        Raises:
            TypeError: If there is anything else in it. No tensor was added then.
        """
        known = len(self.tensors)
        try:
            return self._encode(value)
        except (TypeError, RecursionError) as error:
            for name in list(self.tensors)[known:]:
                del self.tensors[name]
            raise TypeError(str(error)) from error

    def _encode(self, value: Any) -> Any:
        kind = type(value)
        if value is None or kind in (bool, int, str):
            return value
        if kind is float:
            return value if math.isfinite(value) else {"float": str(value)}
        if kind is list:
            return [self._encode(each) for each in value]
        if kind in (tuple, set, frozenset):
            members = sorted(value, key=repr) if kind is not tuple else value
            return {kind.__name__: [self._encode(each) for each in members]}
        if kind is collections.deque:
            items = [self._encode(each) for each in value]
            return {"deque": items, "maxlen": value.maxlen}
        if kind in (dict, collections.OrderedDict):
            pairs = [[self._encode(k), self._encode(v)] for k, v in value.items()]
            return {kind.__name__: pairs}
        return self._encode_leaf(value)

    def _encode_leaf(self, value: Any) -> Any:
        """Encodes what has a value of its own kind of state."""
        if isinstance(value, np.ndarray | np.generic) and value.dtype.kind in "biufcSU":
            if value.dtype.kind in "SU":
                raise TypeError("arrays of text")
            key = "array" if isinstance(value, np.ndarray) else "scalar"
            return {key: self._add(np.array(value) if self.copy else value)}
        if isinstance(value, bytes):
            return {"bytes": self._add(tf.constant(value))}
        if isinstance(value, keras.Variable | tf.Variable):
            return {"variable": self._add(tf.identity(tf.convert_to_tensor(value)))}
        if isinstance(value, tf.Tensor):
            return {"tensor": self._add(value)}
        if isinstance(value, np.random.Generator):
            return {"generator": self._encode(value.bit_generator.state)}
        if isinstance(value, np.random.RandomState):
            return {"random_state": self._encode(value.get_state(legacy=True))}
        if type(value) is random.Random:
            return {"random": self._encode(value.getstate())}
        raise TypeError(f"objects of type {type(value).__qualname__}")

    def _add(self, tensor: Any) -> str:
        name = f"{self.prefix}{len(self.tensors)}"
        self.tensors[name] = tensor
        return name


def decode(encoded: Any, read: Callable[[str], Any], current: Any = None) -> Any:
    """Decodes what `Encoder` made.

    Args:
        encoded: The JSON.
        read: Gives the array of a name.
        current: The value that is there now: variables and random generators are set
            in place, since others may share them.

    Returns:
        The value.

    Raises:
        ValueError: If the JSON is none that `Encoder` makes.
    """
    if not isinstance(encoded, dict | list):
        return encoded
    if isinstance(encoded, list):
        return [decode(each, read) for each in encoded]
    key = next(iter(encoded), "")
    value: Any = encoded.get(key)
    if key in _CONTAINERS:
        return _CONTAINERS[key](decode(each, read) for each in value)
    if key == "deque":
        return collections.deque((decode(v, read) for v in value), encoded["maxlen"])
    if key in ("array", "scalar"):
        array = np.array(read(value))
        return array if key == "array" else array[()]
    if key in _LEAVES:
        return _LEAVES[key](value, read, current)
    raise ValueError(f"unknown value {key!r}")


def _tensor(name: str, read: Callable[[str], Any], _: Any) -> Any:
    return tf.constant(read(name))


def _bytes(name: str, read: Callable[[str], Any], _: Any) -> bytes:
    return bytes(np.asarray(read(name)).item())


def _float(text: str, _: Callable[[str], Any], __: Any) -> float:
    return float(text)


def _variable(name: str, read: Callable[[str], Any], current: Any) -> Any:
    if current is None:
        raise ValueError("a variable has no counterpart")
    current.assign(read(name))
    return current


def _generator(state: Any, read: Callable[[str], Any], current: Any) -> Any:
    state = decode(state, read)
    kind = state["bit_generator"]
    if current is None or current.bit_generator.state["bit_generator"] != kind:
        current = np.random.Generator(_GENERATORS[kind]())
    current.bit_generator.state = state
    return current


def _random_state(state: Any, read: Callable[[str], Any], current: Any) -> Any:
    current = np.random.RandomState() if current is None else current
    current.set_state(decode(state, read))
    return current


def _random(state: Any, read: Callable[[str], Any], current: Any) -> Any:
    current = random.Random() if current is None else current
    current.setstate(decode(state, read))
    return current


_CONTAINERS: Mapping[str, Callable[..., Any]] = {
    "tuple": tuple,
    "set": set,
    "frozenset": frozenset,
    "dict": dict,
    "OrderedDict": collections.OrderedDict,
}
_LEAVES: Mapping[str, Callable[..., Any]] = {
    "float": _float,
    "tensor": _tensor,
    "bytes": _bytes,
    "variable": _variable,
    "generator": _generator,
    "random_state": _random_state,
    "random": _random,
}
