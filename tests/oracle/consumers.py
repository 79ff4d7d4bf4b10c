"""Finds or makes the Pythons that have other readers of MetaGraphs: tf2onnx, OpenVINO.

As a program, run as `python -m oracle.consumers` with `tests` on the path, it makes
them and prints `NAME=INTERPRETER` lines for the environment. Standard library only: it
runs before anything is installed.

    KERAS_METAGRAPH_TF2ONNX            the interpreter to use; nothing is made then
    KERAS_METAGRAPH_OPENVINO           the same
    KERAS_METAGRAPH_REQUIRE_CONSUMERS  1: it is an error if one of them is missing
"""

import dataclasses
import os
import shutil
import sys
from pathlib import Path

from oracle import environment


@dataclasses.dataclass(frozen=True)
class Consumer:
    """A program that reads MetaGraphs, and what it needs.

    Attributes:
        name: What it is called, with its version.
        variable: The environment variable that names a Python which has it.
        requirements: What is installed for it. All of them are pinned: the tests say
            how it behaves.
        probe: A program that fails where it is not installed.
        pythons: The minor versions of Python 3 that can have it, best first.
    """

    name: str
    variable: str
    requirements: tuple[str, ...]
    probe: str
    pythons: tuple[int, ...]


TF2ONNX = Consumer(
    "tf2onnx-1.17.0",
    "KERAS_METAGRAPH_TF2ONNX",
    (
        "tf2onnx==1.17.0",
        "onnx==1.17.0",  # later ones need an ml_dtypes that TensorFlow 2.15 refuses
        "onnxruntime==1.23.2",
        "tensorflow-cpu==2.15.1",  # the last one that tf2onnx is tested with
    ),
    "import onnxruntime, tensorflow, tf2onnx.convert",
    (11, 10),
)
OPENVINO = Consumer(
    "openvino-2026.4.1",
    "KERAS_METAGRAPH_OPENVINO",
    ("openvino==2026.4.1",),
    "import openvino; openvino.convert_model",
    (11, 12, 13, 10),
)


def required() -> bool:
    """Whether a missing consumer is a failure."""
    return os.environ.get("KERAS_METAGRAPH_REQUIRE_CONSUMERS", "") not in ("", "0")


def find_or_make(consumer: Consumer) -> Path:
    """Returns an interpreter that has a consumer.

    Raises:
        OracleUnavailableError: If there is none and none can be made.
    """
    given = os.environ.get(consumer.variable)
    if given:
        _check(consumer, Path(given), f"{consumer.variable}={given}")
        return Path(given)
    folder = environment._cache() / consumer.name
    folder.parent.mkdir(parents=True, exist_ok=True)
    with environment._locked(folder.with_name(f"{folder.name}.lock")):
        if not (folder / "complete").exists():
            _make(consumer, folder)
    return folder / "bin" / "python"


def _make(consumer: Consumer, folder: Path) -> None:
    """Makes a virtual environment with a consumer in it."""
    base = _python(consumer)
    shutil.rmtree(folder, ignore_errors=True)
    python = folder / "bin" / "python"
    for command in (
        [base, "-m", "venv", folder],
        [python, "-m", "pip", "install", "--quiet", *consumer.requirements],
    ):
        done = environment._run(command, timeout=1800)
        if done.returncode:
            raise environment.OracleUnavailableError(
                f"{' '.join(map(str, command))} failed:\n{done.stderr[-2000:]}"
            )
    _check(consumer, python, f"{folder} was made, but")
    (folder / "complete").touch()


def _check(consumer: Consumer, python: Path, subject: str) -> None:
    """Tries to import a consumer.

    Raises:
        OracleUnavailableError: If that fails.
    """
    try:
        done = environment._run([python, "-c", consumer.probe], timeout=300)
    except OSError as error:
        raise environment.OracleUnavailableError(f"{subject}: {error}") from error
    if done.returncode:
        raise environment.OracleUnavailableError(
            f"{subject} does not import {consumer.name}:\n{done.stderr[-2000:]}"
        )


def _python(consumer: Consumer) -> Path:
    """Finds a Python that a consumer runs in: this one, on the path, or of pyenv."""
    root = Path(os.environ.get("PYENV_ROOT") or Path.home() / ".pyenv")
    candidates = [Path(sys.executable)]
    for minor in consumer.pythons:
        candidates += [Path(p) for p in [shutil.which(f"python3.{minor}")] if p]
        candidates += sorted(root.glob(f"versions/3.{minor}.*/bin/python"))
    wanted = ", ".join(f"(3, {minor})" for minor in consumer.pythons)
    for candidate in candidates:
        # A pyenv shim is there, yet fails, when its version is not the active one.
        if environment._succeeds(
            [
                candidate,
                "-c",
                f"import sys, venv; sys.exit(sys.version_info[:2] not in ({wanted},))",
            ]
        ):
            return candidate
    versions = " or ".join(f"3.{minor}" for minor in consumer.pythons)
    raise environment.OracleUnavailableError(
        f"{consumer.name} needs Python {versions}, and none was found. To fix: set "
        f"{consumer.variable} to a Python that has {', '.join(consumer.requirements)}, "
        "or install such a Python (pyenv will do)"
    )


if __name__ == "__main__":
    try:
        for each in (TF2ONNX, OPENVINO):
            print(f"{each.variable}={find_or_make(each)}")
    except environment.OracleUnavailableError as error:
        sys.exit(str(error))
