"""Finds which arrays of a file belong to which weights of a model, and assigns them."""

import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import keras
import numpy as np

from keras_metagraph.errors import MissingVariableError, ShapeMismatchError, nearest
from keras_metagraph.formats.keras_h5 import KerasH5, Weights
from keras_metagraph.loading.legacy_keras.layouts import convert, stored_count
from keras_metagraph.loading.legacy_keras.parts import Part, live_parts
from keras_metagraph.loading.legacy_keras.wrappers import ChannelsFirst, FromState

Array = np.ndarray[Any, Any]


@dataclasses.dataclass
class Leaf:
    """A layer that holds no others, with what a file stores for it.

    Attributes:
        layer: The layer of Keras 3.
        trained: For each stored array, whether old Keras trained it.
        stored: Names and values in the file; empty until they are found.
        convert: Brings values in the order of the file into that of `layer.weights`.
    """

    layer: Any
    trained: list[bool]
    convert: Callable[[Sequence[Array]], list[Array]]
    stored: Weights = dataclasses.field(default_factory=list)


def assign(model: Any, content: KerasH5, *, by_name: bool | None = None) -> list[str]:
    """Gives a built model of Keras 3 the weights of a file of Keras 1 or 2.

    Args:
        model: A built model with the same layers.
        content: What `read_keras_h5` read.
        by_name: Whether layers are found by name, or by their order among those that
            have weights. By default by name where all names of the file are the
            model's, else by order.

    Returns:
        The names of the model's layers that the file has nothing for; none, unless
        `by_name=True`.

    Raises:
        MissingVariableError: If the layers of file and model are others.
        ShapeMismatchError: If weights do not fit; lists all. Nothing was assigned.

    Example:
        >>> assign(model, read_keras_h5("w.h5"))
        []
    """
    parts = live_parts(model)
    pairs, left = _pair(parts, content, by_name)
    assign_leaves(distribute(pairs, content))
    return left


def pair_by_order(
    parts: Sequence[Part], content: KerasH5
) -> list[tuple[Part, Weights]]:
    """Finds the group of the file for each layer of a model that was made from it.

    Args:
        parts: The layers of the model.
        content: The file.

    Returns:
        The layers and their stored weights: by name, and what has no name in the
        config (models inside models of Keras 1) by order.

    Raises:
        MissingVariableError: If a layer has weights, and the file has none for it.
    """
    names = {part.name for part in parts}
    others = iter([g for name, g in content.weights.items() if name not in names])
    pairs, findings = [], []
    for part in parts:
        group = content.weights.get(part.name)
        if group is None:
            group = next(others, None)
        if group is None and part.layer.weights:
            findings.append(part.name)
        pairs.append((part, group or []))
    if findings:
        raise MissingVariableError(
            f"{content.path!r} has no weights of these layers of its config:",
            findings=findings,
            fix="get the file once more.",
        )
    return pairs


def distribute(pairs: Sequence[tuple[Part, Weights]], content: KerasH5) -> list[Leaf]:
    """Gives each layer inside the layers of a model what the file stores for it.

    Args:
        pairs: Layers of the model, and what the file has under their names.
        content: The file.

    Returns:
        The layers that hold no others, in the order in which old Keras trained them.

    Raises:
        ShapeMismatchError: If the number of weights is another; lists all such layers.

    Example:
        >>> leaves = distribute(pair_by_order(part.parts, content), content)
    """
    found: dict[int, Leaf] = {}
    findings = []
    for part, stored in pairs:
        leaves = list(_leaves(part, content))
        count = sum(len(leaf.trained) for leaf in leaves)
        if count != len(stored) and not part.config:
            # A model that was built by hand does not say how Keras 1 kept its gates.
            fused = list(_leaves(part, content, fused=True))
            if sum(len(leaf.trained) for leaf in fused) == len(stored):
                leaves, count = fused, len(stored)
        if count != len(stored):
            names = [f"{name} {value.shape}" for name, value in stored]
            findings.append(
                f"{part.name}: {count} weights in the model, {len(stored)} in the file "
                f"({', '.join(names) or 'none'})"
            )
            continue
        _split(leaves, stored)
        for leaf in leaves:
            found.setdefault(id(leaf.layer), leaf)
    _raise_if(findings, content.path)
    return list(found.values())


def assign_leaves(leaves: Sequence[Leaf], path: str = "the file") -> None:
    """Assigns stored values, all of them or none.

    Args:
        leaves: Layers with what is stored for them.
        path: The file, for messages.

    Raises:
        ShapeMismatchError: If weights do not fit; lists all. Nothing was assigned.
    """
    values, findings = [], []
    for leaf in leaves:
        arrays = leaf.convert([value for _, value in leaf.stored])
        for variable, array in zip(leaf.layer.weights, arrays, strict=True):
            if tuple(variable.shape) != array.shape:
                findings.append(
                    f"{variable.path}: {tuple(variable.shape)} in the model, "
                    f"{array.shape} in the file"
                )
            values.append((variable, array))
    _raise_if(findings, path)
    for variable, array in values:
        variable.assign(array)
    for leaf in leaves:
        if isinstance(leaf.layer, keras.layers.Normalization):
            leaf.layer.finalize_state()  # It keeps constants made of its variables.


def _raise_if(findings: Sequence[str], path: str) -> None:
    if findings:
        raise ShapeMismatchError(
            f"Weights of {path!r} do not fit the model:",
            findings=findings,
            fix="build the model with the layers and sizes that the file was saved "
            "with.",
        )


def _pair(
    parts: Sequence[Part], content: KerasH5, by_name: bool | None
) -> tuple[list[tuple[Part, Weights]], list[str]]:
    """Finds the group of the file for each layer of a model that was built by hand."""
    parts = [part for part in parts if part.layer.weights]
    groups = {name: group for name, group in content.weights.items() if group}
    names = [part.name for part in parts]
    if by_name is None:
        by_name = set(names) == set(groups)
    if by_name:
        left = [name for name in names if name not in groups]
        return [(p, groups[p.name]) for p in parts if p.name in groups], left
    if len(parts) != len(groups):
        findings = [
            f"{name}: not in the model{nearest(name, names)}"
            for name in groups
            if name not in names
        ]
        findings += [f"{name}: not in the file" for name in names if name not in groups]
        raise MissingVariableError(
            f"The model has {len(parts)} layers with weights, and {content.path!r} "
            f"has {len(groups)}:",
            findings=findings,
            fix="build the model with the layers that the file was saved with; or pass "
            "by_name=True for those whose names are the same.",
        )
    return list(zip(parts, groups.values(), strict=True)), []


def _leaves(part: Part, content: KerasH5, *, fused: bool = False) -> Iterator[Leaf]:
    """The layers that hold no others, in the order of old Keras."""
    stack = [part]
    while stack:
        part = stack.pop()
        if part.parts:
            stack.extend(reversed(part.parts))
            continue
        frozen = part.config.get("trainable", True) is False
        joined = fused or _is_fused(part.config)
        for layer, first in _inner_layers(part.layer):
            count = stored_count(layer, content.release, joined)
            weights = layer.weights
            trained = [
                not frozen and _is_trained(layer, weights, i) for i in range(count)
            ]
            yield Leaf(layer, trained, _converter(layer, content, first))


def _is_trained(layer: Any, weights: Sequence[Any], index: int) -> bool:
    """Whether a weight is one that training changes, unless its layer is frozen."""
    if index >= len(weights):
        return True  # of a gate; such layers have no others
    name = weights[index].name
    return not name.startswith("moving_") and not isinstance(
        layer, keras.layers.Normalization
    )


def _is_fused(config: Mapping[str, Any]) -> bool:
    """Whether a recurrent layer of Keras 1 kept its gates in one array."""
    inner = config.get("layer")
    if isinstance(inner, Mapping):
        config = inner.get("config") or {}
    return config.get("consume_less") == "gpu"


def _inner_layers(layer: Any) -> Iterator[tuple[Any, bool]]:
    """The layer, or those that a wrapper holds; and whether channels come first."""
    first = getattr(layer, "data_format", None) == "channels_first"
    if isinstance(layer, keras.layers.Bidirectional):
        yield from _inner_layers(layer.forward_layer)
        yield from _inner_layers(layer.backward_layer)
    elif isinstance(layer, ChannelsFirst):
        yield layer.layer, True
    elif isinstance(layer, keras.layers.TimeDistributed | FromState):
        yield from _inner_layers(layer.layer)
    else:
        yield layer, first


def _converter(
    layer: Any, content: KerasH5, first: bool
) -> Callable[[Sequence[Array]], list[Array]]:
    release, backend = content.release, content.backend
    return lambda arrays: convert(layer, arrays, release, backend, channels_first=first)


def _split(leaves: Sequence[Leaf], stored: Weights) -> None:
    """Deals the arrays of one group out: those that are trained stand before others."""
    values = iter(stored)
    kept: list[Weights] = [[] for _ in leaves]
    for wanted in (True, False):
        for leaf, own in zip(leaves, kept, strict=True):
            own.extend(next(values) for trained in leaf.trained if trained is wanted)
    for leaf, own in zip(leaves, kept, strict=True):
        # Within a layer of Keras the trained ones come first anyway.
        leaf.stored = own
