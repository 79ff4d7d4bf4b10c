"""The grammar of `init_from_checkpoint` and of `tf.train.warm_start`.

A mapping leads from names in the file to the model: `"scope/": "other_scope/"`,
`"name": "other_name"`, `"name": variable`, `"name": [part, part]`, with `"/"` for the
root; as extensions a regular expression with its replacement, and a layer or inner
model as the scope that it is. A string or a list selects variables of the model that
keep their name: `".*"`, `["encoder/.*", "head/bias"]`, `[variable, variable]`.
"""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import keras

from keras_metagraph.errors import nearest
from keras_metagraph.loading.variable_map import is_pattern
from keras_metagraph.warm_starting.by_name import Matcher
from keras_metagraph.warm_starting.findings import Findings
from keras_metagraph.warm_starting.recurrent import is_cell, transfer_cell
from keras_metagraph.warm_starting.sources import Source
from keras_metagraph.warm_starting.targets import Target, Targets
from keras_metagraph.warm_starting.transfers import (
    BY_NAME,
    BY_PATTERN,
    BY_SCOPE,
    Transfer,
    transfer,
)

AssignmentMap = (
    Mapping[Any, Any] | Sequence[tuple[Any, Any]] | Sequence[Any] | str | None
)


def plan_transfers(
    assignment_map: AssignmentMap, source: Source, targets: Targets, findings: Findings
) -> list[Transfer]:
    """Turns what the user says into transfers.

    Args:
        assignment_map: See `keras_metagraph.warm_start`.
        source: Where the tensors are.
        targets: The variables of the model.
        findings: Gets what does not fit.

    Returns:
        One transfer at most for each variable.
    """
    pairs = _pairs(assignment_map)
    if pairs is None:
        matcher = Matcher(source, targets, findings)
        return matcher.match(_selected(assignment_map, targets, findings))
    grammar = _Grammar(source, targets, findings)
    found: list[Transfer] = []
    for key, value in pairs:
        found += grammar.transfers(key, value)
    return _most_specific(found, findings)


def _pairs(assignment_map: AssignmentMap) -> list[tuple[Any, Any]] | None:
    """The entries of a mapping from the file to the model; None for a selection."""
    if isinstance(assignment_map, Mapping):
        return list(assignment_map.items())
    if assignment_map is None or isinstance(assignment_map, str):
        return None
    entries = list(assignment_map)
    if entries and all(isinstance(e, tuple) and len(e) == 2 for e in entries):
        return entries
    return None


def _selected(
    selection: Any, targets: Targets, findings: Findings
) -> list[tuple[Target, ...]]:
    """The variables that `vars_to_warm_start` of `tf.train.warm_start` selects."""
    if selection is None:
        return [(target,) for target in targets.all]
    if isinstance(selection, str):
        trainable = [target for target in targets.all if target.trainable]
        return [(t,) for t in _matching(selection, trainable, findings)]
    found: dict[str, Target] = {}
    for entry in selection:
        if isinstance(entry, str):
            chosen = _matching(entry, targets.all, findings)
        else:
            chosen = _variables(entry, targets, findings)
        found |= {target.name: target for target in chosen}
    return [(target,) for target in found.values()]


def _matching(
    pattern: str, targets: Iterable[Target], findings: Findings
) -> list[Target]:
    """The variables whose names begin as a pattern says (`tf.get_collection`)."""
    try:
        compiled = re.compile(pattern)
    except re.error as error:
        findings.problem(f"{pattern!r} is no regular expression: {error}")
        return []
    found = [t for t in targets if compiled.match(t.name) or compiled.match(t.path)]
    if not found:
        findings.problem(f"{pattern!r} matches no variable of the model")
    return found


def _variables(entry: Any, targets: Targets, findings: Findings) -> list[Target]:
    """The target of a variable."""
    target = targets.of(entry)
    if target is None:
        name = getattr(entry, "path", None) or getattr(entry, "name", None)
        findings.problem(f"{name or entry!r} is no variable of the model")
        return []
    return [target]


def _most_specific(found: Iterable[Transfer], findings: Findings) -> list[Transfer]:
    """Keeps one transfer for each variable: a name goes before a scope or pattern."""
    best: dict[str, Transfer] = {}
    for plan in found:
        for target in plan.targets:
            other = best.setdefault(target.name, plan)
            if plan.rank > other.rank:
                best[target.name] = plan
            elif plan.rank == other.rank and plan.sources != other.sources:
                findings.problem(
                    f"{target.name}: from {' + '.join(other.sources)!r} by "
                    f"{other.how}, and from {' + '.join(plan.sources)!r} by {plan.how}"
                )
    kept = list({id(plan): plan for plan in best.values()}.values())
    for plan in kept:
        lost = [t.name for t in plan.targets if best[t.name] is not plan]
        if lost:  # A cell or a partitioned variable is assigned as a whole.
            findings.problem(f"{', '.join(lost)}: by {plan.how}, and once more alone")
    return kept


class _Grammar:
    """Reads the entries of a mapping from names in the file to the model."""

    def __init__(self, source: Source, targets: Targets, findings: Findings) -> None:
        self._source = source
        self._targets = targets
        self._findings = findings
        self._matcher = Matcher(source, targets, findings)

    def transfers(self, key: Any, value: Any) -> Iterator[Transfer]:
        """The transfers of one entry."""
        if isinstance(key, str) and not is_pattern(key):
            yield from self._from_name(key, value)
        elif isinstance(key, str | re.Pattern) and isinstance(value, str):
            yield from self._by_pattern(key, value)
        else:
            self._findings.problem(
                f"{key!r}: {value!r} leads from no name or regular expression to a name"
            )

    def _from_name(self, key: str, value: Any) -> Iterator[Transfer]:
        if isinstance(value, keras.layers.Layer):
            yield from self._to_layer(key, value)
        elif not isinstance(value, str):
            entries = value if isinstance(value, list | tuple) else [value]
            parts = [
                t for e in entries for t in _variables(e, self._targets, self._findings)
            ]
            if len(parts) == len(entries):
                yield from self._to_variable(key, parts)
        elif value != "/" and (parts := self._targets.named(value)):
            yield from self._to_variable(key, parts)
        elif value.endswith("/"):
            inside = self._targets.inside(value)
            if not inside:
                self._findings.problem(f"{value!r}: the model has no such scope")
            yield from self._to_scope(key, inside, f"scope {key!r} → {value!r}")
        else:
            near = nearest(value, self._targets.names)
            self._findings.problem(f"{value!r}: the model has no such variable{near}")

    def _to_variable(self, key: str, parts: list[Target]) -> Iterator[Transfer]:
        if key.endswith("/"):
            self._findings.problem(f"{key!r} is a scope, and {parts[0].name!r} is none")
            return
        sources = self._matcher.stored(key, parts)
        if sources:
            yield transfer(parts, sources, "name", self._source, BY_NAME)
        else:
            self._findings.lacks(parts[0], key, self._source)

    def _to_scope(
        self, key: str, inside: Sequence[tuple[Target, str]], how: str
    ) -> Iterator[Transfer]:
        if not key.endswith("/"):
            self._findings.problem(f"{key!r} must end with '/', as a scope does")
            return
        scope = "" if key == "/" else key
        groups = self._matcher.groups((t, scope + name) for t, name in inside)
        for name, parts in groups.items():
            sources = self._matcher.stored(name, parts)
            if sources:
                yield transfer(parts, sources, how, self._source, BY_SCOPE)
            else:
                self._findings.lacks(parts[0], name, self._source)

    def _to_layer(self, key: str, layer: Any) -> Iterator[Transfer]:
        inside = self._targets.of_layer(layer)
        if not inside:
            self._findings.problem(
                f"{key!r}: {layer.name!r} is no layer of the model that has variables"
            )
        elif is_cell(key, layer, self._source):
            yield from transfer_cell(
                key, layer, self._source, self._targets, self._findings
            )
        else:
            yield from self._to_scope(key, inside, f"scope {key!r} → {layer.name!r}")

    def _by_pattern(self, key: Any, replacement: str) -> Iterator[Transfer]:
        pattern = key.pattern if isinstance(key, re.Pattern) else key
        try:
            renamed = {
                name: re.sub(key, replacement, name, count=1)
                for name in self._source.tensors
                if re.search(key, name)
            }
        except (re.error, IndexError) as error:
            self._findings.problem(f"{pattern!r} → {replacement!r}: {error}")
            return
        any_found = False
        for name, target in renamed.items():
            # Slots of optimizers fit many patterns; they are no variables here.
            parts = self._targets.named(target)
            if parts:
                any_found = True
                yield transfer(
                    parts, [name], f"pattern {pattern!r}", self._source, BY_PATTERN
                )
        if not any_found:
            self._findings.problem(
                f"{pattern!r} → {replacement!r} leads from no tensor of the file to a "
                "variable of the model"
            )
