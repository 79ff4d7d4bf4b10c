"""`model.meta_graph.report`: what became of what when a file was loaded."""

import dataclasses
from collections.abc import Iterable, Sequence
from typing import Any, Literal

from keras_metagraph.loading.infer import Interface
from keras_metagraph.loading.restoration import Restoration

_SHOWN = 6  # names in a line of the text form


@dataclasses.dataclass
class LoadReport:
    """What a loaded model was made of.

    Attributes:
        kind: `"config"` (the Keras model that was saved) or `"graph"` (its graph).
        interface: Which tensors play which part, with the reasons.
        restored: Variables with values from the checkpoint.
        initialized: Variables that the checkpoint lacks, with the graph's initial
            value.
        missing: Variables that the train op needs and that have no value, so that the
            train op is not used.
        omitted: Variables that the checkpoint lacks and that nothing needs.
        unused: Keys of the checkpoint that no variable takes.
        warnings: What the user should know.
        dropped: What the file refers to but does not have, and what was taken out of
            the graph.

    Example:
        ```python
        model = keras_metagraph.load_from_meta_graph("exports/model-20")
        print(model.meta_graph.report)
        ```
    """

    kind: Literal["config", "graph"] = "graph"
    interface: Interface = dataclasses.field(default_factory=Interface)
    restored: list[str] = dataclasses.field(default_factory=list)
    initialized: list[str] = dataclasses.field(default_factory=list)
    missing: list[str] = dataclasses.field(default_factory=list)
    omitted: list[str] = dataclasses.field(default_factory=list)
    unused: list[str] = dataclasses.field(default_factory=list)
    warnings: list[str] = dataclasses.field(default_factory=list)
    dropped: list[str] = dataclasses.field(default_factory=list)

    @classmethod
    def of(
        cls,
        interface: Interface,
        restored: Restoration,
        *,
        kind: Literal["config", "graph"] = "graph",
        notes: Iterable[str] = (),
    ) -> "LoadReport":
        """Makes the report of a load.

        Args:
            interface: Which tensors play which part.
            restored: What became of the variables.
            kind: What the model was rebuilt from.
            notes: What passes took out of the graph.

        Returns:
            The report.
        """
        return cls(
            kind=kind,
            interface=interface,
            restored=sorted(restored.values),
            initialized=sorted(restored.initialized),
            missing=sorted(restored.untrainable),
            omitted=sorted(restored.dropped),
            unused=sorted(restored.unused),
            warnings=list(interface.warnings),
            dropped=[*interface.dropped, *notes],
        )

    def to_dict(self) -> dict[str, Any]:
        """The report as plain Python, that JSON can hold."""
        return dataclasses.asdict(self)

    def __str__(self) -> str:
        interface = self.interface
        lines = [f"Loaded from its {self.kind}."]
        for title, tensors in (
            ("inputs", interface.inputs),
            ("outputs", interface.outputs),
            ("labels", interface.labels),
        ):
            lines += self._explained(title, tensors)
        lines += self._explained("loss", [interface.loss] if interface.loss else [])
        lines += self._explained("train op", interface.train_op)
        lines += [
            f"{name} = {training} when training, {otherwise} otherwise"
            for name, (training, otherwise) in interface.training_values.items()
        ]
        lines += _listed("never fed", interface.unfed)
        for title, names in (
            ("restored", self.restored),
            ("not in the checkpoint, initialized", self.initialized),
            ("not in the checkpoint, so that the train op is not used", self.missing),
            ("not in the checkpoint, not needed", self.omitted),
            ("in the checkpoint, not in the graph", self.unused),
        ):
            lines += _listed(title, names)
        lines += [f"warning: {text}" for text in self.warnings]
        lines += [f"dropped: {text}" for text in self.dropped]
        return "\n".join(lines)

    def _explained(
        self, title: str, names: dict[str, str] | Sequence[str]
    ) -> list[str]:
        """A line for each name with the reason that it was chosen for."""
        pairs = names.items() if isinstance(names, dict) else ((n, n) for n in names)
        lines = []
        for key, name in pairs:
            reason = self.interface.reasons.get(name, "")
            called = name if key == name else f"{key} = {name}"
            lines.append(f"{title}: {called}{f' ({reason})' if reason else ''}")
        return lines


def _listed(title: str, names: Sequence[str]) -> list[str]:
    """One line with how many names there are, and the first of them."""
    if not names:
        return []
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return [f"{title} ({len(names)}): {', '.join(names[:_SHOWN])}{more}"]
