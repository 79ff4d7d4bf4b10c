import os
from pathlib import Path

import pytest

from keras_metagraph.conversion import staging
from keras_metagraph.conversion.staging import check_destination, staged, taken
from keras_metagraph.errors import ExportError


def names(directory):
    return sorted(os.listdir(directory))


def fill(directory, **files):
    for name, text in files.items():
        (directory / name.replace("_", ".")).write_text(text)


def write_meta_graph(path, text):
    for ending in (".data-00000-of-00001", ".index", ".manifest", ".meta"):
        Path(path + ending).write_text(text)


def write_saved_model(path):
    os.mkdir(path)
    Path(path, "saved_model.pb").write_text("new")


def test_what_was_written_is_put_in_place(tmp_path):
    destination = tmp_path / "new" / "model"

    with staged(str(destination), "meta_graph", force=False) as path:
        assert os.path.basename(path) == "model"
        write_meta_graph(path, "new")
        assert names(destination.parent) != [os.path.basename(path)]

    assert names(destination.parent) == [
        "model.data-00000-of-00001",
        "model.index",
        "model.manifest",
        "model.meta",
    ]


@pytest.mark.parametrize("kind", ["saved_model", "meta_graph", "keras"])
def test_an_error_leaves_nothing_and_changes_nothing(tmp_path, kind):
    fill(tmp_path, model="old", model_meta="old", other="old")
    before = names(tmp_path)

    def write():
        with staged(str(tmp_path / "model"), kind, force=True) as path:
            Path(path).write_text("half")
            raise KeyError("stop")

    with pytest.raises(KeyError, match="stop"):
        write()

    assert names(tmp_path) == before
    assert (tmp_path / "model").read_text() == "old"


def test_all_files_of_a_checkpoint_are_replaced(tmp_path):
    write_meta_graph(str(tmp_path / "model"), "old")
    fill(tmp_path, **{"model_data-00001-of-00002": "old", "model-2_meta": "kept"})

    with staged(str(tmp_path / "model"), "meta_graph", force=True) as path:
        write_meta_graph(path, "new")

    assert names(tmp_path) == [
        "model-2.meta",
        "model.data-00000-of-00001",
        "model.index",
        "model.manifest",
        "model.meta",
    ]
    assert (tmp_path / "model.meta").read_text() == "new"
    assert (tmp_path / "model-2.meta").read_text() == "kept"


def test_a_directory_is_replaced(tmp_path):
    write_saved_model(tmp_path / "model")
    fill(tmp_path / "model", stale="old")

    with staged(str(tmp_path / "model"), "saved_model", force=True) as path:
        write_saved_model(path)

    assert names(tmp_path) == ["model"]
    assert names(tmp_path / "model") == ["saved_model.pb"]


def test_a_failing_move_is_undone(tmp_path, monkeypatch):
    write_meta_graph(str(tmp_path / "model"), "old")
    rename = os.rename

    def failing(source, target):
        if target == str(tmp_path / "model.manifest") and "/new/" in source:
            raise OSError(28, "No space left on device")
        rename(source, target)

    def write():
        with staged(str(tmp_path / "model"), "meta_graph", force=True) as path:
            write_meta_graph(path, "new")

    monkeypatch.setattr(staging.os, "rename", failing)
    with pytest.raises(ExportError, match="No space left"):
        write()

    assert len(names(tmp_path)) == 4
    assert {p.read_text() for p in tmp_path.iterdir()} == {"old"}


def test_a_checkpoint_is_taken_by_any_of_its_files(tmp_path):
    fill(tmp_path, model_index="", model_manifest="", model2_meta="")

    found = taken(str(tmp_path / "model"), "meta_graph")

    assert [os.path.basename(p) for p in found] == ["model.manifest", "model.index"]
    with pytest.raises(ExportError, match="there already") as caught:
        check_destination(str(tmp_path / "model"), "meta_graph", force=False)
    assert len(caught.value.findings) == 2


def test_only_what_looks_like_it_is_replaced(tmp_path):
    (tmp_path / "home").mkdir()
    fill(tmp_path / "home", thesis="kept")
    (tmp_path / "empty").mkdir()
    (tmp_path / "file").touch()

    def check(name, kind):
        check_destination(str(tmp_path / name), kind, force=True)

    check("empty", "saved_model")
    check("file", "keras")
    for name, kind in (
        ("home", "saved_model"),
        ("home", "keras"),
        ("file", "saved_model"),
    ):
        with pytest.raises(ExportError, match="not replaced"):
            check(name, kind)
    (tmp_path / "link").symlink_to(tmp_path / "empty")
    with pytest.raises(ExportError, match="not replaced"):
        check("link", "saved_model")
