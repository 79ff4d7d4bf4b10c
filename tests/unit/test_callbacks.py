import json
import os
import subprocess
import sys
import threading
import warnings

import keras
import numpy as np
import pytest
import tensorflow as tf

import keras_metagraph
from keras_metagraph.callbacks import (
    MetaGraphCheckpoint,
    cadence,
    meta_graph_checkpoint,
)
from keras_metagraph.checkpoint import commit
from keras_metagraph.errors import CheckpointError
from keras_metagraph.loading.api import load_from_meta_graph

RNG = np.random.default_rng(0)
X = RNG.random((40, 3), dtype=np.float32)
Y = RNG.random((40, 1), dtype=np.float32)


@pytest.fixture(autouse=True)
def traces(monkeypatch):
    """Counts exports instead of tracing graphs, which is tested elsewhere."""
    exported = []

    def export(model, **arguments):
        exported.append(arguments)
        meta_graph_def = tf.compat.v1.MetaGraphDef()
        meta_graph_def.meta_info_def.tags.append("train")
        return meta_graph_def

    def values(model):
        named = {weight.path: weight for weight in model.weights}
        if model.optimizer is not None:
            named["global_step"] = model.optimizer.iterations
        return named

    monkeypatch.setattr(meta_graph_checkpoint, "export_meta_graph", export)
    monkeypatch.setattr(meta_graph_checkpoint, "checkpoint_variables", values)
    return exported


@pytest.fixture
def run(tmp_path):
    return str(tmp_path / "run" / "model")


def make_model(optimizer="sgd", **compile_arguments):
    model = keras.Sequential([keras.Input([3]), keras.layers.Dense(1)])
    model.compile(optimizer, "mse", **compile_arguments)
    return model


def fit(callback, model=None, **arguments):
    model = model or make_model()
    arguments = {"x": X, "y": Y, "batch_size": 10, "verbose": 0, **arguments}
    model.fit(callbacks=[callback, *arguments.pop("callbacks", ())], **arguments)
    return model


def saved_steps(filepath):
    directory, base = os.path.split(filepath)
    return sorted(
        int(name.removeprefix(f"{base}-").removesuffix(".manifest"))
        for name in os.listdir(directory)
        if name.endswith(".manifest")
    )


def values_of(filepath, step):
    reader = tf.train.load_checkpoint(f"{filepath}-{step}")
    return {
        name: reader.get_tensor(name) for name in reader.get_variable_to_shape_map()
    }


def test_default_is_every_epoch_in_meta_graphs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    model = fit(MetaGraphCheckpoint(), epochs=2)
    assert sorted(os.listdir("meta_graphs")) == [
        "checkpoint",
        *[
            f"model-{step}.{ending}"
            for step in (4, 8)
            for ending in ("data-00000-of-00001", "index", "manifest", "meta")
        ],
    ]
    assert tf.train.latest_checkpoint("meta_graphs") == "meta_graphs/model-8"
    values = values_of("meta_graphs/model", 8)
    assert values.pop("global_step") == 8
    for weight in model.weights:
        np.testing.assert_array_equal(values[weight.path], weight.numpy())


def test_graph_is_traced_once_a_fit_and_stored_once(run, traces):
    callback = MetaGraphCheckpoint(run, collections={"c": [1]}, graphs=["predict"])
    model = fit(callback, epochs=3)
    assert traces == [
        {"collections": {"c": [1]}, "graphs": ("predict",), "signatures": None}
    ]
    model.compile(model.optimizer, "mae")
    fit(callback, model)
    assert len(traces) == 2
    inodes = {os.stat(f"{run}-{step}.meta").st_ino for step in saved_steps(run)}
    assert len(inodes) == 1


def test_working_directory_may_change(tmp_path, monkeypatch):
    class Wander(keras.callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            (tmp_path / str(epoch)).mkdir()
            os.chdir(tmp_path / str(epoch))

    monkeypatch.chdir(tmp_path)
    fit(MetaGraphCheckpoint("model"), epochs=3, callbacks=[Wander()])
    assert saved_steps(str(tmp_path / "model")) == [4, 8, 12]


@pytest.mark.parametrize(
    ("save_freq", "batch_size", "steps"),
    [(3, 10, [3, 6]), (1, 20, [1, 2, 3, 4]), (100, 10, []), (5, 10, [5])],
)
def test_every_so_many_batches(run, save_freq, batch_size, steps):
    os.makedirs(os.path.dirname(run))
    fit(MetaGraphCheckpoint(run, save_freq=save_freq), epochs=2, batch_size=batch_size)
    assert saved_steps(run) == steps


def test_batches_with_several_steps_in_one_execution(run):
    model = make_model(steps_per_execution=4)
    callback = MetaGraphCheckpoint(run, save_freq=3, max_to_keep=None)
    fit(callback, model, epochs=2, batch_size=4)
    assert saved_steps(run) == [4, 8, 14, 18]


def test_seconds_are_counted_instead_of_epochs(run, monkeypatch):
    now = [0.0]
    monkeypatch.setattr(cadence.time, "monotonic", lambda: now[0])

    class Clock(keras.callbacks.Callback):
        def on_train_batch_begin(self, batch, logs=None):
            now[0] += 1.0

    fit(MetaGraphCheckpoint(run, save_secs=3.0), epochs=2, callbacks=[Clock()])
    assert saved_steps(run) == [3, 6, 8]  # the last one at the end of training


def test_nothing_is_saved_twice_at_the_end(run):
    fit(MetaGraphCheckpoint(run, save_secs=0.0, max_to_keep=None))
    assert saved_steps(run) == [1, 2, 3, 4]


class Scripted(keras.callbacks.Callback):
    """Puts values of a metric in the logs of the epochs."""

    def __init__(self, name, values):
        super().__init__()
        self.name, self.values = name, values

    def on_epoch_end(self, epoch, logs=None):
        logs[self.name] = self.values[epoch]


def best_epochs(run, name, values, **arguments):
    os.makedirs(os.path.dirname(run), exist_ok=True)
    callback = MetaGraphCheckpoint(
        run, monitor=name, save_best_only=True, max_to_keep=None, **arguments
    )
    model = make_model()
    scripted = Scripted(name, values)
    model.fit(
        X,
        Y,
        batch_size=40,
        epochs=len(values),
        verbose=0,
        callbacks=[scripted, callback],
    )
    return [step - 1 for step in saved_steps(run)]


@pytest.mark.parametrize(
    ("name", "mode", "epochs"),
    [
        ("val_loss", "auto", [0, 2]),
        ("val_loss", "max", [0, 1]),
        ("val_mean_absolute_error", "auto", [0, 2]),
        ("val_false_positives", "auto", [0, 2]),
        ("val_sparse_categorical_crossentropy", "auto", [0, 2]),
        ("val_accuracy", "auto", [0, 1]),
        ("val_out_binary_accuracy", "auto", [0, 1]),
        ("auc_1", "auto", [0, 1]),
        ("f1_score", "auto", [0, 1]),
        ("mean_io_u_iou", "auto", [0, 1]),
        ("anything", "min", [0, 2]),
    ],
)
def test_best_only(run, name, mode, epochs):
    assert best_epochs(run, name, [2.0, 3.0, 1.0, 2.0], mode=mode) == epochs


def test_best_only_with_a_threshold(run):
    found = best_epochs(run, "val_loss", [3.0, 2.0, 1.0], initial_value_threshold=2.5)
    assert found == [1, 2]


def test_nan_is_never_the_best(run):
    nan = float("nan")
    assert best_epochs(run, "val_loss", [nan, 2.0, nan, 1.0]) == [1, 3]


def test_direction_follows_the_class_of_a_metric_with_any_name(run):
    model = make_model(metrics=[keras.metrics.R2Score(name="quality")])
    best = cadence.Best("val_quality", "auto", 0.5)
    fit(MetaGraphCheckpoint(run), model)
    assert best.improves({"val_quality": 0.6}, model)
    assert not best.improves({"val_quality": 0.4}, model)


def test_unknown_direction_is_asked_for(run):
    with pytest.raises(CheckpointError, match='mode="max"'):
        best_epochs(run, "quality", [1.0])


def test_missing_metric_is_told_and_saved(run):
    callback = MetaGraphCheckpoint(run, monitor="val_los", save_best_only=True)
    with pytest.warns(UserWarning, match="val_los"):
        fit(callback)
    assert saved_steps(run) == [4]


def test_early_stopping_and_best_weights(run):
    stop = keras.callbacks.EarlyStopping(
        "val_loss", patience=1, restore_best_weights=True, min_delta=100.0
    )
    callback = MetaGraphCheckpoint(run, save_best_only=True)
    fit(callback, epochs=9, validation_data=(X, Y), callbacks=[stop])
    assert saved_steps(run) == [4, 8]


class Batches(keras.utils.PyDataset):
    def __len__(self):
        return 4

    def __getitem__(self, index):
        part = slice(index * 10, index * 10 + 10)
        return X[part], Y[part]


def test_dataset(run):
    data = tf.data.Dataset.from_tensor_slices((X, Y)).batch(10)
    callback = MetaGraphCheckpoint(run)
    fit(callback, x=data, y=None, batch_size=None, shuffle=False, epochs=2)
    assert saved_steps(run) == [4, 8]


def test_py_dataset(run):
    callback = MetaGraphCheckpoint(run)
    fit(callback, x=Batches(), y=None, batch_size=None, epochs=2)
    assert saved_steps(run) == [4, 8]


@pytest.mark.filterwarnings("ignore:Your input ran out of data")
def test_generator_of_unknown_length(run):
    data = (Batches()[index] for index in range(4))
    callback = MetaGraphCheckpoint(run, save_freq=3)
    fit(callback, x=data, y=None, batch_size=None, shuffle=False)
    assert saved_steps(run) == [3]


@pytest.mark.parametrize("arguments", [{"run_eagerly": True}, {"jit_compile": True}])
def test_ways_to_run(run, arguments):
    fit(MetaGraphCheckpoint(run, save_freq=2), make_model(**arguments))
    assert saved_steps(run) == [2, 4]


def test_gradient_accumulation_counts_steps_of_the_optimizer(run):
    optimizer = keras.optimizers.SGD(gradient_accumulation_steps=2)
    fit(MetaGraphCheckpoint(run), make_model(optimizer), epochs=2)
    assert saved_steps(run) == [2, 4]


def test_own_train_step_without_the_optimizer_counts_batches(run):
    class Own(keras.Sequential):
        def train_step(self, data):
            return {"loss": keras.ops.mean(self(data[0]))}

    model = Own([keras.Input([3]), keras.layers.Dense(1)])
    model.compile("sgd")
    callback = MetaGraphCheckpoint(run)
    fit(callback, model, epochs=2)
    fit(callback, model)
    assert saved_steps(run) == [4, 8, 12]


def test_old_ones_are_removed(run):
    fit(MetaGraphCheckpoint(run, max_to_keep=2), epochs=4)
    assert saved_steps(run) == [12, 16]


def test_second_fit_goes_on(run):
    callback = MetaGraphCheckpoint(run)
    model = fit(callback)
    fit(callback, model)
    fit(MetaGraphCheckpoint(run), model)
    assert saved_steps(run) == [4, 8, 12]


def test_compiling_anew_starts_at_step_0_and_needs_another_place(run):
    callback = MetaGraphCheckpoint(run)
    model = fit(callback)
    model.compile("sgd", "mse")
    with pytest.raises(CheckpointError, match="up to step 4"):
        fit(callback, model)


def test_another_training_in_the_directory_is_told_at_once(run):
    fit(MetaGraphCheckpoint(run))
    model = make_model()
    with pytest.raises(CheckpointError, match="up to step 4"):
        fit(MetaGraphCheckpoint(run), model)
    assert int(model.optimizer.iterations) == 0
    fit(MetaGraphCheckpoint(run + "2"), model)


def test_manifest_has_the_progress(run):
    fit(MetaGraphCheckpoint(run, save_freq=3), epochs=2, batch_size=20)
    progress = commit.read_manifest(f"{run}-3").progress
    assert (progress["epoch"], progress["batch"]) == (1, 0)
    assert set(progress["logs"]) == {"loss"}


def test_metrics_that_are_no_numbers_for_json(run):
    fit(MetaGraphCheckpoint(run), callbacks=[], x=X * np.float32(np.nan))
    with open(f"{run}-4.manifest", encoding="utf-8") as file:
        assert json.load(file)["progress"]["logs"] == {"loss": "nan"}


def test_verbose_says_what_was_written(run, capsys):
    fit(MetaGraphCheckpoint(run, verbose=1))
    assert f"Epoch 1: saved the model to {run}-4" in capsys.readouterr().out


def test_failing_save_stops_the_training(run):
    with open(os.path.dirname(run), "w", encoding="utf-8"):
        pass
    with pytest.raises(CheckpointError, match="To fix"):
        fit(MetaGraphCheckpoint(run))


def test_failing_save_is_a_warning_on_request(run):
    with open(os.path.dirname(run), "w", encoding="utf-8"):
        pass
    model = make_model()
    with pytest.warns(UserWarning, match="No checkpoint was written") as caught:
        fit(MetaGraphCheckpoint(run, on_error="warn"), model, epochs=2)
    assert len(caught) == 2
    assert int(model.optimizer.iterations) == 8


MIRRORED = """
import sys
import threading

import keras
import numpy as np
import tensorflow as tf

from keras_metagraph import MetaGraphCheckpoint

cpu = tf.config.list_physical_devices("CPU")[0]
two = [tf.config.LogicalDeviceConfiguration()] * 2
tf.config.set_logical_device_configuration(cpu, two)
strategy = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])
rng = np.random.default_rng(0)
x, y = rng.random((40, 3), "float32"), rng.random((40, 1), "float32")
with strategy.scope():
    model = keras.Sequential(
        [
            keras.Input([3]),
            keras.layers.Dense(4),
            keras.layers.Dropout(0.5),
            keras.layers.Dense(1),
        ]
    )
    model.compile("adam", "mse")
callback = MetaGraphCheckpoint(sys.argv[1] + "/model", save_freq=5)
model.fit(x, y, batch_size=8, epochs=2, verbose=0, callbacks=[callback])
values = {weight.path.split("/", 1)[1]: weight.numpy() for weight in model.weights}
assert strategy.num_replicas_in_sync == 2
np.savez(sys.argv[1] + "/expected.npz", x=x, y=model.predict(x, verbose=0), **values)
"""


def test_mirrored_strategy_on_two_logical_devices(tmp_path):
    script = tmp_path / "mirrored.py"
    script.write_text(MIRRORED, encoding="utf-8")
    package = os.path.dirname(os.path.dirname(keras_metagraph.__file__))
    subprocess.run(
        [sys.executable, script, tmp_path],
        env={**os.environ, "PYTHONPATH": package},
        check=True,
        timeout=300,
    )
    filepath = str(tmp_path / "model")
    assert saved_steps(filepath) == [5, 10]
    assert commit.verify(f"{filepath}-10", contents=True) == []
    values = values_of(filepath, 10)
    assert values["global_step"] == 10
    assert values["dense/kernel/Adam"].any()
    with np.load(tmp_path / "expected.npz") as expected:
        for name in set(expected.files) - {"x", "y"}:
            np.testing.assert_array_equal(values[name], expected[name])
        model = load_from_meta_graph(tmp_path, rebuild="config")
        predicted = model.predict(expected["x"], verbose=0)
        np.testing.assert_allclose(predicted, expected["y"], rtol=1e-5, atol=1e-6)


def test_best_that_could_not_be_written_is_not_the_best(run, monkeypatch):
    write, failing = meta_graph_checkpoint.write_checkpoint, [True]

    def fail_once(*args, **kwargs):
        if failing.pop() if failing else False:
            raise CheckpointError("no space")
        return write(*args, **kwargs)

    monkeypatch.setattr(meta_graph_checkpoint, "write_checkpoint", fail_once)
    with pytest.warns(UserWarning, match="no space"):
        found = best_epochs(run, "val_loss", [1.0, 2.0, 3.0], on_error="warn")
    assert found == [1]


@pytest.mark.parametrize(
    "arguments",
    [
        {"filepath": "run/"},
        {"filepath": "run/checkpoint"},
        {"save_freq": 0},
        {"save_freq": "batch"},
        {"save_freq": True},
        {"save_freq": 2, "save_secs": 3.0},
        {"save_secs": -1.0},
        {"mode": "best"},
        {"max_to_keep": -1},
        {"keep_checkpoint_every_n_hours": 0},
        {"on_error": "ignore"},
    ],
)
def test_arguments_are_checked_at_once(arguments):
    with pytest.raises(CheckpointError, match="To fix:"):
        MetaGraphCheckpoint(**arguments)


def test_only_the_chief_writes(run, monkeypatch):
    monkeypatch.setattr(MetaGraphCheckpoint, "_is_chief", lambda self: False)
    fit(MetaGraphCheckpoint(run))
    assert not os.path.exists(os.path.dirname(run))


def test_no_warnings_in_a_plain_fit(run):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        fit(MetaGraphCheckpoint(run), validation_data=(X, Y))


@pytest.mark.parametrize("jit_compile", [False, True])
def test_save_in_the_background_has_the_values_of_its_moment(
    run, monkeypatch, jit_compile
):
    write, go = meta_graph_checkpoint.write_checkpoint, threading.Event()
    expected, steps = {}, []

    def wait_and_write(prefix, *args, **kwargs):
        if prefix.endswith("-2"):
            assert go.wait(60)
        steps.append(prefix.rpartition("-")[2])
        return write(prefix, *args, **kwargs)

    class Watch(keras.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            step = int(self.model.optimizer.iterations)
            expected[step] = self.model.layers[-1].kernel.numpy()
            if step == 3:  # Training went on, and the save did not.
                assert steps == []
                go.set()

    monkeypatch.setattr(meta_graph_checkpoint, "write_checkpoint", wait_and_write)
    model = make_model(jit_compile=jit_compile)
    fit(MetaGraphCheckpoint(run, save_freq=2), model, callbacks=[Watch()])
    path = model.layers[-1].kernel.path
    for step in (2, 4):
        np.testing.assert_array_equal(values_of(run, step)[path], expected[step])
    assert steps == ["2", "4"]


def test_error_of_a_save_in_the_background_stops_the_training(run, monkeypatch):
    def fail(*args, **kwargs):
        raise CheckpointError("no space")

    monkeypatch.setattr(meta_graph_checkpoint, "write_checkpoint", fail)
    model = make_model()
    with pytest.raises(CheckpointError, match="no space"):
        fit(MetaGraphCheckpoint(run, save_freq=2), model)
    assert int(model.optimizer.iterations) == 4


def test_save_that_is_waited_for(run, monkeypatch):
    def fail(*args, **kwargs):
        raise CheckpointError("no space")

    monkeypatch.setattr(meta_graph_checkpoint, "write_checkpoint", fail)
    model = make_model()
    with pytest.raises(CheckpointError, match="no space"):
        fit(MetaGraphCheckpoint(run, save_freq=2, asynchronous=False), model)
    assert int(model.optimizer.iterations) == 2
