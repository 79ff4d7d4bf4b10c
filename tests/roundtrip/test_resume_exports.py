"""A killed and resumed `fit` leaves the SavedModels of one that was not killed."""

import functools
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

import keras_metagraph
from keras_metagraph.callbacks import meta_graph_checkpoint
from keras_metagraph.callbacks.exporters import records
from keras_metagraph.saved_model.prepared import PreparedSavedModel
from roundtrip.resume_program import Killed, train

POLICIES = ("latest", "best", "final")
# Three epochs of 10 steps, with a checkpoint every 4.
STEPS = {"latest": [20, 24, 28, 30], "best": [10, 20, 30], "final": [30]}


def attempt(directory, policy, batch=0, **arguments):
    """Trains; returns step and checksum of every SavedModel, the oldest first."""
    arguments = {
        "max_to_keep": 4,
        "saved_model_dir": f"{directory}/export",
        "saved_model_policy": policy,
        **arguments,
    }
    try:
        train("arrays", directory, batch, **arguments)
    except Killed:
        return None
    return exported(directory)


def exported(directory):
    return list(records(f"{directory}/export").values())


@functools.cache
def uninterrupted(policy, **arguments):
    directory = tempfile.mkdtemp()
    try:
        return attempt(directory, policy, **arguments)
    finally:
        shutil.rmtree(directory)


@pytest.mark.parametrize("policy", POLICIES)
def test_what_is_compared(policy):
    assert [record.step for record in uninterrupted(policy)] == STEPS[policy]
    assert len({record.values for record in uninterrupted(policy)}) == len(
        STEPS[policy]
    )


@pytest.mark.parametrize("batch", [3, 18, 21, 30])
@pytest.mark.parametrize("policy", POLICIES)
def test_killed_anywhere(policy, batch, tmp_path):
    assert attempt(tmp_path, policy, batch) is None
    assert attempt(tmp_path, policy) == uninterrupted(policy)


@pytest.mark.parametrize("asynchronous", [True, False])
@pytest.mark.parametrize("policy", POLICIES)
def test_killed_between_export_and_checkpoint(
    policy, asynchronous, tmp_path, monkeypatch
):
    write = meta_graph_checkpoint.write_checkpoint

    def die(prefix, *arguments, **keyed):
        if prefix.endswith(("-12", "-30")):
            raise Killed
        return write(prefix, *arguments, **keyed)

    expected = uninterrupted(policy)
    with monkeypatch.context() as patch:
        patch.setattr(meta_graph_checkpoint, "write_checkpoint", die)
        assert attempt(tmp_path, policy, asynchronous=asynchronous) is None
    before = versions(tmp_path)
    assert attempt(tmp_path, policy) == expected
    # What was there already is there still: it was not written a second time.
    kept = {version for version in before if version in versions(tmp_path)}
    assert {before[version] for version in kept} == (
        set(before.values()) & set(exported(tmp_path))
    )


@pytest.mark.parametrize("policy", POLICIES)
def test_killed_before_a_checkpoint_at_the_end(policy, tmp_path, monkeypatch):
    """The last export is there, and the checkpoint that knows of it is not."""
    write = meta_graph_checkpoint.write_checkpoint

    def die(prefix, *arguments, **keyed):
        if prefix.endswith("-30"):
            raise Killed
        return write(prefix, *arguments, **keyed)

    with monkeypatch.context() as patch:
        patch.setattr(meta_graph_checkpoint, "write_checkpoint", die)
        assert attempt(tmp_path, policy) is None
    before = versions(tmp_path)
    assert before[max(before)].step == 30
    assert attempt(tmp_path, policy) == uninterrupted(policy)
    assert versions(tmp_path) == before


@pytest.mark.parametrize("policy", POLICIES)
def test_killed_while_exporting(policy, tmp_path, monkeypatch):
    write = PreparedSavedModel.write

    def die(self, directory, further=None):
        if len(versions(tmp_path)) == len(STEPS[policy]) - 1:
            raise Killed
        write(self, directory, further)

    with monkeypatch.context() as patch:
        patch.setattr(PreparedSavedModel, "write", die)
        assert attempt(tmp_path, policy) is None
    assert attempt(tmp_path, policy) == uninterrupted(policy)


def versions(directory):
    return records(f"{directory}/export")


def test_best_value_is_remembered(tmp_path):
    """Improving again on what came before the kill is not enough."""
    arguments = {"monitor": "loss", "mode": "max"}
    expected = uninterrupted("best", **arguments)
    assert attempt(tmp_path, "best", 12, **arguments) is None
    assert attempt(tmp_path, "best", **arguments) == expected


@pytest.mark.parametrize("policy", POLICIES)
def test_finished_run_exports_nothing_more(policy, tmp_path):
    attempt(tmp_path, policy)
    before = versions(tmp_path)
    attempt(tmp_path, policy)
    assert versions(tmp_path) == before


def test_best_that_failed_is_tried_again(tmp_path, monkeypatch):
    """The checkpoint was written, the SavedModel that it speaks of was not."""
    write = PreparedSavedModel.write

    def fail(self, directory, further=None):
        raise keras_metagraph.errors.ExportError("no space")

    with monkeypatch.context() as patch:
        patch.setattr(PreparedSavedModel, "write", fail)
        with pytest.raises(keras_metagraph.errors.ExportError):
            attempt(tmp_path, "final")
    assert PreparedSavedModel.write is write
    assert (tmp_path / "model-30.manifest").exists()
    assert attempt(tmp_path, "final") == uninterrupted("final")


PROGRAM = """
import sys
from roundtrip.resume_program import train
_, directory, policy, batch = sys.argv
train(
    "arrays", directory, int(batch), by_signal=True, max_to_keep=4,
    saved_model_dir=directory + "/export", saved_model_policy=policy,
)
"""


@pytest.mark.parametrize("policy", ["latest", "best"])
def test_killed_by_the_system(policy, tmp_path):
    def run(batch):
        tests = Path(__file__).parents[1]
        package = Path(keras_metagraph.__file__).parents[1]
        return subprocess.run(
            [sys.executable, "-c", PROGRAM, tmp_path, policy, str(batch)],
            env={**os.environ, "PYTHONPATH": f"{package}{os.pathsep}{tests}"},
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )

    killed = run(22)
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    resumed = run(0)
    assert resumed.returncode == 0, resumed.stderr
    assert exported(tmp_path) == uninterrupted(policy)
    names = os.listdir(tmp_path / "export")
    assert sorted(map(int, names)) == list(versions(tmp_path))
