"""The arguments of the command `keras-metagraph`; importing this costs nothing."""

import argparse
from typing import Any

_SOURCE = (
    "a checkpoint prefix, a .meta or .pbtxt file, a directory of checkpoints or a "
    "SavedModel directory"
)


def parser() -> argparse.ArgumentParser:
    """Makes the parser of all commands."""
    result = argparse.ArgumentParser(
        prog="keras-metagraph", description="TensorFlow 1 MetaGraphs for Keras 3."
    )
    commands = result.add_subparsers(required=True, metavar="COMMAND", dest="command")
    _inspect(commands)
    _signatures(commands)
    _run(commands)
    _convert(commands)
    return result


def _inspect(commands: Any) -> None:
    command = _command(
        commands,
        "inspect",
        "show what a MetaGraph or SavedModel holds; nothing of it is run",
        """
        exit codes:
          0  the file was read
          1  the file was read, and its model needs ops that are not run unless you
             trust it
          2  the file cannot be read; the reason is on standard error
        """,
    )
    command.add_argument("path", metavar="PATH", help=_SOURCE)
    command.add_argument("--json", action="store_true", help="print JSON")
    _tags(command, "only the graph of a SavedModel that has exactly these tags")


def _signatures(commands: Any) -> None:
    command = _command(
        commands,
        "signatures",
        "list signatures, and what TensorFlow Serving says of them; nothing is run",
        """
        exit codes:
          0  the file was read, and TensorFlow Serving takes all of its signatures
          1  the file was read, and TensorFlow Serving would refuse a signature
          2  the file cannot be read; the reason is on standard error
        """,
    )
    command.add_argument("path", metavar="PATH", help=_SOURCE)
    command.add_argument("--json", action="store_true", help="print JSON")
    _tags(command, "only the graph of a SavedModel that has exactly these tags")


def _run(commands: Any) -> None:
    command = _command(
        commands,
        "run",
        "run a signature on inputs from files or JSON",
        """
        inputs:
          --inputs x=x.npy                 an array of numpy.save
          --inputs 'x=data.npz[train]'     one array of numpy.savez
          --inputs data.npz                all arrays of a file, by input name
          --inputs-json '{"x": [[1, 2]]}'  by input name
          --inputs-json '{"instances": [{"x": [1, 2]}]}', '{"inputs": [[1, 2]]}'
                                           as a request to TensorFlow Serving
          --examples '[{"age": [22.0]}]'   tf.Examples, short
          --examples '[{"features": {"feature": {"age": {"floatList": ...}}}}]'
                                           tf.Examples, as protobuf writes JSON
          @FILE in the place of JSON reads it from a file, @- from standard input.

        exit codes:
          0  the signature was run
          2  it was not; the reason is on standard error
        """,
    )
    command.add_argument("path", metavar="PATH", help=_SOURCE)
    command.add_argument(
        "--signature",
        metavar="NAME",
        help="which signature; by default serving_default, or the only one",
    )
    _tags(command, "the graph of a SavedModel that has exactly these tags")
    command.add_argument(
        "--inputs",
        nargs="+",
        default=[],
        action="extend",
        metavar="NAME=FILE",
        help="inputs as files of NumPy",
    )
    command.add_argument("--inputs-json", metavar="JSON", help="inputs as JSON")
    command.add_argument(
        "--examples",
        metavar="[NAME=]JSON",
        help="serialized tf.Examples for the input NAME, or for the only string input",
    )
    command.add_argument("--json", action="store_true", help="print JSON")
    command.add_argument(
        "--output", metavar="FILE.npz", help="write the outputs to a file"
    )
    _force(command, "--output")
    _trust(command)


def _convert(commands: Any) -> None:
    command = _command(
        commands,
        "convert",
        "convert between MetaGraph, SavedModel and the files of Keras",
        """
        destinations:
          model.meta, model.ckpt   a MetaGraph with a name-based checkpoint
          model.keras              a file of Keras 3
          model.h5                 an H5 file of Keras, whole model
          model.weights.h5         the weights alone
          any other name           a SavedModel directory
          --to says it where the name does not.

        exit codes:
          0  converted; what the new file does not hold is listed
          2  not converted; the reason is on standard error
        """,
    )
    command.add_argument(
        "source", metavar="SRC", help=f"{_SOURCE}, or a .keras or .h5 file"
    )
    command.add_argument("destination", metavar="DST", help="where to write")
    command.add_argument(
        "--to",
        choices=("meta-graph", "saved-model", "keras", "h5", "weights"),
        help="what to write; by default what the name of DST says",
    )
    _tags(command, "the graph of a SavedModel that has exactly these tags")
    command.add_argument(
        "--signature",
        metavar="NAME",
        help="the signature that says what a model of TensorFlow takes and gives",
    )
    command.add_argument(
        "--graphs",
        type=lambda text: [name for name in text.split(",") if name],
        default=["predict", "eval", "train"],
        metavar="A,B",
        help="which graphs of a model of Keras to write, of predict,eval,train; by "
        "default all that it has",
    )
    command.add_argument(
        "--text", action="store_true", help="write the graph as text (pbtxt)"
    )
    command.add_argument(
        "--import",
        dest="modules",
        action="append",
        default=[],
        metavar="MODULE",
        help="import a module with the classes of the model; it is looked for in the "
        "current directory too",
    )
    command.add_argument("--json", action="store_true", help="print JSON")
    _force(command, "DST")
    _trust(command)


def _command(commands: Any, name: str, help: str, epilog: str) -> Any:
    """Adds a command, its epilog as it stands."""
    lines = epilog.strip("\n").split("\n")
    margin = len(lines[0]) - len(lines[0].lstrip())
    return commands.add_parser(
        name,
        help=help,
        description=help[0].upper() + help[1:] + ".",
        epilog="\n".join(line[margin:] for line in lines).rstrip(),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )


def _tags(command: Any, help: str) -> None:
    command.add_argument(
        "--tags",
        type=lambda text: [tag for tag in text.split(",") if tag],
        metavar="A,B",
        help=help,
    )


def _force(command: Any, what: str) -> None:
    command.add_argument(
        "--force", action="store_true", help=f"replace {what} if it exists"
    )


def _trust(command: Any) -> None:
    command.add_argument(
        "--trust",
        action="store_true",
        help="run ops and Python code that reach beyond the model; only for a file "
        "that you trust as you would trust a program",
    )
