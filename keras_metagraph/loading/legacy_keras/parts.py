"""What became of the layers of a file."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import keras


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
