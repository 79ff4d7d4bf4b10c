"""A directory is there whole, or not at all."""

import os
import signal
import subprocess
import sys

import pytest

from keras_metagraph.errors import ExportError
from keras_metagraph.saved_model.directory import new_directory, next_version

DYING_WRITER = """
import os, signal, sys
from keras_metagraph.saved_model.directory import new_directory

with new_directory(sys.argv[1]) as temporary:
    os.mkdir(os.path.join(temporary, "variables"))
    os.kill(os.getpid(), signal.SIGKILL)
"""


def test_a_directory_gets_its_name_at_the_end(tmp_path):
    target = tmp_path / "deep" / "export"
    with new_directory(str(target)) as temporary:
        assert os.path.basename(temporary).startswith("temp-export-")
        assert not target.exists()
        with open(os.path.join(temporary, "file"), "w") as file:
            file.write("x")
    assert (target / "file").read_text() == "x"
    assert os.listdir(tmp_path / "deep") == ["export"]


def test_after_a_failure_nothing_is_left(tmp_path):
    target = tmp_path / "deep" / "export"
    with pytest.raises(ZeroDivisionError):
        write(str(target), fail=lambda: 1 / 0)
    assert os.listdir(tmp_path) == []


def test_errors_of_the_disk_are_ours(tmp_path):
    with (
        pytest.raises(ExportError, match="No space left"),
        new_directory(str(tmp_path / "export")),
    ):
        raise OSError(28, "No space left on device")
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("make", ["mkdir", "touch"])
def test_what_is_there_is_not_replaced(make, tmp_path):
    target = tmp_path / "export"
    getattr(target, make)()
    with pytest.raises(ExportError, match="is there already"):
        new_directory(str(target)).__enter__()
    assert os.listdir(tmp_path) == ["export"]


def test_the_later_of_two_writers_fails(tmp_path):
    target = tmp_path / "export"
    with pytest.raises(ExportError, match="is there already"):
        # What the other one writes is locked, so it is no leftover.
        write(str(target), fail=lambda: write(str(target)))
    assert os.listdir(tmp_path) == ["export"]


def test_what_a_killed_writer_left_goes_with_the_next_write(tmp_path):
    done = subprocess.run([sys.executable, "-c", DYING_WRITER, str(tmp_path / "1")])
    assert done.returncode == -signal.SIGKILL
    (left,) = os.listdir(tmp_path)
    assert left.startswith("temp-1-")
    (tmp_path / "temp-of-somebody-else").mkdir()
    with new_directory(str(tmp_path / "2")):
        assert not (tmp_path / left).exists()
    assert sorted(os.listdir(tmp_path)) == ["2", "temp-of-somebody-else"]


def write(path, fail=lambda: None):
    with new_directory(path) as temporary:
        os.mkdir(os.path.join(temporary, "variables"))
        fail()


def test_versions_grow_whatever_the_clock_says(tmp_path, monkeypatch):
    monkeypatch.setattr("time.time", lambda: 1_700_000_000.9)
    assert next_version(str(tmp_path)) == str(tmp_path / "1700000000")
    for name in ("1700000000", "12", "temp-1800000000", "latest", "\u0663"):
        (tmp_path / name).mkdir()
    assert next_version(str(tmp_path)) == str(tmp_path / "1700000001")
    (tmp_path / "1900000000").mkdir()
    assert next_version(str(tmp_path)) == str(tmp_path / "1900000001")
    missing = tmp_path / "missing"
    assert next_version(str(missing)) == str(missing / "1700000000")
