"""A killed and resumed `fit` leaves the SavedModels of one that was not killed."""

import functools
import json
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
from keras_metagraph.errors import ExportError
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
        train("weights", directory, batch, **arguments)
    except Killed:
        return None
    return exported(directory)


def exported(directory):
    return list(records(f"{directory}/export").values())


@functools.cache
def uninterrupted(policy):
    directory = tempfile.mkdtemp()
    try:
        return attempt(directory, policy)
    finally:
        shutil.rmtree(directory)


@pytest.mark.parametrize("policy", POLICIES)
def test_what_is_compared(policy):
    assert [record.step for record in uninterrupted(policy)] == STEPS[policy]
    assert len({record.values for record in uninterrupted(policy)}) == len(
        STEPS[policy]
    )


@pytest.mark.parametrize(
    ("policy", "batch"), [("latest", 18), ("latest", 30), ("best", 21), ("final", 3)]
)
def test_killed_anywhere(policy, batch, tmp_path):
    assert attempt(tmp_path, policy, batch) is None
    assert attempt(tmp_path, policy) == uninterrupted(policy)


@pytest.mark.parametrize("policy", POLICIES)
def test_killed_between_export_and_checkpoint(policy, tmp_path, monkeypatch):
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
    assert versions(tmp_path) == before  # They were not written a second time.


@pytest.mark.parametrize("policy", POLICIES)
def test_killed_while_exporting(policy, tmp_path, monkeypatch):
    write = PreparedSavedModel.write

    def die(self, directory, further=None):
        if json.loads(further["keras_metagraph.json"])["step"] == 30:
            raise Killed
        write(self, directory, further)

    with monkeypatch.context() as patch:
        patch.setattr(PreparedSavedModel, "write", die)
        assert attempt(tmp_path, policy) is None
    assert not (tmp_path / "model-30.manifest").exists()
    assert attempt(tmp_path, policy) == uninterrupted(policy)


def test_best_value_is_remembered(tmp_path):
    """Improving again on what came before the kill is not enough."""
    arguments = {"monitor": "loss", "mode": "max", "save_freq": "epoch"}
    assert attempt(tmp_path, "best", 22, **arguments) is None
    found = attempt(tmp_path, "best", **arguments)
    assert [record.step for record in found] == [10]


def test_finished_run_exports_nothing_more(tmp_path):
    attempt(tmp_path, "final")
    before = versions(tmp_path)
    attempt(tmp_path, "final")
    assert versions(tmp_path) == before


@pytest.mark.filterwarnings("ignore:No SavedModel was written. no space")
def test_final_one_that_failed_is_made_up_for(tmp_path, monkeypatch):
    """The last checkpoint was written, the SavedModel before it was not."""

    def fail(self, directory, further=None):
        raise ExportError("no space")

    with monkeypatch.context() as patch:
        patch.setattr(PreparedSavedModel, "write", fail)
        attempt(tmp_path, "final", on_error="warn")
    assert (tmp_path / "model-30.manifest").exists()
    assert attempt(tmp_path, "final") == uninterrupted("final")


def versions(directory):
    return records(f"{directory}/export")


PROGRAM = """
import sys
from roundtrip.resume_program import train
_, directory, batch = sys.argv
train(
    "weights", directory, int(batch), by_signal=True, max_to_keep=4,
    saved_model_dir=directory + "/export", saved_model_policy="best",
)
"""


def test_killed_by_the_system(tmp_path):
    def run(batch):
        tests = Path(__file__).parents[1]
        package = Path(keras_metagraph.__file__).parents[1]
        return subprocess.run(
            [sys.executable, "-c", PROGRAM, tmp_path, str(batch)],
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
    assert exported(tmp_path) == uninterrupted("best")
    names = os.listdir(tmp_path / "export")
    assert sorted(map(int, names)) == list(versions(tmp_path))
