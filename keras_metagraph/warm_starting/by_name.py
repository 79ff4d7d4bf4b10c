"""Finds the tensor of a variable by its name, and never by its place.

A model and a file may call one variable `dense/kernel`, `sequential/dense/kernel`
(a Keras path, where the model's own name comes first) or `dense/0` (a file of Keras 3).
"""

from collections import Counter
from collections.abc import Iterable, Sequence

from keras_metagraph.warm_starting.findings import Findings
from keras_metagraph.warm_starting.sources import Source
from keras_metagraph.warm_starting.structure import by_structure
from keras_metagraph.warm_starting.targets import Target, Targets, whole_of
from keras_metagraph.warm_starting.transfers import BY_NAME, Transfer, transfer


class Matcher:
    """Looks for the variables of a model in a source.

    Args:
        source: Where the tensors are.
        targets: The variables.
        findings: Gets what was not found.
    """

    def __init__(self, source: Source, targets: Targets, findings: Findings) -> None:
        self._source = source
        self._targets = targets
        self._findings = findings

    def match(self, wanted: Iterable[tuple[Target, ...]]) -> list[Transfer]:
        """Finds variables by their own names.

        Where a file was written by objects or layers, and names alone do not find all,
        the structure counts if it fits the whole model: names such as `dense_3` are
        numbered through a process.

        Args:
            wanted: The variables.

        Returns:
            A transfer for each that was found.
        """
        pairs = [(target, target.name) for (target,) in wanted]
        groups = self.groups(pairs)
        found = {name: self._by_names(name, parts) for name, parts in groups.items()}
        if not all(found.values()):
            structure = by_structure(self._source, self._targets)
            if structure:
                found = {
                    name: ([structure[t.name] for t in parts], "structure of the file")
                    for name, parts in groups.items()
                }
        transfers = []
        for name, parts in groups.items():
            match = found[name]
            if match is None:
                self._findings.lacks(parts[0], name, self._source)
            else:
                transfers.append(transfer(parts, *match, self._source, BY_NAME))
        self._require_different(transfers)
        return transfers

    def groups(self, pairs: Iterable[tuple[Target, str]]) -> dict[str, list[Target]]:
        """Puts the parts of partitioned variables together, under the whole's name.

        Args:
            pairs: Variables with the names that they would have in the source.

        Returns:
            The variable, or its parts in order, by name. What looks like a part and
            has a tensor of its own is none.
        """
        groups: dict[str, list[Target]] = {}
        for target, name in pairs:
            whole, outer = whole_of(name), whole_of(target.name)
            alone = self._source.find(name, self._targets.place(target)) is not None
            if whole is None or outer is None or alone:
                groups[name] = [target]
            else:
                groups.setdefault(whole, self._targets.parts(outer))
        return groups

    def stored(self, name: str, targets: Sequence[Target]) -> list[str]:
        """The tensor of a name, or its parts; nothing if there is none.

        Args:
            name: What it should be called in the source.
            targets: The variable that it is for, or its parts.

        Returns:
            Names of tensors.
        """
        found = self._source.find(name, self._targets.place(targets[0]))
        return [found] if found is not None else self._stored_parts(name)

    def _stored_parts(self, name: str) -> list[str]:
        """The parts of a variable that a file keeps one by one."""
        parts: list[str] = []
        while (part := self._source.find(f"{name}/part_{len(parts)}")) is not None:
            parts.append(part)
        return parts

    def _by_names(
        self, name: str, parts: Sequence[Target]
    ) -> tuple[list[str], str] | None:
        """Looks for a variable under all the names that it may have."""
        target, outer = parts[0], f"{self._targets.model.name}/"
        scope = self._source.scope
        candidates = [
            (name, "name"),
            (target.path, "Keras path"),
            (target.inner, "Keras path without the model's name"),
            (outer + name, "name below the model's"),
        ]
        if scope:
            candidates.append((scope + name, f"name below {scope!r}"))
            candidates.append((scope + target.inner, f"Keras path below {scope!r}"))
        for candidate, how in candidates:
            sources = self.stored(candidate, parts)
            if sources:
                return sources, how
        key = self._targets.keys.get(target.name, name)
        sources = self.stored(key, parts)
        return (sources, "key of the graph's saver") if sources else None

    def _require_different(self, transfers: Iterable[Transfer]) -> None:
        """Names must not lead two variables to one tensor."""
        counts = Counter(name for plan in transfers for name in plan.sources)
        for name, count in counts.items():
            if count > 1:
                takers = [
                    target.name
                    for plan in transfers
                    if name in plan.sources
                    for target in plan.targets
                ]
                self._findings.problem(
                    f"{', '.join(takers)} would all get {name!r}: say which with an "
                    "assignment_map"
                )
