"""What `convert` says that it did."""

import dataclasses
from collections.abc import Mapping

from rich.console import Console, ConsoleOptions, RenderResult
from rich.table import Table
from rich.text import Text

from keras_metagraph.printed import Printed

_LISTED = 12


@dataclasses.dataclass(frozen=True)
class ConversionReport(Printed):
    """What was converted, and what the new file does not hold.

    Attributes:
        source: The file that was read.
        source_kind: `"meta_graph"`, `"saved_model"`, `"keras"` or `"h5"`.
        destination: What was written: a file, a directory, or a checkpoint prefix.
        kind: `"meta_graph"`, `"saved_model"`, `"keras"`, `"h5"` or `"weights"`.
        model: Class of the model that it went through.
        graphs: Keys of the signatures by tags (joined with commas), of what has any.
        files: Sizes of the written files, in bytes, by their path in or beside the
            destination.
        lost: What the source has and the destination has not, a line each.
    """

    source: str
    source_kind: str
    destination: str
    kind: str
    model: str
    graphs: Mapping[str, tuple[str, ...]]
    files: Mapping[str, int]
    lost: tuple[str, ...]

    def __rich_console__(
        self, console: Console, options: ConsoleOptions
    ) -> RenderResult:
        table = Table(box=None, show_header=False)
        table.add_column(style="bold", no_wrap=True)
        table.add_column(overflow="fold")
        table.add_row("from", Text(f"{self.source} ({self.source_kind})"))
        table.add_row("to", Text(f"{self.destination} ({self.kind})"))
        table.add_row("through", Text(self.model))
        for tags, keys in self.graphs.items():
            found = ", ".join(keys) or "none"
            table.add_row("signatures", Text(f"{tags}: {found}" if tags else found))
        for name, size in list(self.files.items())[:_LISTED]:
            table.add_row("file", Text(f"{name}, {size:,} bytes"))
        if len(self.files) > _LISTED:
            table.add_row("", f"and {len(self.files) - _LISTED} more")
        yield table
        for line in self.lost:
            yield Text(f"! not converted: {line}", style="yellow")
        if not self.lost:
            yield Text("Nothing was left out.", style="green")
