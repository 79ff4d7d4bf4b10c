"""SavedModels of Keras 2, against what Keras 2 computed."""

import re
import zipfile
from pathlib import Path

import keras
import numpy as np
import pytest

from keras_metagraph import inspect_meta_graph, load_from_meta_graph
from keras_metagraph.errors import (
    CustomObjectError,
    FormatError,
    MetaGraphError,
    ShapeMismatchError,
    UntrustedContentError,
)
from oracle import references
from parity.keras2_classes import CUSTOM_OBJECTS

FOLDER = references.FIXTURES / "keras2_saved_models"
FILES = sorted(FOLDER.glob("*/*.zip"))
# Computed in float16, which no two releases round alike.
HALF = {"scaled_loss"}


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


def test_fixtures_are_the_recorded_ones():
    assert references.sums_of(FOLDER) == references.recorded_sums(FOLDER)


@pytest.mark.parametrize("path", FILES, ids=name)
def test_predictions_and_further_steps(path, unzipped):
    record = Record(path)
    model = load_from_meta_graph(unzipped(path), CUSTOM_OBJECTS, rebuild="config")
    x, y = record.data(model)
    exact = 1e-5 if path.stem not in HALF else 2e-3

    assert_predicts(model, x, record["p"], exact)
    signature = model.meta_graph.signatures["serving_default"]
    assert_returns(signature, record, model, record["p"], exact)
    found = losses(model, x, y, len(record.losses))
    np.testing.assert_allclose(found, record.losses, exact)
    assert_predicts(model, x, record["q"], 10 * exact)
    # The signatures compute with the weights that the model has now.
    assert_returns(signature, record, model, record["q"], 10 * exact)
    for weight in record["w"]:
        others = [w for w in model.get_weights() if w.shape == weight.shape]
        nearest = min(np.abs(other - weight).max() for other in others)
        assert nearest < 10 * exact * max(1.0, np.abs(weight).max())


def assert_returns(signature, record, model, expected, tolerance):
    """Compares outputs by shape and value: old signatures name them `output_1`."""
    values = [np.asarray(value) for value in record.inputs]
    names = [tensor.name for tensor in getattr(model, "inputs", ())]
    names = names or [*signature.inputs]
    found = signature(dict(zip(names, values, strict=True))).values()
    for wanted in expected:
        near = [f for f in found if f.shape == wanted.shape]
        assert any(np.allclose(f, wanted, tolerance, tolerance) for f in near)


@pytest.mark.parametrize("path", FILES[::2], ids=name)
def test_model_saves_and_loads_as_keras_3(path, unzipped, tmp_path):
    record = Record(path)
    if path.stem == "bytecode":
        pytest.skip("Keras 3 does not load the caller's lambda again")
    model = load_from_meta_graph(unzipped(path), CUSTOM_OBJECTS)
    x, _ = record.data(model)
    model.save(tmp_path / "m.keras")

    again = keras.saving.load_model(tmp_path / "m.keras", CUSTOM_OBJECTS)

    expected = keras.tree.flatten(model.predict_on_batch(x))
    assert_predicts(again, x, expected, 1e-6)
    assert int(again.optimizer.iterations) == int(model.optimizer.iterations)


@pytest.mark.parametrize("case", ["tf-2.15/custom", "tf-2.2/subclassed"])
def test_functions_stand_in_for_classes_that_are_not_known(case, unzipped):
    path = FOLDER / f"{case}.zip"
    record = Record(path)
    with pytest.warns(UserWarning, match="(?s)not the Keras model.*(Gate|Net)"):
        model = load_from_meta_graph(unzipped(path))

    assert_predicts(model, record.inputs[0], record["p"], 1e-5)
    model.compile("adam", "mse")
    history = model.fit(record.inputs[0], record["y"][0], epochs=5, verbose=0)
    assert history.history["loss"][-1] < history.history["loss"][0]
    # Training moved the variables that the signatures read.
    found = model.meta_graph.signatures["serving_default"](record.inputs[0])
    (found,) = found.values()
    np.testing.assert_allclose(found, model.predict_on_batch(record.inputs[0]), 1e-5)
    assert np.abs(found - record["p"][0]).max() > 1e-3


def test_graph_on_demand_gives_the_same(unzipped):
    path = FOLDER / "tf-2.15" / "mlp.zip"
    record = Record(path)

    model = load_from_meta_graph(unzipped(path), rebuild="graph")

    assert type(model).__name__ == "MetaGraphModel"
    assert_predicts(model, record.inputs[0], record["p"], 1e-5)


def test_config_on_demand_names_what_is_missing(unzipped):
    with pytest.raises(CustomObjectError) as caught:
        load_from_meta_graph(
            unzipped(FOLDER / "tf-2.15" / "custom.zip"), rebuild="config"
        )

    assert len(caught.value.findings) == 1
    assert "Gate" in caught.value.findings[0]


def test_bytecode_is_not_run(unzipped):
    path = FOLDER / "tf-2.15" / "bytecode.zip"
    record = Record(path)

    with pytest.raises(UntrustedContentError, match="twice"):
        load_from_meta_graph(unzipped(path), rebuild="config")
    with pytest.warns(UserWarning, match="stored as Python bytecode"):
        model = load_from_meta_graph(unzipped(path))

    assert_predicts(model, record.inputs[0], record["p"], 1e-5)


def test_without_compiling(unzipped):
    path = FOLDER / "tf-2.15" / "mlp.zip"

    model = load_from_meta_graph(unzipped(path), compile=False)

    assert not model.compiled


def test_parts_of_the_graph_ask_for_the_graph(unzipped):
    path = FOLDER / "tf-2.15" / "mlp.zip"

    model = load_from_meta_graph(unzipped(path), signature="serving_default")

    assert type(model).__name__ == "MetaGraphModel"


@pytest.mark.parametrize("damage", ["saved_model.pb", "keras_metadata.pb"])
def test_damage_is_told(damage, unzipped):
    directory = unzipped(FOLDER / "tf-2.15" / "mlp.zip")
    file = directory / damage
    file.write_bytes(file.read_bytes()[:-50])

    with pytest.raises(FormatError):
        load_from_meta_graph(directory)


def test_damaged_configs_are_told(unzipped):
    """Whatever one value of the JSON becomes, there is a model or an error of ours."""
    directory = unzipped(FOLDER / "tf-2.15" / "nadam.zip")
    file = directory / "keras_metadata.pb"
    data, random = file.read_bytes(), np.random.default_rng(4)
    values = [m.span() for m in re.finditer(rb'(?<=: )("[^"]*"|[\w.-]+)', data)]
    told = 0
    for start, end in random.choice(values, 40):
        new = random.choice([b"{}", b"[]", b"-1", b'"x"', b"null"])
        if len(new) <= end - start:  # the sizes of the proto stay
            changed = data[:start] + new.ljust(end - start) + data[end:]
            file.write_bytes(changed)
            try:
                load_from_meta_graph(directory, rebuild="config")
            except MetaGraphError:
                told += 1
    assert told > 3


def test_checkpoint_of_another_model_is_told(unzipped):
    directory = unzipped(FOLDER / "tf-2.15" / "mlp.zip")
    other = unzipped(FOLDER / "tf-2.15" / "nadam.zip")
    for file in (other / "variables").iterdir():
        (directory / "variables" / file.name).write_bytes(file.read_bytes())

    with pytest.raises(ShapeMismatchError) as caught:
        load_from_meta_graph(directory, rebuild="config")

    assert len(caught.value.findings) > 3


def test_report_tells_of_the_keras_model(unzipped):
    report = inspect_meta_graph(unzipped(FOLDER / "tf-2.15" / "custom.zip"))

    assert report.keras.keras_version == "2.15.0"
    assert report.keras.model == "Functional"
    assert ("gate", "fixtures>Gate", ((4,),)) in report.keras.layers
    assert report.keras.optimizer["class"] == "Custom>Adam"
    assert "gate" in str(report)


def test_report_of_a_release_without_a_file_of_metadata(unzipped):
    report = inspect_meta_graph(unzipped(FOLDER / "tf-2.2" / "subclassed.zip"))

    assert report.keras.keras_version == "2.3.0-tf"
    assert report.keras.model == "Net"
