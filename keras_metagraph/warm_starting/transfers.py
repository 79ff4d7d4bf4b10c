"""What goes from tensors of a source to variables of a model, and in which form."""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from keras_metagraph.warm_starting.sources import Source
from keras_metagraph.warm_starting.targets import Target, spans

Array = np.ndarray[Any, Any]
Convert = Callable[[list[Array]], list[Array]]

# How much a rule says about one variable: what names it goes before what finds it.
BY_PATTERN, BY_SCOPE, BY_NAME = range(3)


@dataclasses.dataclass(frozen=True)
class Transfer:
    """Tensors of a source that become values of variables.

    Attributes:
        targets: The variables: one, or the parts of one, or those of a recurrent cell.
        sources: Names of the tensors.
        how: The rule that chose them, to be read by people.
        shapes: The shape of the value that each variable gets.
        dtype: The type of the values.
        convert: Makes the values of the tensors; they are the same by default.
        rank: How much the rule says about these variables.
        note: What else is to be known.
        convert_slots: The same for the slots of an optimizer, where it differs.
        moves_slots: Whether the slots of these variables can be transferred at all.
        slots_of: The tensors after which slots are called, where those are others.
    """

    targets: tuple[Target, ...]
    sources: tuple[str, ...]
    how: str
    shapes: tuple[tuple[int, ...], ...]
    dtype: str
    convert: Convert = list
    rank: int = BY_PATTERN
    note: str = ""
    convert_slots: Convert | None = None
    moves_slots: bool = True
    slots_of: tuple[str, ...] = ()

    def values(self, source: Source) -> list[Array]:
        """Reads the tensors and makes the values of them."""
        return self.convert([source.read(name) for name in self.sources])

    def conflicts(self) -> list[str]:
        """Where the values do not fit the variables; a line for each."""
        stored = " + ".join(self.sources)
        return [
            f"{target.name}: {target.dtype} {target.shape} in the model, {self.dtype} "
            f"{shape} in the file, as {stored!r}"
            for target, shape in zip(self.targets, self.shapes, strict=True)
            if (target.shape, target.dtype) != (shape, self.dtype)
        ]


def transfer(
    targets: Sequence[Target],
    sources: Sequence[str],
    how: str,
    source: Source,
    rank: int = BY_PATTERN,
) -> Transfer:
    """Plans a transfer of one variable, whole or in parts on either side.

    Args:
        targets: The variable, or its parts.
        sources: The tensor, or its parts.
        how: The rule that chose them.
        source: Where the tensors are.
        rank: How much that rule says about these variables.

    Returns:
        The transfer. Where the parts do not make up the whole, its shapes show it.
    """
    stored = [source.tensors[name] for name in sources]
    shapes = [tensor.shape for tensor in stored]
    whole = shapes[0] if len(shapes) == 1 else joined_shape(shapes)
    plan = Transfer(
        tuple(targets), tuple(sources), how, (whole,), stored[0].dtype, rank=rank
    )
    if len(shapes) > 1:
        plan = dataclasses.replace(plan, convert=_join(shapes, whole))
    return cut(plan, whole)


def cut(plan: Transfer, whole: tuple[int, ...]) -> Transfer:
    """Lets each part of a partitioned variable have its own part of the value.

    Args:
        plan: A transfer whose `convert` makes one value.
        whole: The shape of that value.

    Returns:
        The transfer of the parts.
    """
    if len(plan.targets) == 1:
        return dataclasses.replace(plan, shapes=(whole,))
    where = spans([target.shape for target in plan.targets], whole)
    if where is None:
        return dataclasses.replace(plan, shapes=(whole,) * len(plan.targets))
    before = plan.convert
    return dataclasses.replace(
        plan,
        shapes=tuple(target.shape for target in plan.targets),
        convert=lambda arrays: [before(arrays)[0][span].copy() for span in where],
        note=f"cut into {len(plan.targets)} parts",
    )


def joined_shape(shapes: Sequence[tuple[int, ...]]) -> tuple[int, ...]:
    """The shape of the whole that parts make up along the one axis they differ in.

    Args:
        shapes: The shapes of the parts. Where all are the same they follow each other
            along the first axis, as TensorFlow 1 partitions by default.

    Returns:
        The shape of the whole.
    """
    axis = _axis(shapes)
    whole = list(shapes[0])
    if whole:
        whole[axis] = sum(shape[axis] for shape in shapes if len(shape) > axis)
    return tuple(whole)


def _axis(shapes: Sequence[tuple[int, ...]]) -> int:
    differing = [
        axis
        for axis, sizes in enumerate(zip(*shapes, strict=False))
        if len({*sizes}) > 1
    ]
    return differing[0] if differing else 0


def _join(shapes: Sequence[tuple[int, ...]], whole: tuple[int, ...]) -> Convert:
    axis = _axis(shapes) if whole else 0
    return lambda arrays: [np.concatenate(arrays, axis)]
