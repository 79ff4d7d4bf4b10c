"""What layers learn by `adapt`, and keep neither in variables nor in their config."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import keras

_LOOKUPS = (
    keras.layers.StringLookup,
    keras.layers.IntegerLookup,
    keras.layers.TextVectorization,
)


def sublayers(layer: Any) -> Iterator[Any]:
    """Goes through all layers inside a layer or model, each once.

    Args:
        layer: A Keras layer or model.

    Returns:
        The layers, those nearer to it first; in the same order for every model of the
        same config.
    """
    queue, seen = [layer], {id(layer)}
    for outer in queue:  # Grows.
        if isinstance(outer, keras.layers.TextVectorization):
            continue  # The lookup inside is its own affair.
        for inner in _held_layers(outer):
            if id(inner) not in seen:
                seen.add(id(inner))
                queue.append(inner)
                yield inner


def _held_layers(outer: Any) -> Iterator[Any]:
    """Yields the layers among the attributes of an object, in lists and dicts too."""
    stack = list(vars(outer).values())[::-1]
    while stack:
        value = stack.pop()
        if isinstance(value, keras.layers.Layer):
            yield value
        elif isinstance(value, Mapping):
            stack.extend(list(value.values())[::-1])
        elif isinstance(value, list | tuple):
            stack.extend(value[::-1])


def vocabularies(model: Any) -> list[dict[str, Any] | None]:
    """Collects the vocabularies that the lookup layers of a model have learned.

    Args:
        model: A Keras model.

    Returns:
        For each lookup layer its tokens, for JSON; None for a layer that was given
        its vocabulary, and has it in its config.

    Example:
        >>> lookup = keras.layers.StringLookup()
        >>> lookup.adapt(["red", "blue", "red"])
        >>> vocabularies(keras.Sequential([lookup]))
        [{'layer': 'string_lookup', 'tokens': ['[UNK]', 'red', 'blue']}]
    """
    return [_vocabulary(layer) for layer in sublayers(model) if _is_lookup(layer)]


def _is_lookup(layer: Any) -> bool:
    return isinstance(layer, _LOOKUPS)


def _vocabulary(layer: Any) -> dict[str, Any] | None:
    """The learned vocabulary of one layer."""
    if _is_given(layer) or not layer.vocabulary_size():
        return None
    found = {
        "layer": layer.name,
        "tokens": [
            token.item() if hasattr(token, "item") else token
            for token in layer.get_vocabulary(include_special_tokens=True)
        ],
    }
    weights = _document_weights(layer)
    if weights is not None:
        found["idf_weights"] = [float(weight) for weight in weights]
    return found


def _document_weights(layer: Any) -> Any:
    """The inverse document frequencies that a layer has learned, if it uses them."""
    inner = next(iter(_held_layers(layer)), layer)  # that of a TextVectorization
    if inner.output_mode != "tf_idf":
        return None
    return keras.ops.convert_to_numpy(inner.idf_weights_const)


def restore_vocabularies(
    model: Any, recorded: Sequence[Mapping[str, Any] | None]
) -> None:
    """Gives lookup layers the vocabularies that they had.

    Args:
        model: A model of the same config.
        recorded: What `vocabularies` returned; empty for a file without it.

    Raises:
        ValueError: If the model has other lookup layers than the one before, or the
            file lacks what they learned.
    """
    layers = [layer for layer in sublayers(model) if _is_lookup(layer)]
    lacking = [layer.name for layer in layers if not _is_given(layer)]
    if lacking and not recorded:
        raise ValueError(f"the file lacks the vocabularies of {lacking}")
    for layer, found in zip(layers, recorded, strict=bool(recorded)):
        if found is None:
            continue
        weights = found.get("idf_weights")
        if weights is None:
            layer.set_vocabulary(found["tokens"])
        else:
            layer.set_vocabulary(found["tokens"], idf_weights=weights)


def _is_given(layer: Any) -> bool:
    """Whether a lookup layer has its vocabulary from its config."""
    return layer.get_config()["vocabulary"] is not None
