"""Measures calls and prints tables of what was measured."""

import argparse
import dataclasses
import gc
import multiprocessing
import os
import platform
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from importlib import metadata
from pathlib import Path
from typing import TypeVar

from rich.console import Console
from rich.table import Table

Result = TypeVar("Result")

_CONSOLE = Console(width=None if os.isatty(1) else 110)


@dataclasses.dataclass
class Series:
    """Seconds of the same thing, measured several times."""

    seconds: list[float] = dataclasses.field(default_factory=list)

    @property
    def median(self) -> float:
        """What a ratio is taken of."""
        return statistics.median(self.seconds)

    def __str__(self) -> str:
        if not self.seconds:
            return ""
        low, high = min(self.seconds), max(self.seconds)
        spread = f" ({_rounded(low)} - {_rounded(high)})"
        return _rounded(self.median) + (spread if len(self.seconds) > 1 else "")


def arguments(description: str) -> argparse.Namespace:
    """The arguments that all of these programs take."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--quick", action="store_true", help="small models, one round")
    parser.add_argument("--rounds", type=int, default=3, help="how often; 3 by default")
    parser.add_argument("--only", default="", help="the models whose names begin so")
    parser.add_argument("--directory", help="where the files go; by default temporary")
    given = parser.parse_args()
    if given.quick:
        given.rounds = 1
    return given


def isolated(function: Callable[..., Result], *arguments: object) -> Result:
    """Calls a function in a process of its own.

    TensorFlow keeps the variables of a model that was trained after the model is gone,
    and the next figure would be one of a machine that is short of memory.
    """
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        return pool.submit(function, *arguments).result()


def timed(action: Callable[[], Result]) -> tuple[float, Result]:
    """How long a call takes, and what it returns; garbage of before is not in it."""
    gc.collect()
    start = time.perf_counter()
    result = action()
    return time.perf_counter() - start, result


def flush(folder: Path) -> float:
    """Waits until the disk has the files of a directory; returns the seconds."""
    start = time.perf_counter()
    for path in folder.rglob("*"):
        if path.is_file():
            with path.open("rb") as file:
                os.fsync(file.fileno())
    return time.perf_counter() - start


def time_of_writing(megabytes: float, parent: Path) -> Series:
    """How long it takes to write and sync so much with nothing around it."""
    data = os.urandom(1_000_000)

    def write() -> None:
        with (folder / "data").open("wb", buffering=0) as file:
            for _ in range(round(megabytes)):
                file.write(data)
            os.fsync(file.fileno())

    with scratch(str(parent)) as folder:
        return Series([timed(write)[0]])


@contextmanager
def scratch(parent: str | None) -> Iterator[Path]:
    """A directory that is gone afterwards."""
    folder = Path(tempfile.mkdtemp(prefix="benchmark-", dir=parent))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def megabytes(folder: Path) -> float:
    """What the files of a directory take; files with several names count once."""
    files = {
        file.stat().st_ino: file.stat().st_size
        for file in folder.rglob("*")
        if file.is_file()
    }
    return sum(files.values()) / 1e6


def say_where() -> None:
    """Prints what the numbers were measured with."""
    versions = ", ".join(
        f"{found.name} {found.version}"
        for found in metadata.distributions()
        if found.name.startswith(("keras", "numpy", "tensorflow"))
    )
    _CONSOLE.print(
        f"Python {platform.python_version()}, {versions}; {os.cpu_count()} cores, "
        f"load {os.getloadavg()[0]:.1f} at the start. Seconds: median (least - most)."
    )


def table(title: str, columns: list[str], rows: list[list[str]]) -> None:
    """Prints a table: the first column is text, the others are numbers."""
    shown = Table(title=title, title_justify="left")
    for i, column in enumerate(columns):
        shown.add_column(column, justify="right" if i else "left")
    for row in rows:
        shown.add_row(*row)
    _CONSOLE.print(shown)


def ratios(
    title: str,
    pairs: list[tuple[str, str]],
    measured: Mapping[str, Mapping[str, Series]],
) -> None:
    """Prints how many times as long ours take as peers.

    Args:
        title: Title of the table.
        pairs: What is compared with what.
        measured: A column each: the series by what was measured.
    """
    rows = [
        [
            f"{ours} / {peer}",
            *(
                f"{each[ours].median / each[peer].median:.2f}"
                for each in measured.values()
            ),
        ]
        for ours, peer in pairs
    ]
    table(f"{title}: ours / peer", ["", *measured], rows)


def _rounded(seconds: float) -> str:
    return f"{seconds:.1f}" if seconds >= 10 else f"{seconds:.3f}"[:5]
