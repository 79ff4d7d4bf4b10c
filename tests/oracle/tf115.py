"""Runs scripts in real TensorFlow 1.15.5, with arrays going in and coming out."""

import functools
import json
import os
import subprocess
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from oracle import environment

SCRIPTS = Path(__file__).parent / "scripts"

Arrays = dict[str, np.ndarray]


class OracleError(Exception):
    """A script failed in TensorFlow 1.15.5; the message is its error output."""


@functools.cache
def interpreter() -> Path:
    """The Python that has TensorFlow 1.15.5; made on the first use."""
    return environment.find_or_make()


def run_tf115(
    script: str | Path,
    arrays: Mapping[str, Any] | None = None,
    args: Mapping[str, Any] | None = None,
    timeout: float = 600.0,
) -> Arrays:
    """Runs `main(arrays, args)` of a script in TensorFlow 1.15.5.

    Args:
        script: A file; or the name of one in `scripts`, without `.py`; or, if it has
            several lines, the source itself. It is Python 3.7 and defines
            `main(arrays, args)`, which returns a dict of arrays.
        arrays: What it gets as arrays; anything `numpy.asarray` takes.
        args: What it gets as settings; anything JSON can hold, and paths.
        timeout: In seconds.

    Returns:
        The arrays that `main` returned. Strings are NumPy `S` arrays.

    Raises:
        OracleError: If the script fails.
    """
    with tempfile.TemporaryDirectory(prefix="tf115-") as name:
        folder = Path(name)
        _write_arrays(folder / "in", arrays or {})
        (folder / "args.json").write_text(json.dumps(args or {}, default=os.fspath))
        done = subprocess.run(
            [interpreter(), SCRIPTS / "_runner.py", _file(script, folder), folder],
            env=environment.clean_environment(),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
        )
        if done.returncode:
            raise OracleError(
                f"{script if isinstance(script, Path) else script[:200]} exited with "
                f"{done.returncode} in TensorFlow {environment.VERSION}:\n"
                f"{done.stdout[-4000:]}{done.stderr[-8000:]}"
            )
        return _read_arrays(folder / "out")


def _file(script: str | Path, folder: Path) -> Path:
    """The file to run for what the caller named."""
    if isinstance(script, Path):
        return script
    if "\n" not in script:
        return SCRIPTS / f"{script}.py"
    file = folder / "script.py"
    file.write_text(script)
    return file


# The members of an .npz are numbered, and their names kept beside them: TF names are
# no file names, and `file` would clash with an argument of `savez`.


def _write_arrays(base: Path, arrays: Mapping[str, Any]) -> None:
    values = [np.asarray(value) for value in arrays.values()]
    for key, value in zip(arrays, values, strict=True):
        if value.dtype == object:
            raise TypeError(f"array {key!r} has dtype object; use bytes ('S') arrays")
    np.savez(base.with_suffix(".npz"), *values)
    base.with_suffix(".json").write_text(json.dumps(list(arrays)))


def _read_arrays(base: Path) -> Arrays:
    keys = json.loads(base.with_suffix(".json").read_text())
    with np.load(base.with_suffix(".npz")) as stored:
        return {key: stored[f"arr_{i}"] for i, key in enumerate(keys)}
