"""Calls the layers of a functional model as the config of a file says."""

import collections
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import keras

from keras_metagraph.loading.legacy_keras.parts import Part
from keras_metagraph.loading.legacy_keras.tensor_functions import (
    TensorFunction,
    bind,
    is_reference,
)
from keras_metagraph.loading.legacy_keras.wrappers import FromState

_RECURRENT = frozenset(
    {"Bidirectional", "ConvLSTM2D", "CuDNNGRU", "CuDNNLSTM", "GRU", "LSTM", "RNN"}
    | {"SimpleRNN"}
)

Place = tuple[str, int]  # a layer's name, and which of its calls


class CalledGraph:
    """The tensors of a functional model, whose layers were called as its config says.

    Args:
        nodes: The layers in the config, with how they are called.
        parts: What became of them, by name; inputs are made here.
        config: The config of the model.

    Raises:
        ValueError: If inputs of layers do not exist, or are ragged.

    Example:
        >>> CalledGraph(nodes, parts, config).tensors(config["output_layers"])
    """

    def __init__(
        self,
        nodes: Sequence[Mapping[str, Any]],
        parts: Mapping[str, Part],
        config: Mapping[str, Any],
    ) -> None:
        self._parts = parts
        self._outputs: dict[Place, list[Any]] = {}
        calls: dict[Place, Any] = {}
        for node in nodes:
            name = str(node["name"])
            if node["class_name"] == "InputLayer":
                self._outputs[name, 0] = [input_tensor(node["config"], name)]
            else:
                for index, call in enumerate(node["inbound_nodes"]):
                    calls[name, index] = call
        used = [
            *_references(list(calls.values())),
            *_references(config["output_layers"]),
        ]
        self._first = _first_calls(parts, used)
        self._counts = collections.Counter(name for name, _ in calls)
        self._masks = any(_makes_masks(part) for part in parts.values())
        self._wrapped: dict[str, FromState] = {}
        self._run(calls)

    def tensors(self, value: Any) -> Any:
        """Replaces references by their tensors, in a structure of them."""
        if is_reference(value):
            return self._outputs[self._place(value)][value[2]]
        if isinstance(value, Mapping):
            return {key: self.tensors(item) for key, item in value.items()}
        if isinstance(value, list | tuple):
            return [self.tensors(item) for item in value]
        return value

    def _run(self, calls: Mapping[Place, Any]) -> None:
        """Calls each layer as soon as its inputs are there."""
        waiting: dict[Place, int] = {}
        followers: dict[Place, list[Place]] = collections.defaultdict(list)
        for place, call in calls.items():
            needed = {self._place(reference) for reference in _references(call)}
            needed -= self._outputs.keys()
            waiting[place] = len(needed)
            for other in needed:
                followers[other].append(place)
        ready = collections.deque(place for place in calls if not waiting[place])
        while ready:
            place = ready.popleft()
            self._outputs[place] = self._call(place[0], calls[place])
            for follower in followers[place]:
                waiting[follower] -= 1
                if not waiting[follower]:
                    ready.append(follower)
        left = [name for (name, _), count in waiting.items() if count]
        if left:
            raise ValueError(f"the inputs of these layers do not exist: {left[:8]}")

    def _call(self, name: str, call: Any) -> list[Any]:
        """Calls a layer, and lists what it returns."""
        part = self._parts[name]
        if isinstance(part.layer, TensorFunction):
            return self._call_function(part, call)
        keywords: dict[str, Any] = {}
        for reference in _references(call):
            if len(reference) > 3:
                keywords |= reference[3]
        keywords = self.tensors(keywords)
        inputs = self.tensors(call)
        if isinstance(inputs, list) and len(inputs) == 1:
            inputs = inputs[0]
        elif isinstance(inputs, list) and part.kind in _RECURRENT:
            # Keras 2 kept the initial state among the inputs.
            if self._masks:
                return _listed(self._from_state(part)(inputs, **keywords))
            inputs, *state = inputs
            keywords["initial_state"] = state
        return _listed(part.layer(inputs, **keywords))

    def _from_state(self, part: Part) -> Any:
        """A recurrent layer that takes its state and keeps the mask of its input."""
        alone = self._counts[part.name] == 1
        name = part.layer.name if alone else f"{part.layer.name}_from_state"
        return self._wrapped.setdefault(part.name, FromState(part.layer, name=name))

    def _call_function(self, part: Part, call: Any) -> list[Any]:
        """Calls a function of TensorFlow: each call has constants of its own."""
        again = part.layer.built
        layer, references = bind(part.layer, call, again)
        if not again:
            part.layer = layer
        return _listed(layer([self.tensors(reference) for reference in references]))

    def _place(self, reference: Sequence[Any]) -> Place:
        name = str(reference[0])
        return name, reference[1] - self._first.get(name, 0)


def _makes_masks(part: Part) -> bool:
    """Whether a layer, or one in a model, begins a mask."""
    begins = isinstance(part.layer, keras.layers.Masking)
    begins = begins or bool(getattr(part.layer, "mask_zero", False))
    return begins or any(_makes_masks(inner) for inner in part.parts)


def _listed(outputs: Any) -> list[Any]:
    """The tensors that a layer returned, in a list."""
    if isinstance(outputs, Mapping):
        return list(outputs.values())
    return list(outputs) if isinstance(outputs, list | tuple) else [outputs]


def _references(value: Any) -> Iterator[Sequence[Any]]:
    """The references to tensors in calls, and in arguments of calls."""
    stack = [value]
    while stack:
        value = stack.pop()
        if is_reference(value):
            yield value
            stack.extend(value[3:])
        elif isinstance(value, Mapping):
            stack.extend(value.values())
        elif isinstance(value, list | tuple):
            stack.extend(reversed(value))


def _first_calls(
    parts: Mapping[str, Part], references: Sequence[Sequence[Any]]
) -> dict[str, int]:
    """The number of the first call, for models inside the model.

    Making a model was its call 0 in Keras 1 and 2; some releases of tf.keras did not
    count it. A call that nothing uses is not in the file, so the least number tells.
    """
    least: dict[str, int] = {}
    for name, index, *_ in references:
        part = parts.get(name)
        if part is not None and part.parts:
            least[name] = min(least.get(name, index), index)
    return least


def input_tensor(config: Mapping[str, Any], name: str) -> Any:
    """Makes the input that a config describes.

    Args:
        config: The config of an `InputLayer`.
        name: Its name in the file.

    Returns:
        A symbolic tensor.

    Raises:
        ValueError: If it is ragged.
    """
    dtype = config.get("input_dtype") or config.get("dtype")
    if config.get("ragged"):
        raise ValueError(f"the input {name} is ragged, which Keras 3 has not")
    return keras.Input(
        batch_shape=tuple(config.get("batch_input_shape") or config["batch_shape"]),
        dtype=dtype if isinstance(dtype, str) else None,
        sparse=bool(config.get("sparse")),
        name=legal_name(name),
    )


def legal_name(name: Any) -> str:
    """A name of the file as Keras 3 takes it: without slashes."""
    return str(name).replace("/", "_")
