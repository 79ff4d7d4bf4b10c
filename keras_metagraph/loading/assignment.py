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
    model: Any,
    records: Sequence[Record],
    reader: TensorReader,
    *,
    keys: Mapping[str, str],
    optimizer: bool,
    trains: bool = True,
) -> dict[str, Any]:
    """Assigns the values of a checkpoint to a rebuilt model.

    Args:
        model: The rebuilt model.
        records: What the file says of the variables: role, index, name, shape.
        reader: The checkpoint.
        keys: Under which keys it has some of them, by their names in the file.
        optimizer: Whether the optimizer is wanted too.
        trains: Whether the file has a train graph. Beside one that has none the
            optimizer's state may be missing, with a warning that names it.

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
    wanted = [
        {**record, "key": keys.get(record["name"], record["name"])}
        for record in records
        if record["role"] in roles
    ]
    live = [v for v in named_variables(model) if v.role in roles]
    pairs = _pair(live, wanted)
    if not trains:
        pairs = _without_unsaved(pairs, reader)
    missing = [
        f"{record['name']} {tuple(record['shape'])}"
        f"{nearest(record['key'], reader.keys())}"
        for _, record in pairs
        if record["key"] not in reader
    ]
    if missing:
        raise MissingVariableError(
            f"The checkpoint {reader.prefix!r} lacks variables of the model:",
            findings=missing,
            fix="load the checkpoint that was written with this .meta.",
        )
    _check_shapes(pairs, reader)
    # All are read before one is assigned: a damaged file leaves no mixture behind.
    values = [reader.read(record["key"]) for _, record in pairs]
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


def _without_unsaved(
    pairs: Sequence[tuple[NamedVariable, Record]], reader: TensorReader
) -> list[tuple[NamedVariable, Record]]:
    """Leaves out what only training needs and the checkpoint does not have."""
    unsaved = [
        record["name"]
        for named, record in pairs
        if named.role in ("optimizer", "other") and record["key"] not in reader
    ]
    if unsaved:
        warnings.warn(
            "The file was saved without its train graph, so the checkpoint "
            f"{reader.prefix!r} has no state of the optimizer, which starts anew:\n  - "
            + "\n  - ".join(unsaved)
            + '\nTo go on training, save with graphs=("predict", "train"); if the '
            "optimizer is not wanted, pass compile=False.",
            stacklevel=5,
        )
    return [pair for pair in pairs if pair[1]["name"] not in unsaved]


def _check_shapes(
    pairs: Sequence[tuple[NamedVariable, Record]], reader: TensorReader
) -> None:
    """Compares model and checkpoint, variable by variable."""
    findings = []
    for named, record in pairs:
        name, key = record["name"], record["key"]
        shape = tuple(named.variable.shape)
        dtype = keras.backend.standardize_dtype(named.variable.dtype)
        if shape != reader.shape(key) or dtype != reader.dtype(key).name:
            findings.append(
                f"{name}: {dtype} {shape} in the model, {reader.dtype(key).name} "
                f"{reader.shape(key)} in the checkpoint"
            )
    if findings:
        raise ShapeMismatchError(
            f"Variables of the checkpoint {reader.prefix!r} do not fit the model:",
            findings=findings,
            fix="load the checkpoint that was written with this .meta.",
        )
