"""Files of old Keras releases, against what those releases computed."""

import warnings
from pathlib import Path

import keras
import numpy as np
import pytest

from keras_metagraph import load_from_meta_graph
from keras_metagraph.training.optimizers import TFKerasAdam
from keras_metagraph.warm_starting.api import warm_start
from oracle import references

FOLDER = references.FIXTURES / "legacy_keras"
FILES = sorted(FOLDER.glob("*/*.h5"))
ZOO = references.FIXTURES / "zoo" / "keras115_saver"
# Theano steps otherwise from the second step on, for a reason that is not known.
UNTRAINED = {"keras-2.2.4-theano/keras2_theano_conv"}
# Keras 2.2.4 corrected young moving averages by a count that it did not save.
UNSAVED = {"keras-2.2.4/keras2_functional"}


def name(path: Path) -> str:
    return path.relative_to(FOLDER).with_suffix("").as_posix()


class Record:
    """What the release computed: arrays by a letter and a number."""

    def __init__(self, path: Path) -> None:
        with np.load(path.with_suffix(".npz")) as arrays:
            self._arrays = dict(arrays)
        self.losses = self._arrays["losses"]

    def __getitem__(self, letter: str) -> list[np.ndarray]:
        names = sorted(k for k in self._arrays if k[0] == letter and k[1:].isdigit())
        return [self._arrays[name] for name in names]


def only(values: list) -> object:
    return values[0] if len(values) == 1 else values


def losses(model, x, y, steps):
    """The loss of each step before its update."""
    found = []
    for _ in range(steps):
        model.reset_metrics()
        found.append(float(np.ravel(model.train_on_batch(x, y))[0]))
    return found


def assert_predicts(model, x, expected, tolerance):
    predicted = model.predict_on_batch(x)
    predicted = predicted if isinstance(predicted, list) else [predicted]
    for found, wanted in zip(predicted, expected, strict=True):
        np.testing.assert_allclose(found, wanted, tolerance, tolerance)


def test_fixtures_are_the_recorded_ones():
    assert references.sums_of(FOLDER) == references.recorded_sums(FOLDER)


@pytest.mark.parametrize("path", FILES, ids=name)
def test_predictions_and_further_steps(path):
    record = Record(path)
    x, y = only(record["x"]), only(record["y"])
    model = load_from_meta_graph(path)

    assert_predicts(model, x, record["p"], 1e-5)
    if name(path) in UNTRAINED:
        return
    found = losses(model, x, y, len(record.losses))
    np.testing.assert_allclose(found, record.losses, 1e-5)
    if name(path) not in UNSAVED:
        assert_predicts(model, x, record["q"], 1e-4)


@pytest.mark.parametrize("path", FILES[::5], ids=name)
def test_model_saves_and_loads_as_keras_3(path, tmp_path):
    record = Record(path)
    x = only(record["x"])
    model = load_from_meta_graph(path)
    model.save(tmp_path / "m.keras")

    again = keras.saving.load_model(tmp_path / "m.keras")

    for a, b in zip(model.weights, again.weights, strict=True):
        np.testing.assert_array_equal(a, b)
    np.testing.assert_allclose(
        only(again.predict_on_batch(x)), only(model.predict_on_batch(x)), 1e-6, 1e-6
    )
    assert int(again.optimizer.iterations) == int(model.optimizer.iterations)


def zoo_losses(model):
    """The recorded steps of the zoo's model, whose dropout was switched off."""
    with np.load(ZOO / "reference.npz") as arrays:
        batches = zip(arrays["train_x"], arrays["train_y"], strict=True)
        found = [losses(model, x, y, 1)[0] for x, y in batches]
        return found, arrays["train_losses"]


def test_tf_keras_h5_goes_on_as_recorded():
    model = load_from_meta_graph(ZOO / "h5" / "m.h5")
    assert int(model.optimizer.iterations) == 20
    model.get_layer("dropout").rate = 0.0

    found, expected = zoo_losses(model)

    np.testing.assert_allclose(found, expected, 1e-5)


@pytest.mark.parametrize("kind", [keras.optimizers.Adam, TFKerasAdam])
def test_tf_keras_saver_checkpoint_into_the_model_of_the_h5(kind):
    model = load_from_meta_graph(ZOO / "h5" / "m.h5")
    for variable in model.variables:
        variable.assign(keras.ops.zeros_like(variable))
    model.compile(kind(0.01, epsilon=1e-7), "sparse_categorical_crossentropy")
    model.get_layer("dropout").rate = 0.0
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of tensors that no variable takes
        warm_start(model, ZOO / "model-20", optimizer=True)

    found, expected = zoo_losses(model)

    np.testing.assert_allclose(found, expected, 1e-5)


# What stands in for the Lambda layers of the published files, which are bytecode.
LAMBDAS = {
    "h5-carnd-1560800": {"lambda_1": lambda x: x / 127.5 - 1.0},
    "h5-dl4j-lambda": {
        "lambda_1": lambda x: x**2,
        "lambda_2": lambda x: 3 * x,
    },
    "h5-dl4j-deepfm": {
        "cat_embed_2d_genure_mean": lambda x: keras.ops.mean(x, 1, keepdims=True),
        "embed_1d_mean": lambda x: keras.ops.mean(x, 1),
        "lambda_1": lambda x: 0.5 * x,
        "square_of_tensors": lambda x: keras.ops.square(x),
        "sum_of_tensors": lambda x: keras.ops.sum(x, axis=1),
    },
}


# Keras 3 says of masks that a Lambda layer ends; Keras 2 ended them without a word.
@pytest.mark.filterwarnings("ignore:.*destroy the mask:UserWarning")
@pytest.mark.parametrize(
    "export",
    [
        "h5-carnd-1560800",
        "h5-dl4j-deepfm",
        "h5-dl4j-k1-lstm",
        "h5-dl4j-lambda",
        "h5-dl4j-reshape",
        "h5-mini-xception",
    ],
)
def test_published_files_load_with_their_optimizers(corpus, export):
    (path,) = [*(corpus / export).glob("*.h5"), *(corpus / export).glob("*.hdf5")]

    model = load_from_meta_graph(path, LAMBDAS.get(export))

    inputs = [
        np.ones([2, *(n or 4 for n in x.shape[1:])], "float32") for x in model.inputs
    ]
    assert np.isfinite(model.predict_on_batch(only(inputs))).all()
    if model.compiled:
        assert all(np.isfinite(v).all() for v in model.optimizer.variables)
