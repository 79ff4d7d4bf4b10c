"""Optimizers and their state in files of old Keras; losses and metrics."""

import json
import shutil

import h5py
import keras
import numpy as np
import pytest

from keras_metagraph import inspect_meta_graph, load_from_meta_graph
from keras_metagraph.errors import CheckpointError, CustomObjectError, FormatError
from keras_metagraph.loading.legacy_keras.optimizers import make_optimizer
from oracle import references

FOLDER = references.FIXTURES / "legacy_keras"
ADAM = FOLDER / "tf-1.15.5" / "optimizer_adam.h5"


def test_norm_of_all_gradients_in_standalone_keras():
    config = {"lr": 0.1, "momentum": 0.0, "nesterov": False, "clipnorm": 2.0}

    assert make_optimizer("SGD", config).global_clipnorm == 2.0
    tf_keras = make_optimizer("SGD", {**config, "name": "SGD"})
    assert (tf_keras.clipnorm, tf_keras.global_clipnorm) == (2.0, None)


def test_decay_is_a_schedule():
    config = {"lr": 0.1, "momentum": 0.0, "nesterov": False, "decay": 0.5}

    rates = [make_optimizer("SGD", config).learning_rate]
    rates.append(make_optimizer("SGD", config, decays_early=True)._learning_rate(3))

    np.testing.assert_allclose(rates, [0.1, 0.1 / (1 + 0.5 * 4)], rtol=1e-6)


def test_unknown_optimizers_and_both_ways_to_clip():
    with pytest.raises(ValueError, match="Mine"):
        make_optimizer("Mine", {"lr": 0.1})
    config = {"lr": 0.1, "momentum": 0.0, "nesterov": False}
    with pytest.raises(ValueError, match="clipvalue"):
        make_optimizer("SGD", {**config, "clipnorm": 1.0, "clipvalue": 1.0})


def edited(tmp_path, edit, source=ADAM):
    path = tmp_path / "m.h5"
    shutil.copy(source, path)
    with h5py.File(path, "r+") as file:
        edit(file)
    return path


def change_training(**changes):
    def edit(file):
        config = json.loads(file.attrs["training_config"])
        file.attrs["training_config"] = json.dumps({**config, **changes})

    return edit


def test_optimizer_with_other_slots_is_an_error(tmp_path):
    def shorten(file):
        group = file["optimizer_weights"]
        group.attrs["weight_names"] = group.attrs["weight_names"][:-1]

    path = edited(tmp_path, shorten)

    with pytest.raises(CheckpointError, match="compile=False"):
        load_from_meta_graph(path)
    assert not load_from_meta_graph(path, compile=False).compiled


def test_slot_of_another_shape_is_an_error_by_name(tmp_path):
    def reshape(file):
        group = file["optimizer_weights"]
        name = group.attrs["weight_names"][1]
        del group[name]
        group[name] = np.zeros((3, 3, 3), "float32")

    with pytest.raises(CheckpointError, match="embeddings"):
        load_from_meta_graph(edited(tmp_path, reshape))


def test_step_that_was_not_saved_is_told_where_it_matters(tmp_path):
    source = FOLDER / "keras-2.0.9" / "optimizer_adadelta.h5"
    load_from_meta_graph(source)  # without decay it does not matter

    def decay(file):
        config = json.loads(file.attrs["training_config"])
        config["optimizer_config"]["config"]["decay"] = 0.1
        file.attrs["training_config"] = json.dumps(config)

    with pytest.warns(UserWarning, match="decay starts anew"):
        load_from_meta_graph(edited(tmp_path, decay, source))


def test_loss_and_metrics_by_name(tmp_path):
    path = edited(tmp_path, change_training(loss="MSE", metrics=["mae", "acc"]))

    model = load_from_meta_graph(path)

    assert model.loss is keras.losses.mean_squared_error


def test_metric_that_is_gone_is_told(tmp_path):
    path = edited(tmp_path, change_training(metrics=["fmeasure"]))

    with pytest.warns(UserWarning, match="fmeasure"):
        load_from_meta_graph(path)


def test_own_loss(tmp_path):
    path = edited(tmp_path, change_training(loss="mine", metrics=["ours"]))

    with pytest.raises(CustomObjectError) as caught:
        load_from_meta_graph(path)
    assert len(caught.value.findings) == 2

    def mine(y_true, y_pred):
        return keras.ops.mean(y_true - y_pred, axis=-1)

    model = load_from_meta_graph(path, {"mine": mine, "ours": mine})
    assert model.loss is mine


def test_file_of_weights_says_what_to_do():
    path = references.FIXTURES / "zoo" / "keras115_saver" / "h5_weights" / "w.h5"

    with pytest.raises(FormatError, match="warm_start"):
        load_from_meta_graph(path)


def test_report():
    report = inspect_meta_graph(ADAM)

    assert report.keras_version == "2.2.4-tf"
    assert report.optimizer["class"] == "Adam"
    assert not report.blocked
    assert ("embedding", "Embedding", ((12, 4),)) in report.layers
    assert json.dumps(report.to_dict())
    assert "HDF5 of Keras 2.2.4-tf" in str(report)
