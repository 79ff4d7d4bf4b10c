"""`warm_start`: values from any checkpoint for the variables of any Keras model."""

import os
import warnings
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import keras
from rich.console import Console

from keras_metagraph.errors import (
    CheckpointError,
    MetaGraphError,
    MissingVariableError,
    ShapeMismatchError,
    SignatureError,
)
from keras_metagraph.export.vocabularies import sublayers
from keras_metagraph.warm_starting.assignment_map import AssignmentMap, plan_transfers
from keras_metagraph.warm_starting.averages import take_averages
from keras_metagraph.warm_starting.findings import Findings
from keras_metagraph.warm_starting.optimizer import plan_optimizer
from keras_metagraph.warm_starting.recurrent import is_foreign
from keras_metagraph.warm_starting.report import WarmStart, WarmStartReport
from keras_metagraph.warm_starting.sources import Source, open_source
from keras_metagraph.warm_starting.targets import Targets
from keras_metagraph.warm_starting.transfers import Transfer
from keras_metagraph.warm_starting.vocabularies import VocabInfo, remap


def warm_start(
    model: Any,
    filepath: str | os.PathLike[str],
    assignment_map: AssignmentMap = None,
    *,
    vocabularies: Mapping[str, VocabInfo] | None = None,
    optimizer: bool = False,
    ema: bool = False,
    skip_mismatch: bool = False,
    dry_run: bool = False,
) -> WarmStartReport:
    r"""Gives variables of a model the values that a file has for them.

    What `tf.compat.v1.train.init_from_checkpoint` and `tf.train.warm_start` do in a
    graph of TensorFlow 1, for any Keras model and from any file. All is checked before
    anything is assigned: either every variable gets its value, or none does.

    Args:
        model: A built `keras.Model`: sequential, functional or subclassed.
        filepath: A checkpoint of TensorFlow 1 or 2 (a prefix, a `.meta` or `.index`
            file, or a directory with a state file), a SavedModel, a `.keras`,
            `.weights.h5` or older `.h5` file.
        assignment_map: Which variables get what.

            - None: all weights, each by its own name.
            - A string or a list: weights that keep their name, as
              `vars_to_warm_start` of `tf.train.warm_start` selects them: a regular
              expression for trainable ones, `["encoder/", "head/bias"]` for
              beginnings of any names, or variables.
            - A mapping, or pairs, from the file to the model, as in
              `init_from_checkpoint`: `{"old_scope/": "new_scope/"}`,
              `{"old/kernel": "new/kernel"}`, `{"old/kernel": variable}`, `{"emb":
              [part, part]}`; `"/"` is the root on either side. Also a regular
              expression with its replacement, `{r"^tower_\d/(.*)": r"\1"}`, and a
              layer or inner model: `{"rnn/lstm_cell/": model.get_layer("lstm")}`. A
              name goes before a scope or layer, and that before an expression.

            Variables of the model go by the name that an export gives them
            (`"dense/kernel"`) or by their Keras path.
        vocabularies: A `tf.compat.v1.train.VocabInfo` by the name of each variable
            whose rows (or, with `axis=1`, columns) belong to a vocabulary that
            changed. Its vocabularies may be lists, its initializer one of Keras.
        optimizer: Whether the optimizer of the compiled model gets its slots and
            iterations too.
        ema: Whether trainable variables get their moving averages.
        skip_mismatch: Whether variables that the file lacks, or has in another shape
            or type, keep their values, with a warning. It is an error by default.
        dry_run: Whether to print what would happen, and change nothing.

    Returns:
        What was found for which variable and how, what is missing, what does not fit,
        and which tensors of the file nobody took.

    Raises:
        CheckpointError: If the file is missing or damaged, or has nothing for the
            model.
        SignatureError: If `assignment_map` or `vocabularies` name what neither the
            model nor the file has. This and the next two list all findings.
        ShapeMismatchError: If variables have another shape, type or layout.
        MissingVariableError: If the file lacks variables.

    Example:
        ```python
        report = kmg.warm_start(model, "run/model-1000", {"bert/": "encoder/"})
        print(report)
        ```
    """
    targets = _targets(model)
    source = open_source(filepath)
    findings = Findings()
    plans = plan_transfers(assignment_map, source, targets, findings)
    if ema:
        plans = take_averages(plans, source, findings)
    if vocabularies:
        shapes = {name: tensor.shape for name, tensor in source.tensors.items()}
        plans = remap(plans, dict(vocabularies), targets, shapes, findings)
    plans = _fitting(plans, targets, source, findings)
    if optimizer:
        state = plan_optimizer(plans, source, targets, findings)
        plans += _fitting(state, targets, source, findings)
    if dry_run:
        report = _report(source, targets, plans, findings, assigned=False)
        Console().print(report)
        return report
    _require(plans, source, findings, skip_mismatch)
    _assign(model, plans, source)
    return _report(source, targets, plans, findings, assigned=True)


def _targets(model: Any) -> Targets:
    if not isinstance(model, keras.Model) or not model.weights:
        raise SignatureError(
            "warm_start takes a Keras model that has variables. Received: "
            f"{type(model).__name__}.",
            fix="build the model first: model.build(input_shape), or call it once.",
        )
    return Targets(model)


def _fitting(
    plans: Sequence[Transfer], targets: Targets, source: Source, findings: Findings
) -> list[Transfer]:
    """The transfers whose values fit their variables; the others are findings."""
    kept = []
    for plan in plans:
        conflicts = plan.conflicts()
        if len(plan.sources) == 1 and is_foreign(
            plan.targets[0], plan.sources[0], targets, source
        ):
            scope = f"{plan.sources[0].rpartition('/')[0]}/"
            conflicts = [
                f"{plan.targets[0].name}: {plan.sources[0]!r} is of a cell of "
                f"TensorFlow 1, with its gates in another order; say {{{scope!r}: "
                "layer}"
            ]
        findings.conflicts += conflicts
        if not conflicts:
            kept.append(plan)
    return kept


def _require(
    plans: Sequence[Transfer], source: Source, findings: Findings, skip_mismatch: bool
) -> None:
    """Raises for what stands in the way, or warns of it."""
    mismatches = [*findings.conflicts, *findings.missing.values()]
    kind: type[MetaGraphError] = SignatureError
    if not findings.problems:
        kind = ShapeMismatchError if findings.conflicts else MissingVariableError
    if findings.problems or (mismatches and not skip_mismatch):
        raise kind(
            f"The model cannot be warm-started from {source.path!r} ({source.kind}):",
            findings=[*findings.problems, *mismatches],
            fix="see with dry_run=True what the file has; name what belongs together "
            "in assignment_map, or leave these variables as they are with "
            "skip_mismatch=True.",
        )
    if not plans:
        raise CheckpointError(
            f"{source.path!r} ({source.kind}) has nothing for the model.",
            findings=mismatches,
            fix="see with dry_run=True what the file has.",
        )
    if mismatches:
        warnings.warn(
            f"{len(mismatches)} variables keep their values, for {source.path!r} has "
            "nothing that fits:\n  - " + "\n  - ".join(mismatches),
            stacklevel=3,
        )


def _assign(model: Any, plans: Sequence[Transfer], source: Source) -> None:
    """Reads all values, and assigns them only then."""
    values = [plan.values(source) for plan in plans]
    for plan, arrays in zip(plans, values, strict=True):
        for target, array in zip(plan.targets, arrays, strict=True):
            target.variable.assign(array)
    for layer in sublayers(model):
        if isinstance(layer, keras.layers.Normalization):
            layer.finalize_state()  # It keeps constants made of its variables.


def _report(
    source: Source,
    targets: Targets,
    plans: Sequence[Transfer],
    findings: Findings,
    *,
    assigned: bool,
) -> WarmStartReport:
    matched = [
        WarmStart(target.name, plan.sources, plan.how, shape, plan.note)
        for plan in plans
        for target, shape in zip(plan.targets, plan.shapes, strict=True)
    ]
    places = {target.name: place for place, target in enumerate(targets.all)}
    matched.sort(key=lambda match: places.get(match.name, len(places)))
    used = {name for plan in plans for name in plan.sources}
    asked = {match.name for match in matched} | set(findings.missing)
    return WarmStartReport(
        source.path,
        source.kind,
        tuple(matched),
        tuple(findings.missing.values()),
        tuple(findings.conflicts),
        tuple(findings.problems),
        tuple(sorted(source.tensors.keys() - used)),
        _untouched(targets, asked, findings.conflicts),
        assigned,
    )


def _untouched(
    targets: Targets, asked: Collection[str], conflicts: Sequence[str]
) -> tuple[str, ...]:
    conflicting = {line.partition(":")[0] for line in conflicts}
    return tuple(
        name for name in targets.names if name not in asked and name not in conflicting
    )
