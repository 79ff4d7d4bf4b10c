"""Pairs the variables of a Keras 2 SavedModel with those of its Keras 3 twin.

Model and object graph are walked together, by the names of attributes: the `kernel` of
the layer that the model has as `encoder`. Nothing is told by order or by the names of
variables, which repeat.
"""

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import keras

from keras_metagraph.errors import ShapeMismatchError
from keras_metagraph.export.vocabularies import sublayers
from keras_metagraph.loading.legacy_keras.saved_objects import ROOT, SavedObjects
from keras_metagraph.loading.legacy_keras.wrappers import ChannelsFirst, FromState

# What Keras 3 calls attributes of its layers otherwise.
_RENAMED = {
    "depthwise_kernel": ("kernel",),
    "mean": ("adapt_mean",),
    "variance": ("adapt_variance",),
}
# State of random generators and of `adapt`, which Keras 3 keeps in other ways.
_NO_WEIGHTS = frozenset(
    {"_random_generator", "_rng", "count", "idf_weights", "num_documents", "summary"}
)


@dataclasses.dataclass(frozen=True, slots=True)
class Pair:
    """A weight and the variable of the SavedModel that it was.

    Attributes:
        variable: The Keras variable.
        node: The number of the saved one in the object graph.
    """

    variable: Any
    node: int


def pair_weights(model: Any, objects: SavedObjects) -> list[Pair]:
    """Finds the saved variable of each weight of a model.

    Args:
        model: The built model of Keras 3.
        objects: The SavedModel that its config is from.

    Returns:
        The pairs, each weight once.

    Raises:
        ShapeMismatchError: If a weight has none, or a variable that the saved model
            counts among its own is left over; lists all of them.

    Example:
        >>> pair_weights(model, objects)[0].variable.path
        'dense/kernel'
    """
    pairs: dict[int, Pair] = {}
    seen: set[tuple[int, int]] = set()
    random: set[int] = set()
    stack: list[tuple[Any, int]] = [(model, ROOT)]
    while stack:
        held, node = stack.pop()
        if held is None or (id(held), node) in seen:
            continue
        seen.add((id(held), node))
        if objects.is_variable(node):
            if isinstance(held, keras.Variable):
                pairs.setdefault(id(held), Pair(held, node))
            continue
        for name in _NO_WEIGHTS & objects.children(node).keys():
            random |= _variables_under(objects, objects.children(node)[name])
        stack.extend(reversed(list(_members(held, node, objects))))
    _require_complete(model, pairs, random, objects)
    return list(pairs.values())


def assign_weights(pairs: Sequence[Pair], objects: SavedObjects, model: Any) -> None:
    """Gives the weights their values, all of them or none.

    Args:
        pairs: What `pair_weights` returned.
        objects: The SavedModel.
        model: The model, whose normalizations compute constants of their weights.

    Raises:
        ShapeMismatchError: If values do not fit; lists all. Nothing was assigned.
        CheckpointError: If values are missing or damaged.
    """
    values, findings = [], []
    for pair in pairs:
        value = objects.value(pair.node)
        shape = None if value is None else value.shape
        if shape != tuple(pair.variable.shape):
            findings.append(
                f"{pair.variable.path}: {tuple(pair.variable.shape)} in the model, "
                f"{shape or 'nothing'} in the checkpoint"
            )
        values.append(value)
    if findings:
        raise ShapeMismatchError(
            "Weights of the SavedModel do not fit the model of its config:",
            findings=findings,
            fix='load its functions with rebuild="graph".',
        )
    for pair, value in zip(pairs, values, strict=True):
        pair.variable.assign(value)
    for layer in sublayers(model):
        if isinstance(layer, keras.layers.Normalization) and layer.input_mean is None:
            layer.finalize_state()  # It keeps constants made of its variables.


def _members(held: Any, node: int, objects: SavedObjects) -> Iterator[tuple[Any, int]]:
    """What an object holds, with the number of each in the object graph."""
    if isinstance(held, ChannelsFirst | FromState):
        yield held.layer, node
        return
    if isinstance(held, Mapping):
        for name, child in objects.children(node).items():
            yield held.get(name), child
        return
    if isinstance(held, list | tuple):
        for place, child in enumerate(objects.elements(node)):
            yield (held[place] if place < len(held) else None), child
        return
    if isinstance(held, keras.Model):
        yield from _layers(held, objects.layers(node), objects)
    for name, child in objects.attributes(node).items():
        yield _attribute(held, name, objects.is_variable(child)), child


def _layers(
    model: Any, saved: Sequence[int], objects: SavedObjects
) -> Iterator[tuple[Any, int]]:
    """The layers of a sequential or functional model, by name."""
    saved = [node for node in saved if not objects.is_input(node)]
    layers = [
        layer
        for layer in model.layers
        if not isinstance(layer, keras.layers.InputLayer)
    ]
    named = {_within(layer).name: layer for layer in layers}
    names = [objects.keras[node].name.replace("/", "_") for node in saved]
    unknown = [n for name, n in zip(names, saved, strict=True) if name not in named]
    if not any(_variables_under(objects, node) for node in unknown):
        for name, node in zip(names, saved, strict=True):
            yield named.get(name), node
    elif len(layers) == len(saved):
        # A model that a class of the caller made: its layers have new names.
        yield from zip(layers, saved, strict=True)


def _within(layer: Any) -> Any:
    """The layer of the file, which may have been called in a wrapper."""
    return layer.layer if isinstance(layer, FromState) else layer


def _attribute(held: Any, name: str, is_variable: bool) -> Any:
    """An attribute of a layer, as Keras 3 calls it."""
    for known in (name, *_RENAMED.get(name, ())):
        value = getattr(held, known, None)
        if value is not None and isinstance(value, keras.Variable) == is_variable:
            return value
    return None


def _require_complete(
    model: Any, pairs: Mapping[int, Pair], random: set[int], objects: SavedObjects
) -> None:
    findings = [
        f"{variable.path} {tuple(variable.shape)}: not in the SavedModel"
        for variable in model.weights
        if id(variable) not in pairs and not _is_count(variable)
    ]
    taken = {pair.node for pair in pairs.values()} | random
    findings += [
        f"{objects.variable_name(node)}: not in the model"
        for node in objects.listed(ROOT, "variables")
        if node not in taken
    ]
    if findings:
        raise ShapeMismatchError(
            "The weights of the SavedModel are not those of the model of its config:",
            findings=findings,
            fix="pass classes as custom_objects that have their layers and weights in "
            'the attributes that the saved ones had; or rebuild="graph".',
        )


def _is_count(variable: Any) -> bool:
    """Whether a weight counts what `adapt` has seen, which some releases did not."""
    return bool(variable.name == "count" and len(variable.shape) == 0)


def _variables_under(objects: SavedObjects, node: int) -> set[int]:
    stack, seen = [node], set()
    while stack:
        node = stack.pop()
        if node not in seen:
            seen.add(node)
            stack.extend(objects.children(node).values())
    return {node for node in seen if objects.is_variable(node)}
