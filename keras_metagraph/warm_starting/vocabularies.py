"""Moves the rows of an embedding to where a new vocabulary has their entries.

As `tf.train.warm_start` does it with a `tf.compat.v1.train.VocabInfo`: a row (or, for
`axis=1`, a column) belongs to an entry of the vocabulary, entries that both files have
keep their values, and the initializer makes the others, those for words out of the
vocabulary included.
"""

import dataclasses
from collections.abc import Sequence
from typing import Any

import keras
import numpy as np

from keras_metagraph.warm_starting.findings import Findings
from keras_metagraph.warm_starting.targets import Targets
from keras_metagraph.warm_starting.transfers import Array, Transfer, cut

VocabInfo = Any  # tf.compat.v1.train.VocabInfo; TensorFlow ships no types


def remap(
    plans: Sequence[Transfer],
    vocabularies: dict[str, VocabInfo],
    targets: Targets,
    shapes: dict[str, tuple[int, ...]],
    findings: Findings,
) -> list[Transfer]:
    """Lets transfers of variables with a vocabulary follow its entries.

    Args:
        plans: The transfers.
        vocabularies: A `VocabInfo` by the name of each variable that has one.
        targets: The variables of the model.
        shapes: The shapes of the tensors in the file by name.
        findings: Gets what does not fit.

    Returns:
        The transfers, those of these variables changed.
    """
    infos: dict[str, tuple[str, VocabInfo]] = {}
    for name, info in vocabularies.items():
        parts = targets.named(name)
        if not parts:
            findings.problem(f"vocabularies: the model has no variable {name!r}")
        infos |= {target.name: (name, info) for target in parts}
    used, result = set(), []
    for plan in plans:
        name, info = infos.get(plan.targets[0].name, ("", None))
        if info is None:
            result.append(plan)
            continue
        used.add(name)
        result.append(_remapped(plan, name, info, shapes, findings))
    for name in vocabularies.keys() - used:
        if targets.named(name) and targets.named(name)[0].name not in findings.missing:
            findings.problem(f"vocabularies: {name!r} is not among the assigned ones")
    return result


def _remapped(
    plan: Transfer,
    name: str,
    info: VocabInfo,
    shapes: dict[str, tuple[int, ...]],
    findings: Findings,
) -> Transfer:
    """The transfer of one variable whose vocabulary changes."""
    stored = shapes[plan.sources[0]]
    if len(plan.sources) > 1 or info.axis >= len(stored):
        findings.conflict(f"{name}: {plan.sources} has no axis {info.axis} to remap")
        return plan
    try:
        places = _places(info)
    except (OSError, UnicodeDecodeError, ValueError) as error:
        findings.problem(f"vocabularies: {name}: {error}")
        return plan
    if places.max(initial=-1) >= stored[info.axis]:
        findings.conflict(
            f"{name}: the old vocabulary {info.old_vocab!r} has more entries than the "
            f"{stored[info.axis]} along axis {info.axis} of {plan.sources[0]!r}"
        )
        return plan
    whole = (*stored[: info.axis], len(places), *stored[info.axis + 1 :])
    kept = int(np.count_nonzero(places >= 0))
    unit = "columns" if info.axis else "rows"
    remapped = dataclasses.replace(
        plan,
        convert=lambda arrays: [_moved(arrays[0], places, info)],
        note=f"{kept} of {len(places)} {unit} from the old vocabulary",
        moves_slots=False,
    )
    note = remapped.note
    return dataclasses.replace(cut(remapped, whole), note=note)


def _places(info: VocabInfo) -> np.ndarray[Any, Any]:
    """Where the old tensor has each new entry; -1 for entries that are new."""
    old = _entries(info.old_vocab)
    if info.old_vocab_size > 0:
        old = old[: info.old_vocab_size]
    known = {entry: place for place, entry in enumerate(old)}
    if len(known) < len(old):
        raise ValueError(f"{info.old_vocab!r} has an entry twice")
    new = _entries(info.new_vocab)
    if len(new) < info.new_vocab_size:
        raise ValueError(
            f"{info.new_vocab!r} has {len(new)} entries, and new_vocab_size is "
            f"{info.new_vocab_size}"
        )
    found = [known.get(entry, -1) for entry in new[: info.new_vocab_size]]
    return np.array([*found, *[-1] * info.num_oov_buckets], np.int64)


def _entries(vocabulary: Any) -> list[Any]:
    """The entries of a vocabulary: the lines of a file, or a list of them."""
    if isinstance(vocabulary, list | tuple):
        return [e.encode() if isinstance(e, str) else e for e in vocabulary]
    with open(vocabulary, "rb") as file:
        return [line.rstrip(b"\r\n") for line in file]


def _moved(old: Array, places: np.ndarray[Any, Any], info: VocabInfo) -> Array:
    """The new tensor: kept entries moved, the others made by the initializer."""
    shape = (*old.shape[: info.axis], len(places), *old.shape[info.axis + 1 :])
    new = _initial(info.backup_initializer, shape, old.dtype)
    kept = np.flatnonzero(places >= 0)
    index: list[Any] = [slice(None)] * old.ndim
    index[info.axis] = kept
    new[tuple(index)] = np.take(old, places[kept], info.axis)
    return new


def _initial(initializer: Any, shape: tuple[int, ...], dtype: Any) -> Array:
    """A tensor as an initializer of TensorFlow 1 or Keras makes it; zeros for none."""
    if initializer is None:
        return np.zeros(shape, dtype)
    if isinstance(initializer, str):
        initializer = keras.initializers.get(initializer)
    return np.array(initializer(shape, dtype=np.dtype(dtype).name), dtype)
