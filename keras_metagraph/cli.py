"""The command `keras-metagraph`."""

import argparse
import json
import os
import sys
import warnings
from collections.abc import Sequence

from keras_metagraph.errors import MetaGraphError

OK, BLOCKED, FAILED = 0, 1, 2

_EPILOG = """\
exit codes:
  0  the file was read
  1  the file was read, and its model needs ops that are not run unless you trust it
  2  the file cannot be read; the reason is on standard error
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command.

    Args:
        arguments: What stands after the program's name; by default `sys.argv[1:]`.

    Returns:
        The exit code: 0, 1 if what the model needs is refused, 2 for an error.
    """
    options = _parser().parse_args(arguments)
    # TensorFlow is imported after this line.
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", UserWarning)
        try:
            return _inspect(options.path, options.tags, as_json=options.json)
        except MetaGraphError as error:
            print(f"error: {error}", file=sys.stderr)
            return FAILED
        finally:
            for warning in caught:
                print(f"warning: {warning.message}", file=sys.stderr)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="keras-metagraph", description="TensorFlow 1 MetaGraphs for Keras 3."
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    inspect = commands.add_parser(
        "inspect",
        help="show what a MetaGraph or SavedModel holds; nothing of it is run",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    inspect.add_argument(
        "path",
        metavar="PATH",
        help="a checkpoint prefix, a .meta or .pbtxt file, a directory of checkpoints "
        "or a SavedModel directory",
    )
    inspect.add_argument("--json", action="store_true", help="print JSON")
    inspect.add_argument(
        "--tags",
        type=lambda text: [tag for tag in text.split(",") if tag],
        metavar="A,B",
        help="only the graph of a SavedModel that has exactly these tags",
    )
    return parser


def _inspect(path: str, tags: Sequence[str] | None, *, as_json: bool) -> int:
    from rich.console import Console

    from keras_metagraph.inspect import inspect_meta_graph

    report = inspect_meta_graph(path, tags=tags)
    if as_json:
        print(json.dumps(report.to_dict(), indent=2))
    else:
        Console().print(report)
    return BLOCKED if report.blocked else OK
