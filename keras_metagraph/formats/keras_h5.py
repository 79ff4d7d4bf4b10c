"""Reads the HDF5 files of Keras 1 and 2, and trusts none of their sizes and links.

`model.save` wrote two JSON attributes (`model_config`, `training_config`) and groups
named `model_weights` and `optimizer_weights`; `save_weights` wrote the content of the
former at the root. A group lists its members in an attribute (`layer_names`,
`weight_names`), which Keras 2 splits into `layer_names0`, `layer_names1`... where it is
long.

HDF5 can link to other files, map a dataset onto raw files, and declare a terabyte of
zeros in a few bytes. Only what these attributes name is looked at, through hard links,
and only data that lies in the file itself is read.
"""

import dataclasses
import json
import os
import stat
from collections.abc import Iterator
from typing import Any

import h5py
import numpy as np

from keras_metagraph.errors import FormatError, UntrustedContentError

Weights = list[tuple[str, np.ndarray[Any, Any]]]

_SIGNATURE = b"\x89HDF\r\n\x1a\n"
# gzip, shuffle, fletcher32, lzf: HDF5 would load others from plug-ins.
_FILTERS = frozenset({1, 2, 3, 32000})
_MOST_NAMES = 1 << 17
_MOST_JSON = 1 << 26
_MOST_CHUNKS = 1 << 10  # of a split attribute
# Several names may lead to one dataset, and zeros compress: the whole is bounded.
_MOST_EXPANSION = 64
_SMALL = 1 << 20


@dataclasses.dataclass(frozen=True, slots=True)
class KerasH5:
    """What a file of Keras 1 or 2 holds.

    Attributes:
        path: The file.
        keras_version: The release that wrote it: `"1.2.2"`, `"2.2.4-tf"`; `"1"` where
            the file does not say, as the weights of Keras 1 do not.
        backend: `"tensorflow"`, `"theano"` or `"cntk"`. Keras 1 did not save it, but
            the names of its weights end with `:0` on TensorFlow only.
        model_config: The config of the model; None in a file of weights only.
        training_config: Optimizer, loss and metrics; None if it was not compiled.
        weights: Names and values by the name of the model's layer, in its order.
        optimizer_weights: The optimizer's, in its order; None if there are none.
    """

    path: str
    keras_version: str
    backend: str
    model_config: dict[str, Any] | None
    training_config: dict[str, Any] | None
    weights: dict[str, Weights]
    optimizer_weights: Weights | None

    @property
    def release(self) -> tuple[int, ...]:
        """The version as numbers, `(2, 2, 4)`, to compare with."""
        return release(self.keras_version)

    @property
    def is_tf_keras(self) -> bool:
        """Whether TensorFlow's own copy of Keras 2 wrote it, as far as it can be told.

        Until TensorFlow 2.5 that copy added `-tf` to its version; from 2.6 on both are
        the same, and standalone Keras ended with 2.4.
        """
        return "tf" in self.keras_version or self.release >= (2, 5)


def release(keras_version: str) -> tuple[int, ...]:
    """The numbers of a version.

    Args:
        keras_version: As in `KerasH5.keras_version`.

    Returns:
        Its leading numbers.

    Example:
        >>> release("2.2.4-tf")
        (2, 2, 4)
    """
    numbers = []
    for part in keras_version.partition("-")[0].split("."):
        if not part.isdecimal():
            break
        numbers.append(int(part))
    return tuple(numbers) or (1,)


def is_hdf5(filepath: Any) -> bool:
    """Says whether a path is that of an HDF5 file, by its first bytes.

    Args:
        filepath: Any path; it need not exist.

    Returns:
        Whether it is a regular file that begins as HDF5 does.
    """
    try:
        # Not a pipe, which would block.
        if not stat.S_ISREG(os.stat(filepath).st_mode):
            return False
        with open(filepath, "rb") as file:
            return file.read(len(_SIGNATURE)) == _SIGNATURE
    except (OSError, TypeError, ValueError):
        return False


def read_keras_h5(filepath: str | os.PathLike[str]) -> KerasH5:
    """Reads a file of `model.save` or `save_weights`.

    Args:
        filepath: The file.

    Returns:
        Configs as they were written, and all weights.

    Raises:
        FormatError: If the file is missing, damaged, or no Keras file.
        UntrustedContentError: If it links to other files, or declares more data than
            it holds; lists all such places.

    Example:
        >>> read_keras_h5("model.h5").weights["dense_1"][0][0]
        'dense_1/kernel:0'
    """
    path = os.fsdecode(os.fspath(filepath))
    if not is_hdf5(path):
        raise FormatError(
            f"{path!r} is not an HDF5 file, or there is no such file.",
            fix="pass a file that model.save or save_weights of Keras 1 or 2 wrote.",
        )
    try:
        with h5py.File(path, "r") as file:
            reader = _Reader(path, os.path.getsize(path))
            content = reader.read(file)
    except (FormatError, UntrustedContentError):
        raise
    # h5py raises any of these on damaged bytes.
    except (OSError, KeyError, TypeError, ValueError, RuntimeError) as error:
        raise FormatError(
            f"{path!r} is damaged: {error}", fix="get the file once more."
        ) from error
    return content


def read_weights(filepath: str | os.PathLike[str]) -> dict[str, Weights]:
    """Reads the weights of a file of `model.save` or `save_weights`.

    Args:
        filepath: The file.

    Returns:
        For each layer of the model, in its order, the names and values of its weights,
        in the order in which that release of Keras kept them.

    Raises:
        FormatError: If the file is missing, damaged, or no Keras file.
        UntrustedContentError: If it links to other files, or declares more data than
            it holds; lists all such places.

    Example:
        >>> [name for name, _ in read_weights("w.h5")["dense_1"]]
        ['dense_1/kernel:0', 'dense_1/bias:0']
    """
    return read_keras_h5(filepath).weights


class _Reader:
    """Reads one open file, and collects what is wrong with it."""

    def __init__(self, path: str, size: int) -> None:
        self._path = path
        self._left = _MOST_EXPANSION * size + _SMALL
        self._refused: list[str] = []
        self._missing: list[str] = []

    def read(self, file: Any) -> KerasH5:
        root = file
        if "layer_names" not in file.attrs and "layer_names0" not in file.attrs:
            root = self._member(file, "model_weights", "")
        self._raise_findings()
        if root is None or not isinstance(root, h5py.Group):
            raise FormatError(
                f"{self._path!r} has no layers as Keras 1 and 2 write them "
                f"(layer_names, model_weights). It has: {sorted(file)[:8]}",
                fix="use a file of model.save or save_weights of Keras 1 or 2; "
                ".weights.h5 files of Keras 3 are read by model.load_weights.",
            )
        config = self._json(file, "model_config")
        training_config = self._json(file, "training_config")
        weights: dict[str, Weights] = {}
        for name in self._names(root, "layer_names"):
            group = self._member(root, name, root.name)
            if group is not None:
                weights[name] = list(self._weights(group))
        optimizer = None
        if "optimizer_weights" in file:
            group = self._member(file, "optimizer_weights", "")
            optimizer = None if group is None else list(self._weights(group))
        self._raise_findings()
        return KerasH5(
            path=self._path,
            keras_version=self._text(root, "keras_version")
            or self._text(file, "keras_version")
            or "1",
            backend=self._text(root, "backend")
            or self._text(file, "backend")
            or _backend_by_names(weights),
            model_config=config,
            training_config=training_config,
            weights=weights,
            optimizer_weights=optimizer,
        )

    def _weights(self, group: Any) -> Iterator[tuple[str, np.ndarray[Any, Any]]]:
        for name in self._names(group, "weight_names"):
            dataset = self._member(group, name, group.name)
            if dataset is not None and self._may_be_read(dataset):
                yield name, np.asarray(dataset[()])

    def _member(self, group: Any, name: str, where: str) -> Any:
        """Follows a name part by part, through hard links only."""
        for part in name.split("/"):
            link = (
                group.get(part, getlink=True)
                if part not in ("", ".") and isinstance(group, h5py.Group)
                else None
            )
            if link is None:
                self._missing.append(f"{where}/{name}")
                return None
            if not isinstance(link, h5py.HardLink):
                kind = type(link).__name__
                self._refused.append(f"{where}/{name}: {kind} in place of the data")
                return None
            group = group[part]
        return group

    def _may_be_read(self, dataset: Any) -> bool:
        """Whether the data lies in this file, and is as large as it says."""
        problem = dataset_problem(dataset)
        if problem is None:
            self._left -= int(dataset.nbytes)
            if self._left < 0:
                problem = "the file declares many times the data that it holds"
        if problem is not None:
            self._refused.append(f"{dataset.name}: {problem}")
        return problem is None

    def _names(self, group: Any, attribute: str) -> list[str]:
        """The names in an attribute, which may be split into several."""
        if not isinstance(group, h5py.Group):
            raise FormatError(
                f"{self._path!r} is damaged: {group.name} is no group.",
                fix="get the file once more.",
            )
        chunks = [attribute] if attribute in group.attrs else []
        if not chunks:
            names = (f"{attribute}{index}" for index in range(_MOST_CHUNKS))
            for name in names:
                if name not in group.attrs:
                    break
                chunks.append(name)
        if not chunks:
            self._missing.append(f"{group.name}: attribute {attribute!r}")
        found: list[str] = []
        for chunk in chunks:
            if _length(group, chunk) > _MOST_NAMES:
                self._refused.append(f"{group.name}: too many names in {chunk!r}")
                return []
            found += [_decode(value) for value in np.ravel(group.attrs[chunk])]
        return found

    def _text(self, group: Any, attribute: str) -> str:
        if attribute not in group.attrs or _length(group, attribute) != 1:
            return ""
        return _decode(group.attrs[attribute])

    def _json(self, file: Any, attribute: str) -> dict[str, Any] | None:
        if attribute not in file.attrs:
            return None
        text = self._text(file, attribute)
        if len(text) > _MOST_JSON:
            raise FormatError(
                f"The {attribute} of {self._path!r} has {len(text):,} characters, and "
                f"at most {_MOST_JSON:,} are read.",
                fix="get the file once more.",
            )
        try:
            value = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise FormatError(
                f"The {attribute} of {self._path!r} is no JSON: {error}",
                fix="get the file once more.",
            ) from error
        if value is not None and not isinstance(value, dict):
            raise FormatError(
                f"The {attribute} of {self._path!r} is a {type(value).__name__}, not "
                "an object.",
                fix="get the file once more.",
            )
        return value

    def _raise_findings(self) -> None:
        if self._refused:
            raise UntrustedContentError(
                f"{self._path!r} points outside itself, or claims to be larger than it "
                "is, as no file of Keras does:",
                findings=self._refused,
                fix="get the file from where it was written.",
            )
        if self._missing and "/model_weights" not in self._missing:
            raise FormatError(
                f"{self._path!r} lacks what it says to hold:",
                findings=self._missing,
                fix="get the file once more.",
            )


def dataset_problem(dataset: Any, kinds: str = "biuf") -> str | None:
    """Says why a dataset is not read.

    Args:
        dataset: What was found in place of the data.
        kinds: The kinds of types that are read, as NumPy has them.

    Returns:
        What is wrong with it; None if its data lies in the file, and is as large as
        it says.
    """
    if not isinstance(dataset, h5py.Dataset):
        return "a group in place of the data"
    if dataset.dtype.kind not in kinds:
        return f"data of type {dataset.dtype}, not numbers"
    if dataset.external:
        return "data in another file"
    if dataset.is_virtual:
        return "data mapped from other places"
    properties = dataset.id.get_create_plist()
    filters = [properties.get_filter(i)[0] for i in range(properties.get_nfilters())]
    if not set(filters) <= _FILTERS:
        return f"compressed with filters {filters}"
    stored = dataset.id.get_storage_size()
    if not filters and stored < dataset.nbytes:
        return f"{dataset.nbytes:,} bytes declared, {stored:,} stored"
    return None


def _backend_by_names(weights: dict[str, Weights]) -> str:
    names = [name for group in weights.values() for name, _ in group]
    return (
        "theano" if names and not any(":" in name for name in names) else "tensorflow"
    )


def _length(group: Any, attribute: str) -> int:
    """How many values an attribute has, before they are read."""
    shape = group.attrs.get_id(attribute).shape
    return int(np.prod(shape, dtype=object)) if shape is not None else 0


def _decode(value: Any) -> str:
    value = np.asarray(value).reshape(-1)[0] if isinstance(value, np.ndarray) else value
    return value.decode("utf8") if isinstance(value, bytes) else str(value)
