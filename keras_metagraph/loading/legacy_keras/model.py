"""Rebuilds models of Keras 1 and 2 from their configs."""

import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import keras

from keras_metagraph.errors import FormatError
from keras_metagraph.loading.legacy_keras.called_graph import (
    CalledGraph,
    input_tensor,
    legal_name,
)
from keras_metagraph.loading.legacy_keras.config import Objects
from keras_metagraph.loading.legacy_keras.layers import hard_sigmoid
from keras_metagraph.loading.legacy_keras.parts import Part
from keras_metagraph.loading.legacy_keras.wrappers import AddLoss

_MODELS = frozenset({"Functional", "Model", "Network", "Sequential", "Container"})
_DEEPEST = 32
_LOSS = "AddLoss"


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
        name = legal_name(config["name"])
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
        graph = CalledGraph(nodes, by_name, config)
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
        model = make(inputs=inputs, outputs=outputs, name=legal_name(config["name"]))
        return Part(config["name"], kind, config, model, parts)


def _with_losses(output: Any, losses: list[Any]) -> Any:
    """An output that adds to the loss of the model when it is computed."""
    if isinstance(output, list | dict):
        problem = "add_loss, in a model with several outputs"
        raise ValueError(problem)  # noqa: TRY004, as for all that does not fit
    return AddLoss()([output, *losses])


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
        return input_tensor(config, str(config.get("name")))
    if isinstance(config, Mapping) and config.get("batch_input_shape"):
        return input_tensor(config, f"{config['name']}_input")
    inner = parts[0].layer
    if isinstance(inner, keras.Model) and inner.built and len(inner.inputs) == 1:
        (tensor,) = inner.inputs
        return keras.Input(batch_shape=tensor.shape, dtype=tensor.dtype)
    layer = config.get("layer") if isinstance(config, Mapping) else None
    if isinstance(layer, Mapping) and isinstance(layer.get("config"), Mapping):
        return _start(layer, parts)  # what a wrapper's layer was given
    return None


def _chain(value: Any, layers: Sequence[Any]) -> Any:
    for layer in layers:
        value = layer(value)
    return value


def _single(tensors: Any) -> Any:
    """The only tensor of a list, which then is no list."""
    return tensors[0] if isinstance(tensors, list) and len(tensors) == 1 else tensors
