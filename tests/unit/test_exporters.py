import os
import threading
import warnings

import keras
import numpy as np
import pytest
import tensorflow as tf

import keras_metagraph
from keras_metagraph.callbacks import (
    MetaGraphCheckpoint,
    exporters,
    meta_graph_checkpoint,
)
from keras_metagraph.callbacks.exporters import records
from keras_metagraph.errors import CheckpointError, ExportError
from keras_metagraph.saved_model import directory as directories
from keras_metagraph.saved_model.prepared import PreparedSavedModel

v1 = tf.compat.v1
RNG = np.random.default_rng(0)
X = RNG.random((40, 3), dtype=np.float32)
Y = RNG.random((40, 1), dtype=np.float32)


@pytest.fixture
def base(tmp_path):
    return str(tmp_path / "export")


@pytest.fixture
def checkpoint(tmp_path, base):
    """Makes the callback."""

    def make(**arguments):
        arguments = {"graphs": ["predict"], "saved_model_dir": base, **arguments}
        return MetaGraphCheckpoint(tmp_path / "run" / "model", **arguments)

    return make


class Scripted(keras.callbacks.Callback):
    """Puts values of a metric in the logs of the epochs, and notes the kernels."""

    def __init__(self, values):
        super().__init__()
        self.values, self.kernels = values, {}

    def on_epoch_end(self, epoch, logs=None):
        if self.values[epoch] is not None:
            logs["val_loss"] = self.values[epoch]
        step = int(self.model.optimizer.iterations)
        self.kernels[step] = self.model.layers[-1].kernel.numpy()


def make_model():
    model = keras.Sequential(
        [keras.Input([3], name="x"), keras.layers.Dense(1, name="y")]
    )
    model.compile("sgd", "mse")
    return model


def fit(callback, values=(1.0,), model=None):
    """Trains 4 steps an epoch; returns the kernels at the ends of the epochs."""
    scripted = Scripted(values)
    (model or make_model()).fit(
        X,
        Y,
        batch_size=10,
        epochs=len(values),
        verbose=0,
        callbacks=[scripted, callback],
    )
    return scripted.kernels


def steps(base):
    return [record.step for record in records(base).values()]


def kernel_in(base, step):
    version = next(v for v, record in records(base).items() if record.step == step)
    return session_value(os.path.join(base, str(version)), "y/kernel")


def session_value(path, name):
    """A variable of a SavedModel, as a session of TensorFlow restores it."""
    with tf.Graph().as_default(), v1.Session() as session:
        v1.saved_model.load(session, ["serve"], path)
        found = next(v for v in v1.global_variables() if v.op.name == name)
        return session.run(found)


@pytest.mark.parametrize(
    ("arguments", "values", "expected"),
    [
        ({}, [3.0, 1.0, 2.0], [4, 8, 12]),
        ({"save_best_only": True}, [3.0, 1.0, 2.0], [4, 8]),
        ({"save_freq": 3}, [3.0, 1.0], [3, 6]),
        ({"save_secs": 1e6}, [3.0, 1.0], [8]),
        ({"saved_model_policy": "final"}, [3.0, 1.0, 2.0], [12]),
        ({"saved_model_policy": "best"}, [3.0, 1.0, 2.0, 0.5], [4, 8, 16]),
        ({"saved_model_policy": "best", "mode": "max"}, [2.0, 1.0, 3.0], [4, 12]),
        (
            {"saved_model_policy": "best", "initial_value_threshold": 1.5},
            [2.0, 1.0, 1.2],
            [8],
        ),
        # The metric comes at the ends of epochs, whenever checkpoints are written.
        ({"saved_model_policy": "best", "save_freq": 3}, [2.0, 1.0, 3.0], [4, 8]),
        ({"saved_model_policy": "best"}, [None, 2.0, None, 1.0], [8, 16]),
    ],
)
@pytest.mark.filterwarnings("ignore:saved_model_policy")
def test_policies(base, checkpoint, arguments, values, expected):
    kernels = fit(checkpoint(**arguments), values)
    assert steps(base) == expected
    for step in set(expected) & set(kernels):
        np.testing.assert_array_equal(kernel_in(base, step), kernels[step])


def test_best_by_a_metric_of_batches(base, checkpoint):
    callback = checkpoint(saved_model_policy="best", monitor="loss", save_freq=1)
    kernels = fit(callback)
    assert steps(base)
    assert steps(base)[0] == 1
    assert set(steps(base)) <= {1, 2, 3, *kernels}


def test_names_are_times_that_grow(base, checkpoint, monkeypatch):
    before = int(directories.time.time())
    fit(checkpoint(), [1.0] * 3)
    versions = list(records(base))
    assert before <= versions[0]
    assert versions == sorted(set(versions))
    monkeypatch.setattr(directories.time, "time", lambda: 1.6e9)  # a clock went back
    fit(checkpoint(saved_model_policy="final"), model=fresh())
    assert sorted(map(int, os.listdir(base))) == [*versions, versions[-1] + 1]


def fresh():
    """A model whose steps are not taken in the directory of checkpoints."""
    model = make_model()
    model.optimizer.iterations.assign(100)
    return model


def test_only_its_own_old_ones_are_removed(base, checkpoint, tmp_path):
    records_of_others = ["{}", "[" * 60000, '{"step": "9", "values": null}', "\xff"]
    foreign = ["1500000000", "7", "notes", *map(str, range(15 * 10**9, 15 * 10**9 + 4))]
    for name in foreign:
        os.makedirs(os.path.join(base, name, "assets.extra"))
    for name, text in zip(foreign[-4:], records_of_others, strict=True):
        extra = os.path.join(base, name, "assets.extra", "keras_metagraph.json")
        with open(extra, "w", encoding="latin-1") as file:
            file.write(text)
    elsewhere = tmp_path / "elsewhere"
    fit(checkpoint(saved_model_dir=elsewhere))
    (first,) = os.listdir(elsewhere)
    os.symlink(elsewhere / first, os.path.join(base, "1500000001"))
    fit(checkpoint(max_to_keep=2), [1.0] * 4, fresh())
    own = set(os.listdir(base)) - {*foreign, "1500000001"}
    assert own == set(map(str, records(base)))
    assert steps(base) == [112, 116]
    assert os.listdir(elsewhere) == [first]
    assert set(os.listdir(base)) == {*own, *foreign, "1500000001"}


def test_all_are_kept_on_request(base, checkpoint):
    fit(checkpoint(max_to_keep=None), [1.0] * 7)
    assert len(records(base)) == 7


def test_one_that_cannot_be_removed_costs_a_warning(base, checkpoint, monkeypatch):
    def refuse(path):
        raise PermissionError(13, "Permission denied", path)

    monkeypatch.setattr(exporters, "remove_directory", refuse)
    with pytest.warns(UserWarning, match="could not be removed: .*Permission denied"):
        fit(checkpoint(max_to_keep=1, asynchronous=False), [1.0] * 2)
    assert steps(base) == [4, 8]


def test_values_in_the_background_are_those_of_the_moment(
    base, checkpoint, monkeypatch
):
    write, go = PreparedSavedModel.write, threading.Event()

    def wait_and_write(*arguments):
        assert go.wait(60)
        write(*arguments)

    class Release(keras.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            if int(self.model.optimizer.iterations) == 6:
                assert not os.path.exists(base)  # Training went on.
                go.set()

    monkeypatch.setattr(PreparedSavedModel, "write", wait_and_write)
    scripted = Scripted([1.0] * 2)
    callbacks = [scripted, checkpoint(save_freq=4), Release()]
    model = make_model()
    model.fit(X, Y, batch_size=10, epochs=2, verbose=0, callbacks=callbacks)
    for step in (4, 8):
        np.testing.assert_array_equal(kernel_in(base, step), scripted.kernels[step])


def test_it_is_on_disk_before_the_checkpoint_of_its_step(base, checkpoint, monkeypatch):
    write, save = PreparedSavedModel.write, meta_graph_checkpoint.write_checkpoint
    go, found = threading.Event(), {}

    def wait_and_write(*arguments):
        assert go.wait(60)
        write(*arguments)

    def note_and_save(prefix, *arguments, **keyed):
        found[prefix.rpartition("-")[2]] = steps(base)
        return save(prefix, *arguments, **keyed)

    class Release(keras.callbacks.Callback):
        def on_train_batch_begin(self, batch, logs=None):
            if int(self.model.optimizer.iterations) == 4:
                go.set()

    monkeypatch.setattr(PreparedSavedModel, "write", wait_and_write)
    monkeypatch.setattr(meta_graph_checkpoint, "write_checkpoint", note_and_save)
    callbacks = [checkpoint(), Release()]
    make_model().fit(X, Y, batch_size=10, epochs=2, verbose=0, callbacks=callbacks)
    assert found == {"4": [4], "8": [4, 8]}


@pytest.mark.parametrize("asynchronous", [True, False])
def test_failing_export_stops_the_training(base, checkpoint, asynchronous):
    with open(base, "w", encoding="utf-8"):
        pass
    model = make_model()
    with pytest.raises(ExportError, match="To fix"):
        fit(checkpoint(asynchronous=asynchronous), [1.0] * 3, model)
    assert int(model.optimizer.iterations) == (8 if asynchronous else 4)


@pytest.mark.parametrize("asynchronous", [True, False])
def test_failing_export_is_a_warning_on_request(
    base, checkpoint, tmp_path, monkeypatch, asynchronous
):
    write, failing = PreparedSavedModel.write, [True]

    def fail_once(*arguments):
        if failing.pop() if failing else False:
            raise ExportError("no space")
        write(*arguments)

    monkeypatch.setattr(PreparedSavedModel, "write", fail_once)
    callback = checkpoint(
        saved_model_policy="best", on_error="warn", asynchronous=asynchronous
    )
    with pytest.warns(UserWarning, match="No SavedModel was written. no space"):
        fit(callback, [1.0, 2.0, 3.0])
    # What could not be written is not the best one.
    assert steps(base) == [8]
    for step in (4, 8, 12):
        assert (tmp_path / "run" / f"model-{step}.manifest").exists()


def test_missing_metric_is_told_once(base, checkpoint):
    callback = checkpoint(saved_model_policy="best", monitor="val_los")
    with pytest.warns(UserWarning, match="'val_los', which is not among") as caught:
        fit(callback, [1.0, 2.0])
    assert len(caught) == 1
    assert not os.path.exists(base)


def test_nothing_trained_nothing_exported(base, checkpoint):
    callback = checkpoint(saved_model_policy="final")
    make_model().fit(X, Y, epochs=0, verbose=0, callbacks=[callback])
    assert not os.path.exists(base)


def test_every_fit_has_its_final_one(base, checkpoint):
    callback, model = checkpoint(saved_model_policy="final"), make_model()
    fit(callback, model=model)
    fit(callback, model=model)
    assert steps(base) == [4, 8]


def test_working_directory_may_change(tmp_path, checkpoint, monkeypatch):
    class Wander(keras.callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            (tmp_path / str(epoch)).mkdir()
            os.chdir(tmp_path / str(epoch))

    monkeypatch.chdir(tmp_path)
    callbacks = [checkpoint(saved_model_dir="export"), Wander()]
    make_model().fit(X, Y, batch_size=10, epochs=2, verbose=0, callbacks=callbacks)
    assert steps(str(tmp_path / "export")) == [4, 8]


def test_only_the_chief_exports(base, checkpoint, monkeypatch):
    monkeypatch.setattr(MetaGraphCheckpoint, "_is_chief", lambda self: False)
    fit(checkpoint())
    assert not os.path.exists(base)


def test_verbose_says_where(base, checkpoint, capsys):
    fit(checkpoint(verbose=1))
    (version,) = records(base)
    path = os.path.join(base, str(version))
    assert f"Epoch 1: exported the model to {path}" in capsys.readouterr().out


def test_signatures_of_every_kind(base, checkpoint, tmp_path):
    model = make_model()

    @tf.function(input_signature=[tf.TensorSpec([None, 3], name="x")])
    def doubled(x):
        return {"y": 2.0 * model(x)}

    default = keras_metagraph.export_meta_graph(model, graphs=["predict"])
    default = default.signature_def["serving_default"]
    names = {
        side: {key: info.name for key, info in getattr(default, side).items()}
        for side in ("inputs", "outputs")
    }
    signatures = {
        "signature": keras_metagraph.predict_signature(model),
        "regress": keras_metagraph.regress_signature(model),
        "function": doubled,
        "message": default,
        "mapping": names,
    }
    fit(checkpoint(signatures=signatures), [1.0] * 2, model)
    meta_graph_def = v1.MetaGraphDef()
    meta_graph_def.ParseFromString((tmp_path / "run" / "model-8.meta").read_bytes())
    assert set(signatures) < set(meta_graph_def.signature_def)
    loaded = tf.saved_model.load(os.path.join(base, str(max(records(base)))))
    expected = model.predict(X, verbose=0)
    for key, factor in (
        ("signature", 1),
        ("function", 2),
        ("message", 1),
        ("mapping", 1),
    ):
        (found,) = loaded.signatures[key](tf.constant(X)).values()
        np.testing.assert_allclose(found, factor * expected, rtol=1e-6)
    examples = [example(row).SerializeToString() for row in X]
    found = loaded.signatures["regress"](tf.constant(examples))["outputs"]
    np.testing.assert_allclose(found, expected, rtol=1e-6)


def example(row):
    floats = tf.train.Feature(float_list=tf.train.FloatList(value=row))
    return tf.train.Example(features=tf.train.Features(feature={"x": floats}))


def test_options_of_save_saved_model(base, checkpoint, tmp_path):
    (tmp_path / "requests").write_bytes(b"warm")
    options = {
        "assets_extra": {"tf_serving_warmup_requests": tmp_path / "requests"},
        "as_text": True,
    }
    fit(checkpoint(saved_model_options=options))
    (version,) = records(base)
    path = os.path.join(base, str(version))
    assert "saved_model.pbtxt" in os.listdir(path)
    with open(f"{path}/assets.extra/tf_serving_warmup_requests", "rb") as file:
        assert file.read() == b"warm"


@pytest.mark.parametrize(
    "arguments",
    [
        {"saved_model_policy": "newest"},
        {"saved_model_options": {"timestamped": True}},
        {"saved_model_options": {"signatures": {}}},
        {"saved_model_options": {"asset_extra": {}}},
        {"saved_model_dir": None, "saved_model_policy": "best"},
        {"saved_model_dir": None, "saved_model_options": {"as_text": True}},
    ],
)
def test_arguments_are_checked_at_once(checkpoint, arguments):
    with pytest.raises(CheckpointError, match="To fix:"):
        checkpoint(**arguments)


def test_no_warnings_in_a_plain_fit(base, checkpoint):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        fit(checkpoint(saved_model_policy="best"))
    assert steps(base) == [4]
