"""What a killed writer leaves is cleared away, and nothing else."""

import os
import signal
import subprocess
import sys

import pytest

from keras_metagraph.checkpoint import commit
from keras_metagraph.checkpoint.leftovers import abandoned, temporary_directory
from keras_metagraph.checkpoint.state import read_state
from keras_metagraph.checkpoint.write import clear_leftovers, write_checkpoint

WRITER = """
import os, signal, sys
from keras_metagraph.checkpoint import durable, write

calls = []

def kill_at(function, wanted):
    def call(*args, **kwargs):
        calls.append(function)
        if len(calls) == wanted:
            os.kill(os.getpid(), signal.SIGKILL)
        return function(*args, **kwargs)
    return call

durable.publish = kill_at(durable.publish, int(sys.argv[2]))
write._update_state = kill_at(write._update_state, int(sys.argv[2]))
write.write_checkpoint(sys.argv[1], {"w": [1.0]}, b"graph")
"""


@pytest.mark.parametrize("calls", [1, 2, 3, 4, 5])
def test_killed_writer(calls, tmp_path):
    write_checkpoint(tmp_path / "model-1", {"w": [0.0]}, b"graph")
    (tmp_path / ".model-x").mkdir()
    before = sorted(os.listdir(tmp_path))
    prefix = str(tmp_path / "model-2")
    done = subprocess.run(
        [sys.executable, "-c", WRITER, prefix, str(calls)],
        capture_output=True,
        check=False,
        timeout=300,
    )
    assert done.returncode == -signal.SIGKILL
    assert len(os.listdir(tmp_path)) > len(before)

    cut_short = clear_leftovers(tmp_path / "model")

    if calls < 5:  # data, index, meta, manifest
        assert cut_short == [prefix]
        assert sorted(os.listdir(tmp_path)) == before
    else:
        assert cut_short == []
        assert commit.verify(prefix, contents=True) == []
        assert read_state(str(tmp_path)).latest == "model-2"
        assert [kept.name for kept in read_state(str(tmp_path)).kept] == [
            "model-1",
            "model-2",
        ]
    write_checkpoint(tmp_path / "model-3", {"w": [0.0]}, b"graph")


def test_writer_that_lives_is_left_alone(tmp_path):
    with temporary_directory(str(tmp_path / "model-2")):
        assert list(abandoned(str(tmp_path / "model"))) == []
        assert clear_leftovers(tmp_path / "model") == []
        assert len(os.listdir(tmp_path)) == 1
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize(
    "name", [".other-2.tmp-1-0a0a0a0a", ".model.tmp-1-0a0a0a0a", ".model-2.tmp-x"]
)
def test_directories_of_others_are_left_alone(name, tmp_path):
    (tmp_path / name).mkdir()
    (tmp_path / "model-2.index").write_bytes(b"of another program")
    assert clear_leftovers(tmp_path / "model") == []
    assert sorted(os.listdir(tmp_path)) == sorted([name, "model-2.index"])


def test_link_is_not_followed(tmp_path):
    (tmp_path / "kept").mkdir()
    (tmp_path / ".model-2.tmp-1-0a0a0a0a").symlink_to(tmp_path / "kept")
    clear_leftovers(tmp_path / "model")
    assert (tmp_path / "kept").exists()


def test_directory_that_is_not_there(tmp_path):
    assert clear_leftovers(tmp_path / "run" / "model") == []
