"""Reads the arrays in the files of Keras 3, `.keras` and `.weights.h5`.

Both hold one HDF5 file with a group for each layer. The group is called after the
layer's class or the attribute that holds it, `layers/dense_1`; its `vars` have the
layer's name as an attribute (since Keras 3.8) and the variables as `0`, `1`...
"""

import dataclasses
import io
import os
import zipfile
from typing import Any

import h5py
import ml_dtypes
import numpy as np

from keras_metagraph.errors import FormatError, UntrustedContentError
from keras_metagraph.formats.keras_h5 import dataset_problem

ARCHIVE_FILES = (".keras", ".weights.h5")
"""How the names of these files end."""

_READ_ERRORS = (
    OSError,
    KeyError,
    ValueError,
    TypeError,
    RuntimeError,
    zipfile.BadZipFile,
)
_MEMBER = "model.weights.h5"
_VARIABLES = "vars"
# Keras compresses nothing: what would unpack to much more is no file of Keras.
_MOST_EXPANSION = 64
_SMALL = 1 << 20


@dataclasses.dataclass(frozen=True, slots=True)
class KerasArray:
    """An array of a file of Keras 3.

    Attributes:
        path: Its path in the HDF5 file.
        shape: Its shape.
        dtype: Its type.
        count: How many variables its layer has.
    """

    path: str
    shape: tuple[int, ...]
    dtype: str
    count: int


class KerasWeights:
    """A `.keras` or `.weights.h5` file.

    Args:
        path: The file.

    Attributes:
        path: The file.
        arrays: Its arrays by the names of the layers around them and their number:
            `"encoder/dense/0"`. The model's own name is not among these.

    Raises:
        FormatError: If the file is missing, damaged, or of another format.
        UntrustedContentError: If it points outside itself, or claims to be larger than
            it is; lists all such places.

    Example:
        >>> KerasWeights("m.weights.h5").arrays["dense/0"].shape
        (12, 16)
    """

    def __init__(self, path: str) -> None:
        self.path = path
        try:
            self._content = self._unpacked()
            with self._opened() as file:
                variables: dict[str, Any] = {}
                # It follows hard links only.
                file.visititems(lambda name, item: _note(variables, name, item))
                self._require_sound(variables)
                self.arrays = dict(_named(variables, _names(file)))
        except _READ_ERRORS as error:
            if isinstance(error, FormatError | UntrustedContentError):
                raise
            raise FormatError(
                f"{path!r} is missing, damaged, or no file of Keras 3: {error}",
                fix="pass a file that model.save or model.save_weights wrote.",
            ) from error

    def read(self, name: str) -> Any:
        """Reads an array.

        Args:
            name: As in `arrays`.

        Returns:
            Its value.

        Raises:
            FormatError: If it cannot be read.
        """
        array = self.arrays[name]
        try:
            with self._opened() as file:
                value = file[array.path][()]
        except _READ_ERRORS as error:
            raise FormatError(
                f"The array {array.path!r} of {self.path!r} cannot be read: {error}",
                fix="get the file once more.",
            ) from error
        if array.dtype == "bfloat16":
            return np.asarray(value).view(ml_dtypes.bfloat16)
        return np.asarray(value)

    def _opened(self) -> Any:
        """The HDF5 file, open; it may change between two readings."""
        return h5py.File(self._content or self.path, "r")

    def _unpacked(self) -> Any:
        """What an archive holds; None for a file that is none."""
        if not self.path.endswith(".keras"):
            return None
        with zipfile.ZipFile(self.path) as archive:
            size = archive.getinfo(_MEMBER).file_size
            if size > _MOST_EXPANSION * os.path.getsize(self.path) + _SMALL:
                raise UntrustedContentError(
                    f"{self.path!r} would unpack to {size:,} bytes.",
                    fix="get the file from where it was written.",
                )
            return io.BytesIO(archive.read(_MEMBER))

    def _require_sound(self, variables: dict[str, Any]) -> None:
        # HDF5 knows no bfloat16: h5py writes two bytes of nothing known.
        problems = {p: dataset_problem(data, "biufV") for p, data in variables.items()}
        findings = [f"{path}: {text}" for path, text in problems.items() if text]
        if findings:
            raise UntrustedContentError(
                f"{self.path!r} points outside itself, or claims to be larger than it "
                "is, as no file of Keras does:",
                findings=findings,
                fix="get the file from where it was written.",
            )


def _names(file: Any) -> dict[str, str]:
    """The names of the layers by the paths of their groups."""
    names: dict[str, str] = {}

    def note(path: str, item: Any) -> None:
        group, _, last = path.rpartition("/")
        if last == _VARIABLES and "name" in item.attrs:
            names[group] = str(item.attrs["name"])

    file.visititems(note)
    return names


def _note(variables: dict[str, Any], path: str, item: Any) -> None:
    if f"/{path}".rpartition("/")[0].endswith(f"/{_VARIABLES}"):
        variables[path] = item


def _named(
    variables: dict[str, Any], names: dict[str, str]
) -> list[tuple[str, KerasArray]]:
    """The arrays by the names of their layers."""
    groups: dict[str, list[str]] = {}
    for path in variables:
        groups.setdefault(path.rpartition("/")[0], []).append(path)
    found = []
    for group, paths in groups.items():
        layer = _layer(group.removesuffix(_VARIABLES).rstrip("/"), names)
        for path in paths:
            number = path.rpartition("/")[2]
            data = variables[path]
            dtype = str(data.attrs.get("dtype", data.dtype.name))
            array = KerasArray(path, tuple(data.shape), dtype, len(paths))
            found.append((f"{layer}/{number}" if layer else number, array))
    return found


def _layer(group: str, names: dict[str, str]) -> str:
    """The names of a group's layer and those around it, outermost first."""
    if not names:  # Before Keras 3.8: the classes of layers, numbered.
        return group
    parts = group.split("/") if group else []
    paths = ("/".join(parts[: end + 1]) for end in range(len(parts)))
    # Lists and dicts of layers have no names.
    return "/".join(names[path] for path in paths if path in names)
