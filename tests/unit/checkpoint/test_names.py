import hypothesis
import pytest
from hypothesis import strategies

from keras_metagraph.checkpoint import names
from keras_metagraph.errors import CheckpointError


def test_step_is_appended_as_saver_does():
    assert names.step_prefix("run/model.ckpt", 120) == "run/model.ckpt-120"
    assert names.step_prefix("run/model", None) == "run/model"


@pytest.mark.parametrize(
    "filepath",
    ["", "run/", ".", "run/..", "run/checkpoint", "gs://bucket/model", "run/a\nb"],
)
def test_paths_that_are_no_prefix_are_refused(filepath):
    with pytest.raises(CheckpointError, match="To fix:"):
        names.step_prefix(filepath, 1)


def test_base_name_like_a_shard_is_refused():
    with pytest.raises(CheckpointError, match="shard"):
        names.check_filepath("run/model-1-of-2")


def test_negative_step_is_refused():
    with pytest.raises(CheckpointError, match="global_step=-1"):
        names.step_prefix("run/model", -1)


@pytest.mark.parametrize(
    ("prefix", "parts"),
    [
        ("run/model-120", ("run/model", 120)),
        ("run-3/model", ("run-3/model", None)),
        ("model-x", ("model-x", None)),
        ("model-1-2", ("model-1", 2)),
    ],
)
def test_step_is_split_off(prefix, parts):
    assert names.split_step(prefix) == parts


@hypothesis.given(
    base=strategies.text(
        strategies.characters(exclude_characters="\n\0/:"), min_size=1
    ),
    step=strategies.integers(0, 2**63),
)
def test_split_undoes_append(base, step):
    hypothesis.assume(base not in (".", "..", "checkpoint"))
    try:
        prefix = names.step_prefix(f"run/{base}", step)
    except CheckpointError:
        hypothesis.reject()
    assert names.split_step(prefix) == (f"run/{base}", step)


def test_meta_of_shards_has_no_shard():
    assert names.meta_path("exp/export-?????-of-00001") == "exp/export.meta"
    assert names.meta_path("exp/export-00000-of-00001") == "exp/export.meta"
    assert names.meta_path("run/model-120") == "run/model-120.meta"


def test_files_know_their_prefix():
    prefix = "run/model-7"
    for path in (
        names.meta_path(prefix),
        names.index_path(prefix),
        names.data_path(prefix, 3, 12),
        names.manifest_path(prefix),
    ):
        assert names.prefix_of(path) == prefix
        assert names.is_file_of(path.removeprefix("run/"), prefix)
    assert names.prefix_of(prefix) == prefix


@pytest.mark.parametrize(
    "name", ["model-70.meta", "model-7", "model-7.meta.bak", "model-7.data-0-of-1", "x"]
)
def test_other_files_are_not_of_the_prefix(name):
    assert not names.is_file_of(name, "run/model-7")


@pytest.mark.parametrize(
    ("entry", "base"),
    [
        ("model-1", "model-1"),
        ("/home/someone/run/model-1", "model-1"),
        ("C:\\run\\model-1", "model-1"),
        ("../../etc/model-1", "model-1"),
        ("run/..", None),
        ("", None),
        ("run/", None),
        ("checkpoint", None),
        ("a\0b", None),
    ],
)
def test_state_entries_are_confined_to_their_directory(entry, base):
    assert names.confine(entry) == base
