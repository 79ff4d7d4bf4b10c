"""What a warm start does, or would do, to a model."""

import dataclasses
from collections.abc import Iterator, Sequence
from typing import Any

from rich import box
from rich.console import Console, ConsoleOptions, RenderableType, RenderResult
from rich.table import Table
from rich.text import Text

from keras_metagraph.printed import Printed

_ROWS = 200  # of the variables; the rest is counted
_NAMES = 40  # of other lists


@dataclasses.dataclass(frozen=True)
class WarmStart:
    """A variable and where its value comes from.

    Attributes:
        name: Its name in TensorFlow 1: `"dense/kernel"`.
        source: Names of the tensors in the file, one but for recurrent cells and parts.
        how: The rule that found them.
        shape: Its shape.
        note: What else is to be known: how many rows came from an old vocabulary.
    """

    name: str
    source: tuple[str, ...]
    how: str
    shape: tuple[int, ...]
    note: str = ""


@dataclasses.dataclass(frozen=True)
class WarmStartReport(Printed):
    """What a warm start does, or would do, to a model.

    Printed, it is readable in 80 columns; `rich` shows it in colour.

    Attributes:
        path: The file, or the prefix of the checkpoint.
        kind: What it is.
        matched: The variables that get values, in the model's order.
        missing: Variables that were asked for and that the file lacks, with the names
            they were looked for under and the nearest ones.
        conflicts: Variables that have another shape, type or layout there.
        problems: What was asked for and cannot be meant: names that neither the model
            nor the file has, patterns that match nothing.
        unused: Names of the tensors that no variable takes.
        untouched: Names of the variables that keep their values, as they were not
            asked for.
        assigned: Whether the values were assigned; false after a dry run.
    """

    path: str
    kind: str
    matched: tuple[WarmStart, ...]
    missing: tuple[str, ...] = ()
    conflicts: tuple[str, ...] = ()
    problems: tuple[str, ...] = ()
    unused: tuple[str, ...] = ()
    untouched: tuple[str, ...] = ()
    assigned: bool = False

    def __rich_console__(
        self, console: Console, options: ConsoleOptions
    ) -> RenderResult:
        verb = "assigned" if self.assigned else "would be assigned"
        yield Text(f"{self.path} ({self.kind})", overflow="fold")
        yield f"{len(self.matched)} variables {verb}"
        if self.matched:
            yield _matched(self.matched)
        yield from _listed("Problems", self.problems, "red")
        yield from _listed("Conflicts of shape, type or layout", self.conflicts, "red")
        yield from _listed("Missing in the file", self.missing, "yellow")
        yield from _listed("Unused tensors of the file", self.unused)
        yield from _listed("Variables that keep their values", self.untouched)


def _matched(rows: Sequence[WarmStart]) -> RenderableType:
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for title in ("variable", "shape", "from", "found by"):
        table.add_column(title, overflow="fold")
    for row in rows[:_ROWS]:
        source = " + ".join(row.source)
        table.add_row(
            row.name,
            str(row.shape),
            "the same name" if source == row.name else Text(source),
            Text(f"{row.how}; {row.note}" if row.note else row.how),
        )
    if len(rows) > _ROWS:
        table.add_row(f"... {len(rows) - _ROWS} more", "", "", "")
    return table


def _listed(title: str, lines: Sequence[str], style: str = "") -> Iterator[Any]:
    if not lines:
        return
    yield Text(f"{title} ({len(lines)})", style="bold")
    for line in lines[:_NAMES]:
        yield Text(f"  {line}", style=style, overflow="fold")
    if len(lines) > _NAMES:
        yield Text(f"  ... {len(lines) - _NAMES} more")
