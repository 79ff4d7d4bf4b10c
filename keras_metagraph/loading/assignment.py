"""Gives a rebuilt model the values of its variables, all of them or none."""

import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import keras

from keras_metagraph.checkpoint.restore import TensorReader
from keras_metagraph.errors import (
    MissingVariableError,
    ShapeMismatchError,
    nearest,
)
from keras_metagraph.export.names import NamedVariable, named_variables
from keras_metagraph.export.vocabularies import sublayers

Record = Mapping[str, Any]

_SEED = "seed"


def restore_trainable(model: Any, records: Sequence[Record]) -> None:
    """Freezes what was frozen; configs of subclassed models do not tell.

    Args:
        model: The rebuilt model, not yet compiled.
        records: What the file says of the variables.
    """
    recorded = [record for record in records if record["role"] == "weight"]
    weights = model.weights
    if len(recorded) != len(weights):
        return  # `restore_variables` says what is wrong.
    wanted = {
        id(weight): bool(record["trainable"])
        for weight, record in zip(weights, recorded, strict=True)
    }
    for layer in sublayers(model):
        # A layer behaves by its own flag too: frozen batch normalization, dropout.
        flags = [wanted[id(w)] for w in layer.trainable_variables if id(w) in wanted]
        if flags and not any(flags):
            layer.trainable = False
    for weight in weights:
        if weight.trainable != wanted[id(weight)]:
            weight.trainable = wanted[id(weight)]


def restore_variables(
    model: Any, records: Sequence[Record], reader: TensorReader, *, optimizer: bool
) -> dict[str, Any]:
    """Assigns the values of a checkpoint to a rebuilt model.

    Args:
        model: The rebuilt model.
        records: What the file says of the variables: role, index, name, shape.
        reader: The checkpoint.
        optimizer: Whether the optimizer is wanted too.

    Returns:
        The Keras variables by their names in the file.

    Raises:
        MissingVariableError: If the checkpoint lacks variables; lists all of them.
        ShapeMismatchError: If variables of model, file and checkpoint do not fit;
            lists all of them.
    """
    roles = ["weight", _SEED]
    if optimizer and getattr(model, "optimizer", None) is not None:
        roles += ["optimizer", "other"]
    elif optimizer and any(record["role"] == "optimizer" for record in records):
        warnings.warn(
            "The optimizer of the saved model is not restored, since the model did not "
            "compile itself from its config. Define get_compile_config() and "
            "compile_from_config() on its class.",
            stacklevel=4,
        )
    wanted = [record for record in records if record["role"] in roles]
    live = [v for v in named_variables(model) if v.role in roles]
    pairs = _pair(live, wanted)
    missing = [
        f"{record['name']} {tuple(record['shape'])}"
        f"{nearest(record['name'], reader.keys())}"
        for _, record in pairs
        if record["name"] not in reader
    ]
    if missing:
        raise MissingVariableError(
            f"The checkpoint {reader.prefix!r} lacks variables of the model:",
            findings=missing,
            fix="load the checkpoint that was written with this .meta.",
        )
    _check_shapes(pairs, reader)
    # All are read before one is assigned: a damaged file leaves no mixture behind.
    values = [reader.read(record["name"]) for _, record in pairs]
    for (named, _), value in zip(pairs, values, strict=True):
        named.variable.assign(value)
    for layer in sublayers(model):
        if isinstance(layer, keras.layers.Normalization):
            layer.finalize_state()  # It keeps constants made of its variables.
    return {record["name"]: named.variable for named, record in pairs}


def _pair(
    live: Sequence[NamedVariable], records: Sequence[Record]
) -> list[tuple[NamedVariable, Record]]:
    """Finds the record of each variable, by role and place.

    Weights, and what the optimizer keeps of them, by name where all names are the
    same; layers without a name of their own are numbered through the process. Random
    seeds have such numbers only, so that an equal name means nothing.

    Raises:
        ShapeMismatchError: If variables have no counterpart; lists all of them.
    """
    named = {v.name for v in live if v.role != _SEED}
    recorded = {r["name"]: r for r in records if r["role"] != _SEED}
    by_name = named == set(recorded)
    places = {(record["role"], record["index"]): record for record in records}
    pairs = []
    for v in live:
        place = (v.role, v.index)
        if by_name and v.role != _SEED:
            record = recorded[v.name]
            place = (record["role"], record["index"])
        pairs.append((v, places.pop(place, None)))
    findings = [
        f"{v.role} {v.index}, {v.path} {tuple(v.variable.shape)}: not in the file"
        for v, record in pairs
        if record is None and v.role != "optimizer"
    ]
    findings += [
        f"{role} {index}, {record['name']} {tuple(record['shape'])}: not in the model"
        for (role, index), record in places.items()
        if role != "other"
    ]
    if findings:
        raise ShapeMismatchError(
            "The rebuilt model has other variables than the saved one:",
            findings=findings,
            fix="see that the classes are those that the model was saved with; or pass "
            'rebuild="graph".',
        )
    return [(v, record) for v, record in pairs if record is not None]


def _check_shapes(
    pairs: Sequence[tuple[NamedVariable, Record]], reader: TensorReader
) -> None:
    """Compares model and checkpoint, variable by variable."""
    findings = []
    for named, record in pairs:
        name = record["name"]
        shape = tuple(named.variable.shape)
        dtype = keras.backend.standardize_dtype(named.variable.dtype)
        if shape != reader.shape(name) or dtype != reader.dtype(name).name:
            findings.append(
                f"{name}: {dtype} {shape} in the model, {reader.dtype(name).name} "
                f"{reader.shape(name)} in the checkpoint"
            )
    if findings:
        raise ShapeMismatchError(
            f"Variables of the checkpoint {reader.prefix!r} do not fit the model:",
            findings=findings,
            fix="load the checkpoint that was written with this .meta.",
        )
