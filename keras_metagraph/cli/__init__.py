"""The command `keras-metagraph`."""

import os
import sys
import warnings
from collections.abc import Sequence

from keras_metagraph.cli.arguments import parser
from keras_metagraph.errors import MetaGraphError

FAILED = 2


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command.

    Args:
        arguments: What stands after the program's name; by default `sys.argv[1:]`.

    Returns:
        The exit code: 0, 1 if something was found that the command looks for, 2 for an
        error.
    """
    options = parser().parse_args(arguments)
    # TensorFlow is imported after this line.
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    from keras_metagraph.cli import commands

    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", UserWarning)
        try:
            return commands.run(options)
        except MetaGraphError as error:
            print(f"error: {error}", file=sys.stderr)
            return FAILED
        except BrokenPipeError:  # the reader has seen enough: `| head`
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            return 0
        finally:
            for warning in caught:
                print(f"warning: {warning.message}", file=sys.stderr)
