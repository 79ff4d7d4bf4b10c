"""Collects what stands in the way of a warm start, to say all of it at once."""

import dataclasses

from keras_metagraph.errors import nearest
from keras_metagraph.warm_starting.sources import Source
from keras_metagraph.warm_starting.targets import Target

# Beyond so many lines, spelling proposals cost more time than they save.
_MAX_PROPOSALS = 200


@dataclasses.dataclass
class Findings:
    """What does not fit.

    Attributes:
        problems: What the user said that cannot be meant.
        missing: Variables that were asked for and that the file lacks, by name.
        conflicts: Variables that have another shape, type or layout there.
    """

    problems: list[str] = dataclasses.field(default_factory=list)
    missing: dict[str, str] = dataclasses.field(default_factory=dict)
    conflicts: list[str] = dataclasses.field(default_factory=list)

    def problem(self, text: str) -> None:
        """Adds what the user said that cannot be meant."""
        self.problems.append(text)

    def conflict(self, text: str) -> None:
        """Adds what does not fit between file and model."""
        self.conflicts.append(text)

    def lacks(self, target: Target, name: str, source: Source) -> None:
        """Adds a variable that the file lacks.

        Args:
            target: The variable.
            name: What it was looked for as.
            source: The file.
        """
        near = ""
        if len(self.missing) < _MAX_PROPOSALS:
            near = nearest(name, source.tensors)
        sought = "" if name == target.name else f", looked for as {name!r}"
        self.missing[target.name] = f"{target.name} {target.shape}{sought}{near}"
