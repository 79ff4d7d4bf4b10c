"""SavedModels of Keras 2, against what Keras 2 computed."""

import hashlib
import warnings
import zipfile
from pathlib import Path

import keras
import numpy as np
import pytest
from keras2_classes import CUSTOM_OBJECTS

from keras_metagraph import inspect_meta_graph, load_from_meta_graph
from keras_metagraph.errors import CustomObjectError, UntrustedContentError
from oracle import references

FOLDER = references.FIXTURES / "keras2_saved_models"
FILES = sorted(FOLDER.glob("*/*.zip"))


def name(path: Path) -> str:
    return path.relative_to(FOLDER).with_suffix("").as_posix()


class Record:
    """What the release computed: arrays by a letter and a number."""

    def __init__(self, path: Path) -> None:
        with np.load(path.with_suffix(".npz")) as arrays:
            self._arrays = dict(arrays)
        self.losses = self._arrays["losses"]
        self.inputs = [_input(value) for value in self["x"]]

    def __getitem__(self, letter: str) -> list[np.ndarray]:
        names = [k for k in self._arrays if k[0] == letter and k[1:].isdigit()]
        return [self._arrays[k] for k in sorted(names, key=lambda k: int(k[1:]))]

    def data(self, model):
        """Inputs and labels in the structure of a model."""
        return _packed(model, "input", self.inputs), _packed(model, "output", self["y"])


def _input(value):
    if value.dtype.kind != "S":
        return value
    return keras.ops.convert_to_tensor(value.tolist())


def _packed(model, side, values):
    structure = getattr(model, side, None)
    if isinstance(structure, dict):
        return dict(zip(structure, values, strict=True))
    return values[0] if len(values) == 1 else values


def losses(model, x, y, steps):
    """The loss of each step before its update."""
    found = []
    for _ in range(steps):
        model.reset_metrics()
        found.append(float(np.ravel(model.train_on_batch(x, y))[0]))
    return found


def assert_predicts(model, x, expected, tolerance):
    found = keras.tree.flatten(model.predict_on_batch(x))
    for one, wanted in zip(found, expected, strict=True):
        np.testing.assert_allclose(one, wanted, tolerance, tolerance)


@pytest.fixture
def unzipped(tmp_path):
    def unzip(path):
        with zipfile.ZipFile(path) as file:
            file.extractall(tmp_path / path.stem)
        return tmp_path / path.stem

    return unzip


def strict():
    """Fails where the functions of a SavedModel stand in for the model."""
    context = warnings.catch_warnings()
    context.__enter__()
    warnings.filterwarnings("error", message="The functions of the SavedModel")
    return context


@pytest.mark.parametrize("path", FILES, ids=name)
def test_predictions_and_further_steps(path, unzipped):
    record = Record(path)
    model = load_from_meta_graph(unzipped(path), CUSTOM_OBJECTS, rebuild="config")
    x, y = record.data(model)

    assert_predicts(model, x, record["p"], 1e-5)
    found = losses(model, x, y, len(record.losses))
    np.testing.assert_allclose(found, record.losses, 1e-5)
    assert_predicts(model, x, record["q"], 1e-4)
