import dataclasses
import json
import os
import shutil

import numpy as np
import pytest

from keras_metagraph.checkpoint import commit, names
from keras_metagraph.checkpoint.retention import Kept
from keras_metagraph.checkpoint.state import State, read_state
from keras_metagraph.checkpoint.write import write_checkpoint
from keras_metagraph.errors import CheckpointError, ProtocolVersionError

VALUES = {"w": np.arange(6.0), "step": np.int64(3)}


@pytest.fixture
def prefix(tmp_path):
    return write_checkpoint(
        tmp_path / "run" / "model-3", VALUES, b"graph", {"epoch": 1}
    ).prefix


def test_manifest_says_what_was_written(prefix):
    manifest = commit.read_manifest(prefix)
    assert (manifest.prefix, manifest.step) == ("model-3", 3)
    assert manifest.progress == {"epoch": 1}
    assert set(manifest.versions) == {"keras", "keras_metagraph", "tensorflow"}
    assert set(manifest.files) == {
        "model-3.data-00000-of-00001",
        "model-3.index",
        "model-3.meta",
    }
    assert manifest.meta.size == len(b"graph")


def test_manifest_is_plain_json_with_its_protocol(prefix):
    with open(names.manifest_path(prefix), encoding="utf-8") as file:
        assert json.load(file)["protocol"] == commit.PROTOCOL


def test_untouched_checkpoint_verifies(prefix):
    assert commit.verify(prefix, contents=True) == []


@pytest.mark.parametrize("ending", [".data-00000-of-00001", ".index", ".meta"])
def test_any_flipped_bit_is_found(prefix, ending):
    path = prefix + ending
    with open(path, "rb") as file:
        content = file.read()
    for place in range(len(content)):
        damaged = bytearray(content)
        damaged[place] ^= 1
        with open(path, "wb") as file:
            file.write(damaged)
        assert len(commit.verify(prefix, contents=True)) == 1


@pytest.mark.parametrize("ending", [".data-00000-of-00001", ".index", ".meta"])
def test_truncated_and_missing_files_are_found_by_size(prefix, ending):
    os.truncate(prefix + ending, 3)
    assert "bytes" in commit.verify(prefix)[0]
    os.unlink(prefix + ending)
    assert len(commit.verify(prefix)) == 1
    os.mkfifo(prefix + ending)
    assert "regular" in commit.verify(prefix)[0]


def test_manifest_truncated_anywhere_is_one_error(prefix):
    path = names.manifest_path(prefix)
    with open(path, "rb") as file:
        content = file.read()
    for length in range(len(content) - 2):
        with open(path, "wb") as file:
            file.write(content[:length])
        with pytest.raises(CheckpointError, match="damaged"):
            commit.read_manifest(prefix)
        assert commit.newest_complete(os.path.dirname(prefix)) is None


@pytest.mark.parametrize(
    "change",
    [
        {"protocol": 0},
        {"protocol": "1"},
        {"prefix": "model-4"},
        {"step": "3"},
        {"files": {"../model-3.meta": {"size": 1, "sha256": ""}}},
        {"files": {"model-3.meta": {"size": "1", "sha256": ""}}},
        {"files": {"model-3.meta": {}}},
        {"files": []},
        {"progress": []},
    ],
)
def test_nonsense_in_the_manifest_is_one_error(prefix, change):
    rewrite_manifest(prefix, change)
    with pytest.raises(CheckpointError, match="damaged"):
        commit.read_manifest(prefix)


def rewrite_manifest(prefix, change):
    path = names.manifest_path(prefix)
    with open(path, encoding="utf-8") as file:
        fields = json.load(file)
    with open(path, "w", encoding="utf-8") as file:
        json.dump({**fields, **change}, file)


def test_newer_protocol_says_so(prefix):
    rewrite_manifest(prefix, {"protocol": commit.PROTOCOL + 1, "files": "other"})
    with pytest.raises(ProtocolVersionError, match="newer keras_metagraph"):
        commit.read_manifest(prefix)


def test_a_pipe_in_the_place_of_the_manifest_is_not_waited_for(prefix):
    os.unlink(names.manifest_path(prefix))
    os.mkfifo(names.manifest_path(prefix))
    with pytest.raises(CheckpointError, match="regular"):
        commit.read_manifest(prefix)


def test_newest_is_the_highest_complete_step(tmp_path):
    for step in (9, 120, 30):
        write_checkpoint(tmp_path / f"model-{step}", VALUES, b"graph")
    directory = str(tmp_path)
    assert commit.newest_complete(directory) == str(tmp_path / "model-120")
    os.truncate(tmp_path / "model-120.index", 1)
    assert commit.newest_complete(directory) == str(tmp_path / "model-30")
    os.unlink(tmp_path / "model-30.manifest")
    assert commit.newest_complete(directory) == str(tmp_path / "model-9")


def test_newest_survives_a_moved_directory(tmp_path, prefix):
    shutil.move(os.path.dirname(prefix), tmp_path / "elsewhere")
    found = commit.newest_complete(str(tmp_path / "elsewhere"), contents=True)
    assert found == str(tmp_path / "elsewhere" / "model-3")


def test_directory_without_checkpoints_has_no_newest(tmp_path):
    assert commit.newest_complete(str(tmp_path)) is None
    assert commit.newest_complete(str(tmp_path / "missing")) is None


def test_remove_takes_all_files_of_the_checkpoint_only(prefix):
    directory = os.path.dirname(prefix)
    with open(os.path.join(directory, "model-3.notes"), "w", encoding="utf-8"):
        pass
    assert commit.remove_checkpoint(prefix)
    assert sorted(os.listdir(directory)) == ["checkpoint", "model-3.notes"]


def test_remove_leaves_checkpoints_of_other_programs(prefix):
    os.unlink(names.manifest_path(prefix))
    assert not commit.remove_checkpoint(prefix)
    assert os.path.exists(names.index_path(prefix))


def test_removal_that_is_stopped_leaves_no_complete_checkpoint(prefix, monkeypatch):
    unlink, removed = os.unlink, []

    def stop_after_one(path):
        if removed:
            raise PermissionError(path)
        removed.append(path)
        unlink(path)

    monkeypatch.setattr(os, "unlink", stop_after_one)
    with pytest.raises(PermissionError):
        commit.remove_checkpoint(prefix)
    assert commit.newest_complete(os.path.dirname(prefix)) is None


def test_state_file_is_read_back(tmp_path):
    state = State("model-2", (Kept("model-1", 1.5), Kept("model-2", 2.5)), 0.5)
    (tmp_path / "checkpoint").write_text(state.to_text(), encoding="utf-8")
    assert read_state(str(tmp_path)) == state


def test_state_file_with_paths_of_elsewhere_is_confined(tmp_path):
    (tmp_path / "checkpoint").write_text(
        'model_checkpoint_path: "/other/machine/run/model-2"\n'
        'all_model_checkpoint_paths: "..\\\\..\\\\model-1"\n'
        'all_model_checkpoint_paths: "run/.."\n',
        encoding="utf-8",
    )
    assert read_state(str(tmp_path)) == State("model-2", (Kept("model-1", 0.0),))


@pytest.mark.parametrize(
    "content", [b"", b"\xff\xfe", b"model_checkpoint_path: ", b"{{"]
)
def test_damaged_state_file_is_an_empty_one(tmp_path, content):
    (tmp_path / "checkpoint").write_bytes(content)
    assert read_state(str(tmp_path)) == State()


def test_records_are_values(prefix):
    manifest = commit.read_manifest(prefix)
    with pytest.raises(dataclasses.FrozenInstanceError):
        manifest.step = 4
