"""What the reports of this package have in common: they print as tables."""

import dataclasses
import io
from typing import Any

from rich.console import Console

_COLUMNS = 80


class Printed:
    """A report: a dataclass that says in `__rich_console__` how it prints."""

    def to_dict(self) -> dict[str, Any]:
        """The report as plain Python, that JSON can hold."""
        return dataclasses.asdict(self)  # type: ignore[call-overload,no-any-return]

    def __str__(self) -> str:
        console = Console(
            file=io.StringIO(), width=_COLUMNS, no_color=True, highlight=False
        )
        with console.capture() as capture:
            console.print(self)
        return capture.get().rstrip()
