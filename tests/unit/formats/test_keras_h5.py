"""Keras H5 files: what is read of them, and what hostile ones cannot do."""

import json
import os

import h5py
import numpy as np
import pytest

from keras_metagraph.errors import FormatError, UntrustedContentError
from keras_metagraph.formats.keras_h5 import (
    is_hdf5,
    read_keras_h5,
    read_weights,
    release,
)

KERNEL = np.arange(6, dtype="float32").reshape(2, 3)


def write(path, edit=None, **attributes):
    """A file as `model.save` of Keras 2.2.4 writes one, for a dense layer."""
    with h5py.File(path, "w") as file:
        root = file.create_group("model_weights")
        root.attrs["layer_names"] = [b"dense_1", b"flatten_1"]
        root.attrs["keras_version"] = b"2.2.4"
        root.attrs["backend"] = b"tensorflow"
        dense = root.create_group("dense_1")
        dense.attrs["weight_names"] = [b"dense_1/kernel:0"]
        dense["dense_1/kernel:0"] = KERNEL
        root.create_group("flatten_1").attrs["weight_names"] = []
        file.attrs["model_config"] = json.dumps({"class_name": "Model", "config": {}})
        for name, value in attributes.items():
            file.attrs[name] = value
        if edit is not None:
            edit(file, dense)
    return path


def test_content(tmp_path):
    content = read_keras_h5(write(tmp_path / "m.h5"))

    assert content.keras_version == "2.2.4"
    assert content.release == (2, 2, 4)
    assert content.backend == "tensorflow"
    assert not content.is_tf_keras
    assert content.model_config["class_name"] == "Model"
    assert content.training_config is None
    assert content.optimizer_weights is None
    assert content.weights["flatten_1"] == []
    ((name, value),) = content.weights["dense_1"]
    assert name == "dense_1/kernel:0"
    np.testing.assert_array_equal(value, KERNEL)


def test_weights_only_file_of_keras_1(tmp_path):
    with h5py.File(tmp_path / "w.h5", "w") as file:
        file.attrs["layer_names"] = [b"dense_1"]
        group = file.create_group("dense_1")
        group.attrs["weight_names"] = [b"dense_1_W"]
        group["dense_1_W"] = KERNEL
    content = read_keras_h5(tmp_path / "w.h5")

    assert content.model_config is None
    assert content.release == (1,)
    assert content.backend == "theano"  # TensorFlow's names end with ":0"
    assert list(read_weights(tmp_path / "w.h5")) == ["dense_1"]


def test_names_that_keras_split_into_several_attributes(tmp_path):
    def split(file, dense):
        root = file["model_weights"]
        del root.attrs["layer_names"]
        root.attrs["layer_names0"] = [b"dense_1"]
        root.attrs["layer_names1"] = [b"flatten_1"]

    path = write(tmp_path / "m.h5", split)

    assert list(read_weights(path)) == ["dense_1", "flatten_1"]


@pytest.mark.parametrize(
    ("text", "numbers"),
    [("1.2.2", (1, 2, 2)), ("2.2.4-tf", (2, 2, 4)), ("2.4.0rc1", (2, 4)), ("", (1,))],
)
def test_release(text, numbers):
    assert release(text) == numbers


def secret(tmp_path):
    path = tmp_path / "secret.bin"
    path.write_bytes(b"\x01" * 64)
    return str(path)


def external_link(file, dense, path):
    del dense["dense_1/kernel:0"]
    dense["dense_1/kernel:0"] = h5py.ExternalLink(path, "/data")


def soft_link(file, dense, path):
    del dense["dense_1/kernel:0"]
    dense["dense_1/kernel:0"] = h5py.SoftLink("/model_weights")


def linked_group(file, dense, path):
    del dense["dense_1"]
    dense["dense_1"] = h5py.ExternalLink(path, "/")


def external_storage(file, dense, path):
    del dense["dense_1/kernel:0"]
    dense.create_dataset(
        "dense_1/kernel:0", (2, 3), "float32", external=[(path, 0, h5py.h5f.UNLIMITED)]
    )


def virtual(file, dense, path):
    layout = h5py.VirtualLayout((16,), "float32")
    layout[:] = h5py.VirtualSource(path, "data", (16,))
    del dense["dense_1/kernel:0"]
    dense.create_virtual_dataset("dense_1/kernel:0", layout)


def bomb(file, dense, path):
    del dense["dense_1/kernel:0"]
    dense.create_dataset("dense_1/kernel:0", (1 << 40,), "float32")


def zipped_bomb(file, dense, path):
    del dense["dense_1/kernel:0"]
    dense.create_dataset(
        "dense_1/kernel:0", (1 << 40,), "float32", chunks=(1 << 20,), compression="gzip"
    )


def many_times(file, dense, path):
    big = np.random.default_rng(7).random(1 << 18)
    dense["big:0"] = big
    dense.attrs["weight_names"] = [b"big:0"] * 200


def text(file, dense, path):
    del dense["dense_1/kernel:0"]
    dense["dense_1/kernel:0"] = np.array([b"abc"])


@pytest.mark.parametrize(
    "edit",
    [
        external_link,
        soft_link,
        linked_group,
        external_storage,
        virtual,
        bomb,
        zipped_bomb,
        many_times,
        text,
    ],
)
def test_what_points_outside_or_is_not_there_is_refused(tmp_path, edit):
    path = secret(tmp_path)
    write(tmp_path / "m.h5", lambda file, dense: edit(file, dense, path))

    with pytest.raises(UntrustedContentError, match=r"m\.h5"):
        read_keras_h5(tmp_path / "m.h5")


def test_all_that_is_missing_is_told(tmp_path):
    def remove(file, dense):
        dense.attrs["weight_names"] = [b"a:0", b"../b:0"]

    path = write(tmp_path / "m.h5", remove)

    with pytest.raises(FormatError) as caught:
        read_keras_h5(path)
    assert len(caught.value.findings) == 2


@pytest.mark.parametrize("config", ["{", "[1]", "[" * 100_000])
def test_config_that_is_no_object(tmp_path, config):
    path = write(tmp_path / "m.h5", model_config=config)

    with pytest.raises(FormatError, match="model_config"):
        read_keras_h5(path)


def test_other_files(tmp_path):
    (tmp_path / "text.h5").write_text("no HDF5")
    os.mkfifo(tmp_path / "pipe.h5")
    with h5py.File(tmp_path / "other.h5", "w") as file:
        file["data"] = KERNEL

    assert not is_hdf5(tmp_path / "text.h5")
    assert not is_hdf5(tmp_path / "pipe.h5")
    assert not is_hdf5(tmp_path / "none.h5")
    assert not is_hdf5(3.5)
    for name in ("text.h5", "pipe.h5", "none.h5", "other.h5"):
        with pytest.raises(FormatError):
            read_keras_h5(tmp_path / name)


def test_truncated_file(tmp_path):
    path = write(tmp_path / "m.h5")
    data = path.read_bytes()
    for size in range(16, len(data), 97):
        path.write_bytes(data[:size])
        with pytest.raises((FormatError, UntrustedContentError)):
            read_keras_h5(path)
