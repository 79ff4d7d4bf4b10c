"""Finds or makes the Python that has real TensorFlow 1.15.5.

As a program it makes it and prints the path of its interpreter. Standard library only:
it runs before anything is installed.

    KERAS_METAGRAPH_TF115          the interpreter to use; nothing is made then
    KERAS_METAGRAPH_REQUIRE_TF115  1: it is an error if there is none
"""

import contextlib
import fcntl
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

VERSION = "1.15.5"
REQUIREMENTS = (f"tensorflow=={VERSION}", "protobuf<3.21")
_PROBE = "import sys, tensorflow; sys.exit(tensorflow.__version__ != {!r})"


class OracleUnavailableError(Exception):
    """There is no TensorFlow 1.15.5, and the reason why none could be made."""


def required() -> bool:
    """Whether a missing TensorFlow 1.15.5 is a failure."""
    return os.environ.get("KERAS_METAGRAPH_REQUIRE_TF115", "") not in ("", "0")


def find_or_make() -> Path:
    """Returns an interpreter that imports TensorFlow 1.15.5.

    Raises:
        OracleUnavailableError: If there is none and none can be made.
    """
    given = os.environ.get("KERAS_METAGRAPH_TF115")
    if given:
        python = Path(given)
        if not _has_tensorflow(python):
            raise OracleUnavailableError(
                f"KERAS_METAGRAPH_TF115={given} does not import TensorFlow {VERSION}"
            )
        return python
    folder = _cache() / f"tf-{VERSION}"
    folder.parent.mkdir(parents=True, exist_ok=True)
    with _locked(folder.with_suffix(".lock")):
        python = folder / "bin" / "python"
        if not (folder / "complete").exists():
            _make(folder)
    return python


def clean_environment() -> dict[str, str]:
    """The environment for the other Python: nothing of this one reaches it."""
    kept = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("PYTHON", "PYTEST", "COV_", "VIRTUAL_ENV", "PYENV_V"))
        # Importing TensorFlow 2 sets it, and TensorFlow 1.15 obeys it.
        and name != "TF2_BEHAVIOR"
    }
    return kept | {
        "CUDA_VISIBLE_DEVICES": "",
        "TF_CPP_MIN_LOG_LEVEL": "3",
        "PYTHONDONTWRITEBYTECODE": "1",
        "PYTHONWARNINGS": "ignore",
    }


def _cache() -> Path:
    """Where the environment is kept from one run to the next."""
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "keras_metagraph"


@contextlib.contextmanager
def _locked(path: Path) -> Iterator[None]:
    """One process at a time; the others wait and then find its work done."""
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _make(folder: Path) -> None:
    """Makes a virtual environment with TensorFlow 1.15.5 in it."""
    base = _python37()
    shutil.rmtree(folder, ignore_errors=True)
    for command in (
        [base, "-m", "venv", folder],
        [folder / "bin" / "python", "-m", "pip", "install", "--quiet", *REQUIREMENTS],
    ):
        done = _run(command, timeout=1800)
        if done.returncode:
            raise OracleUnavailableError(
                f"{' '.join(map(str, command))} failed:\n{done.stderr[-2000:]}"
            )
    if not _has_tensorflow(folder / "bin" / "python"):
        raise OracleUnavailableError(
            f"{folder} was made, but does not import TensorFlow {VERSION}"
        )
    (folder / "complete").touch()


def _python37() -> Path:
    """Finds a Python 3.7: on the path, or among those of pyenv."""
    candidates = [Path(found) for found in [shutil.which("python3.7")] if found]
    root = Path(os.environ.get("PYENV_ROOT") or Path.home() / ".pyenv")
    candidates += sorted(root.glob("versions/3.7*/bin/python"), reverse=True)
    for candidate in candidates:
        # A pyenv shim is there, yet fails, when its version is not the active one.
        if _succeeds(
            [
                candidate,
                "-c",
                "import sys, venv; sys.version_info[:2] != (3, 7) and sys.exit(1)",
            ]
        ):
            return candidate
    raise OracleUnavailableError(
        f"TensorFlow {VERSION} needs Python 3.7, and none was found. To fix: set "
        f"KERAS_METAGRAPH_TF115 to a Python that has TensorFlow {VERSION}, or install "
        "Python 3.7 (pyenv will do)"
    )


def _has_tensorflow(python: Path) -> bool:
    return _succeeds([python, "-c", _PROBE.format(VERSION)])


def _succeeds(command: list[str | Path]) -> bool:
    try:
        return _run(command, timeout=300).returncode == 0
    except OSError:
        return False


def _run(
    command: list[str | Path], timeout: float
) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        command,
        env=clean_environment(),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
    )


if __name__ == "__main__":
    try:
        print(find_or_make())
    except OracleUnavailableError as error:
        sys.exit(str(error))
