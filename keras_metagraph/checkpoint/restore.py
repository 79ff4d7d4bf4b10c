"""Gives the variables of a graph their values from a checkpoint."""

import dataclasses
import os
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from keras_metagraph.checkpoint.reader import TensorReader
from keras_metagraph.errors import MissingVariableError, ShapeMismatchError, nearest
from keras_metagraph.graph.restore_wiring import Slice
from keras_metagraph.graph.variables import GraphVariable

__all__ = [
    "RestoredVariables",
    "TensorReader",
    "missing_variables_error",
    "open_checkpoint",
    "read_variables",
]

# Beyond so many lines, spelling proposals cost more time than they save.
_MAX_PROPOSALS = 200


@dataclasses.dataclass(frozen=True, slots=True)
class RestoredVariables:
    """What a checkpoint says about the variables of a graph.

    Attributes:
        values: Arrays by variable name.
        missing: Variables that the checkpoint does not have.
    """

    values: dict[str, Any]
    missing: list[GraphVariable]


def open_checkpoint(prefix: str | os.PathLike[str]) -> TensorReader:
    """Opens a checkpoint: V1, V2, in one file or in shards.

    Args:
        prefix: Its prefix, as `Export.checkpoint` has it.

    Returns:
        A reader.

    Raises:
        CheckpointError: If there is no checkpoint, or it cannot be opened.
    """
    return TensorReader(prefix)


def read_variables(
    reader: TensorReader, variables: Iterable[GraphVariable]
) -> RestoredVariables:
    """Reads the variables of a graph from a checkpoint.

    Args:
        reader: The checkpoint.
        variables: The variables; parts of a partitioned one are cut from its tensor.

    Returns:
        Their values, and which ones the checkpoint lacks.

    Raises:
        ShapeMismatchError: If variables have another shape or dtype there; lists them
            all. Nothing was read then.
        CheckpointError: If a tensor cannot be read.
    """
    present: list[GraphVariable] = []
    missing: list[GraphVariable] = []
    for variable in variables:
        held = variable.checkpoint_key in reader
        (present if held else missing).append(variable)
    conflicts = [line for v in present if (line := _conflict(reader, v))]
    if conflicts:
        raise ShapeMismatchError(
            f"Variables of the graph do not fit the checkpoint {reader.prefix!r}:",
            findings=conflicts,
            fix="pass the checkpoint that was written with this graph.",
        )
    values: dict[str, Any] = {}
    # Parts of one tensor stand side by side, so it is read once and not kept.
    present.sort(key=lambda variable: str(variable.checkpoint_key))
    key, tensor = None, None
    for variable in present:
        if tensor is None or variable.checkpoint_key != key:
            key = str(variable.checkpoint_key)
            tensor = reader.read(key)
        values[variable.name] = _fitted(tensor, variable)
    return RestoredVariables(values, missing)


def missing_variables_error(
    reader: TensorReader, missing: Sequence[GraphVariable]
) -> MissingVariableError:
    """Makes the error for variables that a model needs and a checkpoint lacks.

    Args:
        reader: The checkpoint.
        missing: The variables.

    Returns:
        An error that lists every one of them, with the nearest names that are there.
    """
    keys = reader.keys()
    findings = []
    for place, variable in enumerate(missing):
        key = variable.checkpoint_key or variable.name
        proposal = nearest(key, keys) if place < _MAX_PROPOSALS else ""
        findings.append(
            f"{variable.name} {variable.dtype.name}{_shape_text(variable.shape)}"
            + (f", looked for as {key!r}" if key != variable.name else "")
            + proposal
        )
    return MissingVariableError(
        f"The checkpoint {reader.prefix!r} lacks {len(missing)} variables that the "
        f"model needs; it has {len(keys)} tensors.",
        findings=findings,
        fix="pass the checkpoint that was written with this graph, or a variable_map "
        "from variable names to the names in the checkpoint.",
    )


def _conflict(reader: TensorReader, variable: GraphVariable) -> str:
    """How a variable differs from its tensor, or an empty string."""
    key = str(variable.checkpoint_key)
    shape, dtype = reader.shape(key), reader.dtype(key)
    wanted: Sequence[int | None] | None = variable.shape
    if variable.slice is not None:
        if not _inside(variable.slice):
            return f"{variable.name}: its part {variable.slice} lies outside the whole"
        wanted = variable.slice.full_shape
    fits = wanted is None or (
        _same_size(wanted, shape) if variable.reshape else _compatible(wanted, shape)
    )
    if fits and dtype == variable.dtype:
        return ""
    stored = "" if key == variable.name else f" (stored as {key!r})"
    return (
        f"{variable.name}{stored}: {variable.dtype.name}{_shape_text(wanted)} in the "
        f"graph, {dtype.name}{_shape_text(shape)} in the checkpoint"
    )


def _compatible(wanted: Sequence[int | None], shape: Sequence[int]) -> bool:
    return len(wanted) == len(shape) and all(
        a is None or a == b for a, b in zip(wanted, shape, strict=True)
    )


def _same_size(wanted: Sequence[int | None], shape: Sequence[int]) -> bool:
    return None not in wanted and np.prod(np.array(wanted, object)) == np.prod(
        np.array(shape, object)
    )


def _inside(part: Slice) -> bool:
    return len(part.full_shape) == len(part.offset) == len(part.shape) and all(
        min(start, size) >= 0 and start + size <= whole
        for whole, start, size in zip(
            part.full_shape, part.offset, part.shape, strict=True
        )
    )


def _fitted(tensor: Any, variable: GraphVariable) -> Any:
    """The value of a variable: its part of a tensor, in its shape."""
    part = variable.slice
    if part is not None and part.shape != tensor.shape:
        spans = zip(part.offset, part.shape, strict=True)
        # A copy, so that the part does not keep the whole tensor in memory.
        tensor = tensor[
            tuple(slice(start, start + size) for start, size in spans)
        ].copy()
    return tensor.reshape(variable.shape) if variable.reshape else tensor


def _shape_text(shape: Sequence[int | None] | None) -> str:
    if shape is None:
        return " of unknown shape"
    return f"[{', '.join('?' if dim is None else str(dim) for dim in shape)}]"
