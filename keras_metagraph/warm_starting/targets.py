"""The variables of a model, by every name that a user may have for them."""

import dataclasses
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from functools import cached_property
from typing import Any

import keras

from keras_metagraph.export.names import named_variables
from keras_metagraph.export.vocabularies import sublayers
from keras_metagraph.graph.variables import graph_variables
from keras_metagraph.loading.meta_graph import LoadedMetaGraph

# Slots of parts have the optimizer's suffix: `emb/part_0/Adam`.
_PART = re.compile(r"(.+?)/part_(\d+)(/.+)?")


@dataclasses.dataclass(frozen=True, slots=True)
class Target:
    """A variable of a model.

    Attributes:
        name: Its name in TensorFlow 1, as an export gives it: `"dense/kernel"`.
        path: Its Keras path: `"sequential/dense/kernel"`.
        inner: The path without the model's own name.
        variable: The `keras.Variable`.
        trainable: Whether the model trains it.
    """

    name: str
    path: str
    inner: str
    variable: Any
    trainable: bool

    @property
    def shape(self) -> tuple[int, ...]:
        """Its shape."""
        return tuple(self.variable.shape)

    @property
    def dtype(self) -> str:
        """Its type."""
        return str(keras.backend.standardize_dtype(self.variable.dtype))


class Targets:
    """The weights of a model.

    Args:
        model: A built `keras.Model`.

    Attributes:
        model: The model.
        all: Its weights, trainable and not, in the model's order.
    """

    def __init__(self, model: Any) -> None:
        self.model = model
        self.all = [
            Target(v.name, v.path, _inner(v.path, model.name), v.variable, v.trainable)
            for v in named_variables(model)
            if v.role == "weight"
        ]
        self._by_id = {
            key: target
            for target in self.all
            for key in (id(target.variable), id(held_by(target.variable)))
        }
        self._by_name: dict[str, Target] = {}
        for names in ("inner", "path", "name"):  # The last one goes first.
            counts = Counter(getattr(target, names) for target in self.all)
            self._by_name |= {
                text: target
                for target in self.all
                if counts[text := getattr(target, names)] == 1
            }

    @property
    def names(self) -> list[str]:
        """Their names in TensorFlow 1."""
        return [target.name for target in self.all]

    def of(self, variable: Any) -> Target | None:
        """The target of a `keras.Variable` or `tf.Variable` of the model."""
        return self._by_id.get(id(variable))

    def named(self, name: str) -> list[Target]:
        """The variable of a name, or the parts of a partitioned one; else none."""
        found = self._by_name.get(name)
        return [found] if found is not None else self.parts(name)

    def parts(self, whole: str) -> list[Target]:
        """The parts of a partitioned variable, in order; none if it is not one."""
        return self._parts.get(whole, [])

    def inside(self, scope: str) -> list[tuple[Target, str]]:
        """The variables in a scope, each with its name below it.

        Args:
            scope: `"encoder/"`, or `"/"` for all; of names in TensorFlow 1 or, if
                there is none with it, of Keras paths.

        Returns:
            The variables; none if there is no such scope.
        """
        if scope == "/":
            return [(target, target.name) for target in self.all]
        for names in ("name", "path", "inner"):
            found = [
                (target, text.removeprefix(scope))
                for target in self.all
                if (text := getattr(target, names)).startswith(scope)
            ]
            if found:
                return found
        return []

    def of_layer(self, layer: Any) -> list[tuple[Target, str]]:
        """The variables of a layer or inner model, with their names below it."""
        pairs = [(self.of(weight), weight.path) for weight in layer.weights]
        return [(t, _inner(path, layer.name)) for t, path in pairs if t is not None]

    def layer_of(self, target: Target) -> Any:
        """The innermost layer that holds a variable."""
        return self._layers.get(id(target.variable))

    def place(self, target: Target) -> tuple[int, int] | None:
        """Which variable of how many it is in its layer, as Keras 3 numbers them."""
        return self._places.get(id(target.variable))

    @cached_property
    def _parts(self) -> dict[str, list[Target]]:
        """The parts of partitioned variables of TensorFlow 1, in order."""
        found: dict[str, list[tuple[int, Target]]] = {}
        for target in self.all:
            match = _PART.fullmatch(target.name)
            if match:
                whole = match[1] + (match[3] or "")
                found.setdefault(whole, []).append((int(match[2]), target))
        return {
            name: [target for _, target in sorted(parts, key=lambda part: part[0])]
            for name, parts in found.items()
        }

    @cached_property
    def keys(self) -> dict[str, str]:
        """Keys by name, as the saver of a loaded graph of TensorFlow 1 has them."""
        meta_graph = getattr(self.model, "meta_graph", None)
        if not isinstance(meta_graph, LoadedMetaGraph):
            return {}
        found = graph_variables(meta_graph.meta_graph_def, meta_graph.graph)
        keys = {name: variable.checkpoint_key for name, variable in found.items()}
        return {name: key for name, key in keys.items() if key is not None}

    @cached_property
    def _layers(self) -> dict[int, Any]:
        # Outer layers come first, so that inner ones replace them.
        return {
            id(weight): layer
            for layer in (self.model, *sublayers(self.model))
            for weight in layer.weights
        }

    @cached_property
    def _places(self) -> dict[int, tuple[int, int]]:
        places: dict[int, tuple[int, int]] = {}
        for layer in (self.model, *sublayers(self.model)):
            store: dict[str, Any] = {}
            layer.save_own_variables(store)
            for number, variable in store.items():
                if number.isdecimal() and id(variable) in self._by_id:
                    places[id(variable)] = (int(number), len(store))
        return places


def whole_of(name: str) -> str | None:
    """The partitioned variable that a variable is a part of, if its name says so.

    Args:
        name: Its name in TensorFlow 1, `"emb/part_0"`; a slot's is `"emb/part_0/Adam"`.

    Returns:
        The name of the whole, `"emb"` or `"emb/Adam"`; None for any other name.
    """
    match = _PART.fullmatch(name)
    return match[1] + (match[3] or "") if match else None


def spans(
    parts: Sequence[tuple[int, ...]], whole: tuple[int, ...]
) -> list[tuple[slice, ...]] | None:
    """Where parts lie in a whole that was cut along one axis.

    Args:
        parts: The shapes of the parts, in order.
        whole: The shape of the whole.

    Returns:
        A slice for each part; None if they do not make up the whole.

    Example:
        >>> spans([(4, 2), (3, 2)], (7, 2))[1]
        (slice(4, 7, None), slice(0, 2, None))
    """
    if any(len(part) != len(whole) for part in parts):
        return None
    for axis in range(len(whole)):
        sizes = [part[axis] for part in parts]
        others = {(*part[:axis], *part[axis + 1 :]) for part in parts}
        if sum(sizes) == whole[axis] and others == {
            (*whole[:axis], *whole[axis + 1 :])
        }:
            return list(_cut(sizes, axis, whole))
    return None


def _cut(
    sizes: Sequence[int], axis: int, whole: tuple[int, ...]
) -> Iterator[tuple[slice, ...]]:
    start = 0
    for size in sizes:
        span = [slice(0, length) for length in whole]
        span[axis] = slice(start, start + size)
        start += size
        yield tuple(span)


def _inner(path: str, outer: str) -> str:
    """The part of a path below a layer; the whole one if the layer is not in it."""
    parts = path.split("/")
    if outer in parts[:-1]:
        parts = parts[parts.index(outer) + 1 :]
    return "/".join(parts)


def held_by(variable: Any) -> Any:
    """The `tf.Variable` in a `keras.Variable`; any other variable itself."""
    held = getattr(variable, "value", variable)
    return variable if callable(held) else held
