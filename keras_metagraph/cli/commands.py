"""What each command does: a call of the package, and its result printed."""

import argparse
import json
import os
import sys
from typing import Any

from rich.console import Console

OK, FOUND = 0, 1
_UNWRAPPED = 500  # columns, where no one looks at the output but a program


class _Console(Console):
    """A console that leaves it to the caller when its reader goes."""

    def on_broken_pipe(self) -> None:
        """Raises what was caught, where newer releases of rich would exit."""
        raise BrokenPipeError


def run(options: argparse.Namespace) -> int:
    """Does what the arguments say, and returns the exit code."""
    return {
        "inspect": _inspect,
        "signatures": _signatures,
        "run": _run,
        "convert": _convert,
    }[options.command](options)


def _inspect(options: argparse.Namespace) -> int:
    from keras_metagraph.inspect import inspect_meta_graph

    report = inspect_meta_graph(options.path, tags=options.tags)
    _print(report, options)
    return FOUND if report.blocked else OK


def _signatures(options: argparse.Namespace) -> int:
    from keras_metagraph.inspect_signatures import inspect_signatures

    report = inspect_signatures(options.path, tags=options.tags)
    _print(report, options)
    return FOUND if report.refused else OK


def _run(options: argparse.Namespace) -> int:
    from keras_metagraph.cli.run import run_signature

    report = run_signature(options)
    _print(report, options)
    return OK


def _convert(options: argparse.Namespace) -> int:
    from keras_metagraph.cli.modules import import_modules
    from keras_metagraph.conversion import convert

    report = convert(
        options.source,
        options.destination,
        to=options.to and options.to.replace("-", "_"),
        tags=options.tags,
        signature=options.signature,
        graphs=options.graphs,
        custom_objects=import_modules(options.modules),
        as_text=options.text,
        safe_mode=not options.trust,
        force=options.force,
    )
    _print(report, options)
    return OK


def _print(report: Any, options: argparse.Namespace) -> None:
    """Prints a report for a reader, or as JSON for a program.

    Tables are as wide as the terminal. In a pipe their rows are lines, to be searched.
    """
    if options.json:
        print(json.dumps(report.to_dict(), indent=2))
    else:
        narrow = sys.stdout.isatty() or "COLUMNS" in os.environ
        _Console(width=None if narrow else _UNWRAPPED).print(report)
    sys.stdout.flush()
