"""Rebuilds models of Keras 1 and 2 from their configs."""

import collections
import dataclasses
import warnings
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import keras

from keras_metagraph.errors import FormatError
from keras_metagraph.loading.legacy_keras.config import Objects
from keras_metagraph.loading.legacy_keras.layers import hard_sigmoid
from keras_metagraph.loading.legacy_keras.tensor_functions import (
    TensorFunction,
    bind,
    is_reference,
)
from keras_metagraph.loading.legacy_keras.wrappers import AddLoss, FromState

_MODELS = frozenset({"Functional", "Model", "Network", "Sequential", "Container"})
_RECURRENT = frozenset(
    {"Bidirectional", "ConvLSTM2D", "CuDNNGRU", "CuDNNLSTM", "GRU", "LSTM", "RNN"}
    | {"SimpleRNN"}
)
_DEEPEST = 32
_LOSS = "AddLoss"

Place = tuple[str, int]  # a layer's name, and which of its calls


@dataclasses.dataclass
class Part:
    """A layer of the file and what it became.

    Attributes:
        name: Its name in the file.
        kind: The name of its class in the file.
        config: Its config in the file; empty for a model that was not read from one.
        layer: The layer of Keras 3.
        parts: The layers of a model, in the file's order; empty for other layers.
    """

    name: str
    kind: str
    config: Mapping[str, Any]
    layer: Any
    parts: list["Part"] = dataclasses.field(default_factory=list)


def build_model(config: Mapping[str, Any], objects: Objects) -> Part:
    """Rebuilds a model, with initial weights.

    Args:
        config: The attribute `model_config` of a file.
        objects: What its names stand for.

    Returns:
        The model and its layers as the file lists them.

    Raises:
        FormatError: If the config is no model, or layers do not fit; lists all.
        CustomObjectError: If classes are missing; lists all.
        UntrustedContentError: If Python code of the file is needed.

    Example:
        >>> build_model(read_keras_h5("m.h5").model_config, objects).layer.summary()
    """
    scope = {**objects.custom, "hard_sigmoid": hard_sigmoid}
    problem = "not all of its layers could be made"
    try:
        # For the classes of the caller, which look names up themselves.
        with keras.saving.custom_object_scope(scope):
            return _Builder(objects).model(config)
    except _UnfinishedError:
        pass
    # What Keras raises where layers do not fit together, and damaged configs.
    except (AttributeError, IndexError, KeyError, TypeError, ValueError) as error:
        reason = str(error).strip().partition("\n")[0]
        problem = f"{type(error).__name__}: {reason}"
    objects.raise_findings()
    raise FormatError(
        f"No model of Keras 3 comes of the config of the file: {problem}",
        fix="get the file once more; or build the model in Keras 3 and load its "
        "weights with warm_start.",
    )


class _UnfinishedError(Exception):
    """A layer was not made, for a reason that the findings tell."""


class _Builder:
    """Makes models, one inside the other."""

    def __init__(self, objects: Objects) -> None:
        self._objects = objects
        self._depth = 0

    def model(self, node: Mapping[str, Any], name: str = "model") -> Part:
        """Makes a model from its class and config."""
        self._depth += 1
        if self._depth > _DEEPEST:
            raise ValueError(f"models are nested more than {_DEEPEST} deep")
        kind, config = str(node["class_name"]), node["config"]
        if isinstance(config, list):  # Keras 1, and 2 until 2.2.3
            config = {"layers": config}
        config = {"name": name, **config}
        make = self._functional if "input_layers" in config else self._sequential
        part = make(kind, config)
        self._depth -= 1
        return part

    def _part(self, node: Mapping[str, Any]) -> Part:
        """Makes a layer or an inner model."""
        kind, config = str(node["class_name"]), node["config"]
        if _is_model(node):
            given = node.get("name") or f"{kind.lower()}_in_{self._depth}"
            return self.model(node, str(given))
        name, arguments, parts = str(config.get("name", kind)), dict(config), []
        inner = config.get("layer")
        if isinstance(inner, Mapping) and _is_model(inner):
            parts = [self.model(inner, f"{name}_layer")]
            arguments["layer"] = parts[0].layer
        layer = self._objects.layer(kind, arguments)
        if layer is None:
            raise _UnfinishedError
        return Part(name, kind, config, layer, parts)

    def _parts(self, nodes: Sequence[Mapping[str, Any]]) -> dict[int, Part]:
        """Makes all layers but inputs, by place; tells of all that fail together."""
        parts, depth, failed = {}, self._depth, False
        for place, node in enumerate(nodes):
            if node["class_name"] == "InputLayer":
                continue
            try:
                parts[place] = self._part(node)
            except _UnfinishedError:
                failed, self._depth = True, depth
        if failed:
            raise _UnfinishedError
        return parts

    def _sequential(self, kind: str, config: Mapping[str, Any]) -> Part:
        nodes = [_with_class(node) for node in config["layers"]]
        if nodes[0]["class_name"] == "Merge" and nodes[0]["config"].get("layers"):
            return self._branches(kind, config, nodes)
        parts = list(self._parts(nodes).values())
        start = _start(nodes[0], parts)
        layers = [part.layer for part in parts]
        name = _legal(config["name"])
        if start is not None and len({id(layer) for layer in layers}) < len(layers):
            return self._finish(kind, config, start, _chain(start, layers), parts)
        make = self._class(kind) or keras.Sequential
        model = make(layers if start is None else [start, *layers], name=name)
        shape = config.get("build_input_shape")
        if not model.built and shape:
            model.build(tuple(shape))
        return Part(config["name"], kind, config, model, parts)

    def _branches(
        self, kind: str, config: Mapping[str, Any], nodes: list[Mapping[str, Any]]
    ) -> Part:
        """A Sequential of Keras 1 that starts by merging models."""
        branches = [_with_class(node) for node in nodes[0]["config"]["layers"]]
        made = [self._parts([node])[0] for node in branches]
        inputs, outputs, parts = [], [], []
        for node, branch in zip(branches, made, strict=True):
            if branch.parts:
                inputs += branch.layer.inputs
                outputs += branch.layer.outputs
                parts += branch.parts
            else:
                start = _start(node, [branch])
                inputs.append(start)
                outputs.append(branch.layer(start))
                parts.append(branch)
        merge, *rest = self._parts(nodes).values()
        outputs = _chain(merge.layer(outputs), [part.layer for part in rest])
        return self._finish(kind, config, inputs, outputs, [*parts, merge, *rest])

    def _functional(self, kind: str, config: Mapping[str, Any]) -> Part:
        losses = [node for node in config["layers"] if node["class_name"] == _LOSS]
        nodes = [node for node in config["layers"] if node not in losses]
        parts = self._parts(nodes)
        by_name = {str(nodes[place]["name"]): part for place, part in parts.items()}
        for name, part in by_name.items():
            part.name = name
        graph = _Graph(nodes, by_name, config)
        inputs = graph.tensors(config["input_layers"])
        outputs = graph.tensors(config["output_layers"])
        if losses:
            calls = [node["inbound_nodes"] for node in losses]
            added = keras.tree.flatten(graph.tensors(calls))
            outputs = _with_losses(_single(outputs), added)
        return self._finish(kind, config, inputs, outputs, list(by_name.values()))

    def _class(self, kind: str) -> Any:
        """The caller's class of a model; None for Keras's own, and if it is missing."""
        custom = None if kind in _MODELS else self._objects.find_custom(kind)
        if custom is None and kind not in _MODELS:
            warnings.warn(
                f"The class {kind!r} of a model is not known here: a plain model of "
                "the same layers stands in, without methods such as train_step. Pass "
                "the class as custom_objects.",
                stacklevel=2,
            )
        return custom

    def _finish(
        self,
        kind: str,
        config: Mapping[str, Any],
        inputs: Any,
        outputs: Any,
        parts: list[Part],
    ) -> Part:
        """Makes a functional model, of the caller's class if the file names it."""
        custom = self._class(kind)
        make = keras.Model if custom is None else custom
        inputs, outputs = _single(inputs), _single(outputs)
        model = make(inputs=inputs, outputs=outputs, name=_legal(config["name"]))
        return Part(config["name"], kind, config, model, parts)


class _Graph:
    """Calls the layers of a functional model as its config says."""

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
                self._outputs[name, 0] = [_input(node["config"], name)]
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


def _with_losses(output: Any, losses: list[Any]) -> Any:
    """An output that adds to the loss of the model when it is computed."""
    if isinstance(output, list | dict):
        problem = "add_loss, in a model with several outputs"
        raise ValueError(problem)  # noqa: TRY004, as for all that does not fit
    return AddLoss()([output, *losses])


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


def live_parts(model: Any) -> list[Part]:
    """The layers of a model that was not read from a file.

    Args:
        model: A model of Keras 3.

    Returns:
        Its layers in Keras's order, with those of inner models.

    Example:
        >>> [part.name for part in live_parts(model)]
        ['dense', 'dense_1']
    """
    found = []
    for layer in model.layers:
        if isinstance(layer, keras.layers.InputLayer):
            continue
        inner = getattr(layer, "layer", layer)
        parts = []
        if isinstance(inner, keras.Model):
            parts = live_parts(inner)
            if inner is not layer:
                parts = [Part(inner.name, type(inner).__name__, {}, inner, parts)]
        found.append(Part(layer.name, type(layer).__name__, {}, layer, parts))
    return found


def _with_class(node: Mapping[str, Any]) -> Mapping[str, Any]:
    """A layer as it stands in all but the first files of Keras 1."""
    if "class_name" in node:
        return node
    config = {**node, "name": node.get("custom_name") or node["name"]}
    return {"class_name": node["name"], "config": config}


def _is_model(node: Mapping[str, Any]) -> bool:
    """Whether a layer holds layers of its own."""
    config = node["config"]
    if isinstance(config, list):
        return True
    return node["class_name"] != "Merge" and isinstance(config.get("layers"), list)


def _start(node: Mapping[str, Any], parts: Sequence[Part]) -> Any:
    """The input of a sequential model; None if the file leaves its shape open."""
    config = node["config"]
    if node["class_name"] == "InputLayer":
        return _input(config, str(config.get("name")))
    if isinstance(config, Mapping) and config.get("batch_input_shape"):
        return _input(config, f"{config['name']}_input")
    inner = parts[0].layer
    if isinstance(inner, keras.Model) and inner.built and len(inner.inputs) == 1:
        (tensor,) = inner.inputs
        return keras.Input(batch_shape=tensor.shape, dtype=tensor.dtype)
    layer = config.get("layer") if isinstance(config, Mapping) else None
    if isinstance(layer, Mapping) and isinstance(layer.get("config"), Mapping):
        return _start(layer, parts)  # what a wrapper's layer was given
    return None


def _input(config: Mapping[str, Any], name: str) -> Any:
    """The input that a config describes."""
    dtype = config.get("input_dtype") or config.get("dtype")
    if config.get("ragged"):
        raise ValueError(f"the input {name} is ragged, which Keras 3 has not")
    return keras.Input(
        batch_shape=tuple(config.get("batch_input_shape") or config["batch_shape"]),
        dtype=dtype if isinstance(dtype, str) else None,
        sparse=bool(config.get("sparse")),
        name=_legal(name),
    )


def _chain(value: Any, layers: Sequence[Any]) -> Any:
    for layer in layers:
        value = layer(value)
    return value


def _single(tensors: Any) -> Any:
    """The only tensor of a list, which then is no list."""
    return tensors[0] if isinstance(tensors, list) and len(tensors) == 1 else tensors


def _legal(name: Any) -> str:
    """A name as Keras 3 takes it."""
    return str(name).replace("/", "_")
