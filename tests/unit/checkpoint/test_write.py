import errno
import os
import resource
import threading

import keras
import ml_dtypes
import numpy as np
import pytest
import tensorflow as tf

from keras_metagraph.checkpoint import commit
from keras_metagraph.checkpoint.retention import Retention
from keras_metagraph.checkpoint.snapshot import take_snapshot
from keras_metagraph.checkpoint.state import read_state
from keras_metagraph.checkpoint.write import write_checkpoint
from keras_metagraph.errors import CheckpointError

VALUES = {"w": np.arange(6.0, dtype=np.float32), "step": np.int64(3)}


def meta_graph():
    meta_graph_def = tf.compat.v1.MetaGraphDef()
    meta_graph_def.meta_info_def.tags.append("serve")
    return meta_graph_def


def contents(directory):
    """Every file below a directory, with its bytes."""
    return {
        str(path.relative_to(directory)): path.read_bytes()
        for path in sorted(directory.rglob("*"))
        if path.is_file()
    }


def test_no_values_are_an_error_and_leave_nothing(tmp_path):
    with pytest.raises(CheckpointError, match="no variables to save") as caught:
        write_checkpoint(tmp_path / "model", {}, meta_graph())

    assert "export_meta_graph" in caught.value.fix
    assert contents(tmp_path) == {}


def test_values_of_all_types_come_back(tmp_path):
    values = {
        "a/float": np.linspace(0, 1, 6, dtype=np.float32).reshape(2, 3),
        "a/half": np.array([1.5], np.float16),
        "b/bfloat": np.array([1.5], ml_dtypes.bfloat16),
        "b/bool": np.array([True, False]),
        "b/text": np.array(["x", "yy"]),
        "keras": keras.Variable([[1.0, 2.0]], dtype="float32"),
        "tensorflow": tf.Variable(7, dtype=tf.int64),
        "tensor": tf.constant([0.25]),
        "global_step": np.int64(2**40),
        "empty": np.zeros([0, 3]),
    }
    prefix = write_checkpoint(tmp_path / "model-1", values).prefix
    reader = tf.train.load_checkpoint(prefix)
    assert set(reader.get_variable_to_shape_map()) == set(values)
    for name, tensor in take_snapshot(values).items():
        read = reader.get_tensor(name)
        assert reader.get_variable_to_dtype_map()[name] == tensor.dtype
        np.testing.assert_array_equal(read, tensor.numpy())


def test_snapshot_keeps_what_was_read(tmp_path):
    variable = keras.Variable(np.zeros(1000), dtype="float32")
    snapshot = take_snapshot({"w": variable})
    variable.assign_add(np.ones(1000))
    assert not snapshot["w"].numpy().any()


def test_files_and_state(tmp_path):
    done = write_checkpoint(tmp_path / "run" / "model-3", VALUES, meta_graph())
    assert sorted(os.listdir(tmp_path / "run")) == [
        "checkpoint",
        "model-3.data-00000-of-00001",
        "model-3.index",
        "model-3.manifest",
        "model-3.meta",
    ]
    assert tf.train.latest_checkpoint(str(tmp_path / "run")) == done.prefix
    state = (tmp_path / "run" / "checkpoint").read_text()
    assert 'model_checkpoint_path: "model-3"' in state
    assert str(tmp_path) not in state


def test_relative_prefix(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert write_checkpoint("model-3", VALUES).prefix == "model-3"
    assert write_checkpoint("run/model-3", VALUES).prefix == "run/model-3"
    assert commit.verify("run/model-3", contents=True) == []


@pytest.mark.parametrize("base", ["with space", "ünï", "x" * 200, "a[1]*?", "-dash"])
def test_odd_base_names(tmp_path, base):
    done = write_checkpoint(tmp_path / f"{base}-1", VALUES, b"graph")
    assert commit.verify(done.prefix, contents=True) == []
    assert commit.newest_complete(str(tmp_path)) == done.prefix


def test_order_of_the_files(tmp_path, monkeypatch):
    done = []
    link, replace, fsync = os.link, os.replace, os.fsync
    monkeypatch.setattr(
        os, "link", lambda a, b: (link(a, b), done.append(os.path.basename(b)))[0]
    )
    monkeypatch.setattr(
        os, "replace", lambda a, b: (replace(a, b), done.append(os.path.basename(b)))[0]
    )
    monkeypatch.setattr(os, "fsync", lambda fd: (fsync(fd), done.append("sync"))[0])
    write_checkpoint(tmp_path / "model-3", VALUES, b"graph")
    assert done == [
        "sync",
        "model-3.data-00000-of-00001",
        "sync",
        "model-3.index",
        "sync",
        "sync",
        "model-3.meta",
        "sync",
        "sync",
        "model-3.manifest",
        "sync",
        "sync",
        "checkpoint",
        "sync",
    ]


def test_a_prefix_is_never_written_twice(tmp_path):
    write_checkpoint(tmp_path / "model-3", VALUES, b"graph")
    before = contents(tmp_path)
    with pytest.raises(CheckpointError, match="never written twice") as caught:
        write_checkpoint(tmp_path / "model-3", {"w": np.zeros(6)}, b"other")
    assert len(caught.value.findings) == 4
    assert contents(tmp_path) == before


@pytest.mark.parametrize("ending", ["meta", "index", "data-00000-of-00002", "manifest"])
def test_left_over_files_are_not_written_over(tmp_path, ending):
    (tmp_path / f"model-3.{ending}").write_bytes(b"left over")
    with pytest.raises(CheckpointError, match=ending):
        write_checkpoint(tmp_path / "model-3", VALUES)
    assert contents(tmp_path) == {f"model-3.{ending}": b"left over"}


def test_two_writers_of_one_prefix(tmp_path):
    outcomes = []

    def write(number):
        try:
            values = {"w": np.full(100_000, number)}
            outcomes.append(write_checkpoint(tmp_path / "model-3", values, b"graph"))
        except CheckpointError as error:
            outcomes.append(error)

    threads = [threading.Thread(target=write, args=[n]) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sum(isinstance(outcome, commit.Commit) for outcome in outcomes) == 1
    assert commit.verify(str(tmp_path / "model-3"), contents=True) == []
    assert len(os.listdir(tmp_path)) == 5


def test_equal_meta_is_stored_once(tmp_path):
    for step in (1, 2):
        write_checkpoint(tmp_path / f"model-{step}", VALUES, meta_graph())
    write_checkpoint(tmp_path / "model-3", VALUES, b"another graph")
    inodes = [os.stat(tmp_path / f"model-{n}.meta").st_ino for n in (1, 2, 3)]
    assert inodes[0] == inodes[1] != inodes[2]


def test_damaged_meta_is_not_linked_to(tmp_path):
    write_checkpoint(tmp_path / "model-1", VALUES, b"graph")
    (tmp_path / "model-1.meta").write_bytes(b"gr@ph")
    write_checkpoint(tmp_path / "model-2", VALUES, b"graph")
    assert (tmp_path / "model-2.meta").read_bytes() == b"graph"


def test_meta_of_a_path_is_linked(tmp_path):
    (tmp_path / "graph.meta").write_bytes(b"graph")
    write_checkpoint(tmp_path / "model-1", VALUES, tmp_path / "graph.meta")
    assert os.path.samefile(tmp_path / "graph.meta", tmp_path / "model-1.meta")
    assert commit.verify(str(tmp_path / "model-1"), contents=True) == []


def test_file_systems_without_links(tmp_path, monkeypatch):
    def no_links(source, path):
        raise OSError(errno.EPERM, "no links here")

    monkeypatch.setattr(os, "link", no_links)
    for step in (1, 2):
        write_checkpoint(tmp_path / f"model-{step}", VALUES, b"graph")
        assert commit.verify(str(tmp_path / f"model-{step}"), contents=True) == []
    with pytest.raises(CheckpointError, match="never written twice"):
        write_checkpoint(tmp_path / "model-2", VALUES, b"graph")


def test_old_checkpoints_are_pruned(tmp_path):
    for step in range(1, 6):
        done = write_checkpoint(
            tmp_path / f"model-{step}", VALUES, b"graph", retention=Retention(2)
        )
    assert done.pruned == (str(tmp_path / "model-3"),)
    assert {name.split(".")[0] for name in os.listdir(tmp_path)} == {
        "checkpoint",
        "model-4",
        "model-5",
    }
    assert [k.name for k in read_state(str(tmp_path)).kept] == ["model-4", "model-5"]


def test_only_the_own_series_is_pruned(tmp_path):
    write_checkpoint(tmp_path / "best-1", VALUES)
    for step in (1, 2):
        write_checkpoint(tmp_path / f"model-{step}", VALUES, retention=Retention(1))
    assert [k.name for k in read_state(str(tmp_path)).kept] == ["best-1", "model-2"]
    assert commit.verify(str(tmp_path / "best-1")) == []


def test_checkpoints_of_other_programs_are_not_pruned(tmp_path):
    write_checkpoint(tmp_path / "model-1", VALUES)
    os.unlink(tmp_path / "model-1.manifest")
    write_checkpoint(tmp_path / "model-2", VALUES, retention=Retention(1))
    assert (tmp_path / "model-1.index").exists()


def test_checkpoint_that_cannot_be_pruned_costs_a_warning(tmp_path):
    write_checkpoint(tmp_path / "model-1", VALUES, retention=Retention(1))
    (tmp_path / "model-1.manifest").write_bytes(b"damaged")
    with pytest.warns(UserWarning, match="model-1: The manifest"):
        write_checkpoint(tmp_path / "model-2", VALUES, retention=Retention(1))
    assert commit.verify(str(tmp_path / "model-2")) == []


def test_state_is_left_alone_on_request(tmp_path):
    write_checkpoint(tmp_path / "model-1", VALUES, write_state=False)
    assert not (tmp_path / "checkpoint").exists()
    write_checkpoint(tmp_path / "model-2", VALUES, latest_filename="newest")
    assert read_state(str(tmp_path), "newest").latest == "model-2"


@pytest.mark.parametrize("filename", ["", "a/b", "..", "model-1"])
def test_state_file_stays_in_the_directory(tmp_path, filename):
    with pytest.raises(CheckpointError, match="latest_filename"):
        write_checkpoint(tmp_path / "model-1", VALUES, latest_filename=filename)


@pytest.mark.parametrize(
    "arguments",
    [
        ({},),
        ({"w": object()},),
        (VALUES, b"graph", {"epoch": object()}),
        (VALUES, b"graph", {"loss": float("nan")}),
        (VALUES, "no/such/file.meta"),
    ],
)
def test_what_cannot_be_written_leaves_nothing(tmp_path, arguments):
    with pytest.raises(CheckpointError, match="To fix:"):
        write_checkpoint(tmp_path / "model-1", *arguments)
    assert os.listdir(tmp_path) == []


def test_directory_that_is_a_file(tmp_path):
    (tmp_path / "run").write_bytes(b"")
    with pytest.raises(CheckpointError, match="model-1"):
        write_checkpoint(tmp_path / "run" / "model-1", VALUES)


def write_or_error(prefix):
    try:
        write_checkpoint(prefix, VALUES, b"other")
    except CheckpointError as error:
        return error
    return None


@pytest.mark.parametrize("function", ["fsync", "link", "mkdir", "replace"])
@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EIO, errno.EDQUOT])
def test_every_failing_call_keeps_the_earlier_checkpoint(
    tmp_path, monkeypatch, function, code
):
    write_checkpoint(tmp_path / "model-1", VALUES, b"graph")
    before = contents(tmp_path)
    real = getattr(os, function)
    failed = 0
    for place in range(8):
        left = [place]

        def fail_once(*args, left=left, **kwargs):
            left[0] -= 1
            if left[0] == -1:
                raise OSError(code, os.strerror(code))
            return real(*args, **kwargs)

        with monkeypatch.context() as patch:
            patch.setattr(os, function, fail_once)
            error = write_or_error(tmp_path / "model-2")
        after = contents(tmp_path)
        if error is None or "is complete" in str(error):
            # The state file failed at most, or the call was not needed.
            assert commit.verify(str(tmp_path / "model-2"), contents=True) == []
            assert commit.remove_checkpoint(str(tmp_path / "model-2"))
            (tmp_path / "checkpoint").write_bytes(before["checkpoint"])
            after = contents(tmp_path)
        assert after == before
        if error is not None:
            assert os.strerror(code) in str(error)
            failed += 1
    assert failed > 0


def test_full_disk(tmp_path):
    write_checkpoint(tmp_path / "model-1", VALUES, b"graph")
    before = contents(tmp_path)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, hard))
    try:
        with pytest.raises(CheckpointError, match="model-2"):
            write_checkpoint(tmp_path / "model-2", {"w": np.zeros(1 << 20)}, b"graph")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert contents(tmp_path) == before


def test_interrupt_leaves_nothing_behind(tmp_path, monkeypatch):
    def interrupt(source, path, link=os.link):
        if path.endswith(".index"):
            raise KeyboardInterrupt
        link(source, path)

    monkeypatch.setattr(os, "link", interrupt)
    with pytest.raises(KeyboardInterrupt):
        write_checkpoint(tmp_path / "model-1", VALUES, b"graph")
    assert os.listdir(tmp_path) == []


RESTORE = """
import tensorflow as tf


def main(arrays, args):
    prefix = tf.train.latest_checkpoint(args["directory"])
    with tf.Graph().as_default(), tf.compat.v1.Session() as session:
        variables = {
            name: tf.compat.v1.get_variable(name, initializer=tf.zeros_like(value))
            for name, value in arrays.items()
        }
        tf.compat.v1.train.Saver(variables).restore(session, prefix)
        return session.run(variables)
"""


def test_tensorflow_1_restores_it(tmp_path, tf115):
    rng = np.random.default_rng(0)
    values = {
        "dense/kernel": rng.normal(size=(4, 3)).astype(np.float32),
        "dense/kernel/Adam": rng.normal(size=(4, 3)).astype(np.float32),
        "words": np.array([b"a", b"b"]),
        "global_step": np.int64(120),
    }
    write_checkpoint(tmp_path / "run" / "model-120", values)
    os.rename(tmp_path / "run", tmp_path / "moved")
    read = tf115(RESTORE, values, {"directory": tmp_path / "moved"})
    assert set(read) == set(values)
    for name, value in values.items():
        np.testing.assert_array_equal(read[name], value)
