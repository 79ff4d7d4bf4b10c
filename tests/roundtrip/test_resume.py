"""A `fit` that is killed and started again equals one that was not, bit for bit."""

import functools
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile

import keras
import numpy as np
import pytest
import tensorflow as tf

import keras_metagraph
from keras_metagraph import MetaGraphCheckpoint, load_from_meta_graph
from keras_metagraph.errors import CheckpointError, ShapeMismatchError
from roundtrip import resume_program
from roundtrip.resume_program import Killed, train

pytestmark = [
    pytest.mark.filterwarnings("ignore:Your input ran out of data"),
    # TensorFlow's own, from a generator that is not read to its end.
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]

KINDS = [
    "average",
    "augmented",
    "callbacks",
    "classes",
    "dataset",
    "endless",
    "executions",
    "py_dataset",
    "python",
    "unbuilt",
    "unknown",
    "weights",
    "workers",
]
NOT_COMPARED = {"batches of this process"}


@functools.cache
def uninterrupted(kind):
    directory = tempfile.mkdtemp()
    try:
        return train(kind, directory)
    finally:
        shutil.rmtree(directory)


def attempt(kind, directory, batch=0, **arguments):
    """Trains; returns None if the run was killed."""
    try:
        return train(kind, directory, batch, **arguments)
    except Killed:
        return None


def assert_equal(values, expected):
    assert values.keys() == expected.keys()
    for name in values.keys() - NOT_COMPARED:
        np.testing.assert_array_equal(values[name], expected[name], err_msg=name)


@pytest.mark.parametrize("kind", KINDS)
def test_killed_in_the_middle_of_an_epoch(kind, tmp_path):
    assert attempt(kind, tmp_path, 7 if kind == "executions" else 18) is None
    assert_equal(attempt(kind, tmp_path), uninterrupted(kind))


@pytest.mark.parametrize(
    "kind", ["augmented", "callbacks", "dataset", "endless", "python", "unknown"]
)
def test_killed_after_an_epoch(kind, tmp_path):
    arguments = {"save_freq": "epoch", "asynchronous": False}
    assert attempt(kind, tmp_path, 13, **arguments) is None
    assert_equal(attempt(kind, tmp_path, **arguments), uninterrupted(kind))


def test_killed_twenty_times(tmp_path):
    rng = random.Random(0)
    kills, values = 0, None
    while values is None and kills < 30:
        # A resumed run is told of the last batch again.
        batches = rng.randint(1, 2) + min(kills, 1)
        values = attempt("arrays", tmp_path, batches, save_freq=1)
        kills += values is None
    assert kills >= 15
    assert_equal(values, uninterrupted("arrays"))


def run_program(*arguments):
    package = os.path.dirname(os.path.dirname(keras_metagraph.__file__))
    return subprocess.run(
        [sys.executable, resume_program.__file__, *map(str, arguments)],
        env={**os.environ, "PYTHONPATH": package},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )


@pytest.mark.parametrize("batch", [7, 19])
def test_killed_by_the_system(batch, tmp_path):
    killed = run_program("callbacks", tmp_path, batch)
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    resumed = run_program("callbacks", tmp_path, 0)
    assert resumed.returncode == 0, resumed.stderr
    with np.load(tmp_path / "result.npz") as values:
        assert_equal(dict(values), uninterrupted("callbacks"))
    assert not [name for name in os.listdir(tmp_path) if name.startswith(".")]


def test_finished_run_does_nothing_more(tmp_path):
    arguments = {"save_freq": 7}
    expected = attempt("arrays", tmp_path, **arguments)
    files = sorted(os.listdir(tmp_path))
    again = attempt("arrays", tmp_path, **arguments)
    assert_equal(again, expected)
    assert again["batches of this process"] == 0
    assert sorted(os.listdir(tmp_path)) == files


def test_longer_training_goes_on(tmp_path, monkeypatch):
    attempt("arrays", tmp_path)
    monkeypatch.setattr(resume_program, "EPOCHS", 5)
    longer = attempt("arrays", tmp_path)
    (tmp_path / "other").mkdir()
    assert_equal(longer, attempt("arrays", tmp_path / "other"))


X = np.random.default_rng(0).normal(size=(40, 3)).astype("float32")
Y = X[:, :1]


class Counting(keras.callbacks.Callback):
    """Counts the steps of all processes; kills the run at one of them."""

    steps = 0
    kill_at = None

    def get_state(self):
        return None

    def set_state(self, state):
        pass

    def on_train_batch_begin(self, batch, logs=None):
        if self.steps == self.kill_at:
            self.kill_at = None
            raise Killed
        self.steps += 1


def make_model(units=4, loss="mse", layers=()):
    model = keras.Sequential(
        [keras.Input([3]), keras.layers.Dense(units), *layers, keras.layers.Dense(1)]
    )
    model.compile("adam", loss)
    return model


def fit(callback, model=None, **arguments):
    arguments = {"x": X, "y": Y, "batch_size": 4, "epochs": 2, **arguments}
    keras.utils.set_random_seed(7)
    model = model or make_model()
    others = arguments.pop("callbacks", [])
    model.fit(callbacks=[callback, *others], verbose=0, **arguments)
    return model


def resuming(path, **arguments):
    arguments = {"save_freq": 3, "graphs": ["predict"], "resume": True, **arguments}
    return MetaGraphCheckpoint(path / "model", **arguments)


@pytest.mark.parametrize(
    ("make", "steps", "computed"),
    [
        (lambda path: resuming(path, save_freq=1), 20, 20),
        (resuming, 20, 21),
        # It begins the epoch again, with the weights of the middle of it.
        (lambda path: keras.callbacks.BackupAndRestore(path / "backup", 3), 25, 26),
    ],
    ids=["every batch", "every third batch", "BackupAndRestore"],
)
def test_steps_of_a_killed_run(make, steps, computed, tmp_path):
    counting = Counting()
    counting.kill_at = 16
    with pytest.raises(Killed):
        fit(make(tmp_path), callbacks=[counting])
    model = fit(make(tmp_path), callbacks=[counting])
    assert int(model.optimizer.iterations) == steps
    assert counting.steps == computed


def killed(path, **arguments):
    """A run of `fit` that was killed after its first epoch."""
    counting = Counting()
    counting.kill_at = 12
    with pytest.raises(Killed):
        fit(resuming(path, asynchronous=False), callbacks=[counting], **arguments)


def test_newest_checkpoint_is_damaged(tmp_path):
    killed(tmp_path)
    expected = fit(resuming(tmp_path / "other")).get_weights()
    data = tmp_path / "model-12.data-00000-of-00001"
    data.write_bytes(data.read_bytes()[:-1])
    with pytest.warns(
        UserWarning, match="model-12.* is damaged.*goes on from.*model-9"
    ):
        model = fit(resuming(tmp_path))
    for value, wanted in zip(model.get_weights(), expected, strict=True):
        np.testing.assert_array_equal(value, wanted)
    assert (tmp_path / "damaged-model-12.manifest").exists()
    assert (tmp_path / "model-12.manifest").exists()


def test_every_checkpoint_is_damaged(tmp_path):
    killed(tmp_path)
    for manifest in tmp_path.glob("*.manifest"):
        manifest.write_bytes(b"{")
    model = make_model()
    with pytest.raises(CheckpointError, match="nothing to resume from") as caught:
        fit(resuming(tmp_path), model)
    assert len(caught.value.findings) == 4
    assert int(model.optimizer.iterations) == 0


@pytest.mark.parametrize(
    ("change", "finding"),
    [
        (lambda: make_model(units=5), "units: 4 before, 5 now"),
        (lambda: make_model(loss="mae"), "loss: 'mse' before, 'mae' now"),
    ],
)
def test_another_model_or_compilation_is_refused(change, finding, tmp_path):
    killed(tmp_path)
    with pytest.raises(CheckpointError, match="another training") as caught:
        fit(resuming(tmp_path), change())
    assert any(finding in line for line in caught.value.findings)


class Secret(keras.layers.Dense):
    """Its config does not tell its size."""

    def get_config(self):
        raise NotImplementedError


def test_other_variables_are_refused(tmp_path):
    killed(tmp_path, model=make_model(layers=[Secret(2)]))
    with pytest.raises(ShapeMismatchError, match="another model") as caught:
        fit(resuming(tmp_path), make_model(layers=[Secret(3)]))
    # Two kernels and a bias, with two slots each.
    assert len(caught.value.findings) == 9


def test_checkpoint_without_a_record_is_refused(tmp_path):
    fit(resuming(tmp_path, resume=False))
    with pytest.raises(CheckpointError, match="without resume=True"):
        fit(resuming(tmp_path))


def test_another_training_may_be_resumed(tmp_path):
    killed(tmp_path)
    with pytest.raises(CheckpointError, match="pass resume=True"):
        fit(resuming(tmp_path, resume=False))


def generator():
    while True:
        yield X[:4], Y[:4]


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        ({"x": generator(), "y": None, "steps_per_epoch": 3}, "generator has no pos"),
        ({"steps_per_epoch": 3, "batch_size": 4}, "in the middle of passes"),
        ({"callbacks": [keras.callbacks.BackupAndRestore("backup")]}, "One callback"),
        ({"callbacks": [MetaGraphCheckpoint("other", resume=True)]}, "One callback"),
    ],
)
def test_what_cannot_be_resumed_is_refused_at_once(arguments, reason, tmp_path):
    if arguments.get("y", X) is None:
        arguments = {**arguments, "batch_size": None, "shuffle": False}
    model = make_model()
    with pytest.raises(CheckpointError, match=reason):
        fit(resuming(tmp_path), model, **arguments)
    assert int(model.optimizer.iterations) == 0
    assert os.listdir(tmp_path) == []


def test_hidden_random_numbers_are_refused(tmp_path):
    class Hidden(keras.layers.Layer):
        def call(self, x):
            return x + tf.random.normal(tf.shape(x))

    with pytest.raises(CheckpointError, match="cannot be saved") as caught:
        fit(resuming(tmp_path), make_model(layers=[Hidden()]))
    assert "RandomStandardNormal" in caught.value.findings[0]


class Unsteady(resume_program.Batches):
    """Its batches differ each time."""

    draws = np.random.default_rng()

    def __getitem__(self, index):
        x, y = super().__getitem__(index)
        return x + self.draws.normal(size=x.shape).astype("float32"), y


def test_data_that_is_not_the_same_again_is_refused(tmp_path):
    arguments = {"y": None, "batch_size": None, "shuffle": False}
    killed(tmp_path, x=Unsteady(X, Y), epochs=5, **arguments)
    with pytest.raises(CheckpointError, match="first batch of the pass differs"):
        fit(resuming(tmp_path), x=Unsteady(X, Y), epochs=5, **arguments)


def test_missing_callback_is_told(tmp_path):
    stop = keras.callbacks.EarlyStopping("loss", patience=9)
    counting = Counting()
    counting.kill_at = 14
    with pytest.raises(Killed):
        fit(resuming(tmp_path), callbacks=[stop, counting])
    with pytest.warns(UserWarning, match="not there: EarlyStopping"):
        fit(resuming(tmp_path))


def test_what_was_saved_is_loaded_as_ever(tmp_path):
    model = fit(resuming(tmp_path, graphs=["predict", "train"]))
    again = load_from_meta_graph(tmp_path)
    np.testing.assert_array_equal(
        again.predict(X, verbose=0), model.predict(X, verbose=0)
    )
    reader = tf.train.load_checkpoint(str(tmp_path / "model-20"))
    shapes = reader.get_variable_to_shape_map()
    assert [name for name in shapes if name.startswith("keras_metagraph/model")] == []
