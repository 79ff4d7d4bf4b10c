"""Finding a graph and its checkpoint from whatever path a user has."""

import os
import shutil
import threading
from pathlib import Path

import pytest
import tensorflow as tf

from keras_metagraph.checkpoint import commit, durable
from keras_metagraph.checkpoint.restore import open_checkpoint
from keras_metagraph.errors import DuplicateHandlerError, FormatError, SignatureError
from keras_metagraph.formats import LAYOUTS, Export, open_export
from oracle.references import FIXTURES

v1 = tf.compat.v1

MLP = FIXTURES / "zoo" / "mlp_adam"
V1_FILE = FIXTURES / "zoo" / "v1_checkpoint"
TEXT = FIXTURES / "zoo" / "text_meta"
MULTI = FIXTURES / "zoo" / "savedmodel_builder_multi" / "saved_model"


@pytest.fixture
def run(tmp_path):
    """A copy of a directory with one V2 checkpoint, `model-20`."""
    folder = tmp_path / "run"
    shutil.copytree(MLP, folder)
    return folder


def _copy_step(folder: Path, step: int, of: str = "model-20") -> None:
    """Copies a checkpoint to another step."""
    for path in folder.glob(f"{of}.*"):
        shutil.copy(path, folder / path.name.replace(of, f"model-{step}"))


def _remove_data(folder: Path, name: str) -> None:
    for path in folder.glob(f"{name}.data-*"):
        path.unlink()


def _write_manifest(folder: Path, step: int) -> None:
    records = {
        path.name: durable.record_file(str(path)) for path in folder.glob(f"*-{step}.*")
    }
    manifest = commit.Manifest(f"model-{step}", step, 0.0, {}, records, {})
    (folder / f"model-{step}.manifest").write_text(manifest.to_json())


def _state(folder: Path, latest: str, *others: str) -> None:
    lines = [f"model_checkpoint_path: {latest}"]
    lines += [f"all_model_checkpoint_paths: {name}" for name in (*others, latest)]
    (folder / "checkpoint").write_text("\n".join(lines) + "\n")


def _prefix(export: Export) -> str:
    """The checkpoint's base name, after its values were read."""
    assert open_checkpoint(export.checkpoint).keys()
    return os.path.basename(export.checkpoint)


class TestPrefix:
    @pytest.mark.parametrize("ending", ["", ".meta", ".index", ".data-00000-of-00001"])
    def test_any_file_of_a_checkpoint(self, run, ending):
        export = open_export(run / f"model-20{ending}")
        assert export.kind == "meta_graph"
        assert export.path == str(run / "model-20.meta")
        assert _prefix(export) == "model-20"
        assert len(export.meta_graphs) == 1
        assert export.select() is export.meta_graphs[0]
        assert export.note == ""

    @pytest.mark.parametrize("ending", ["", ".meta"])
    def test_v1_checkpoint(self, ending):
        export = open_export(V1_FILE / f"model-20{ending}")
        assert export.path.endswith("model-20.meta")
        assert _prefix(export) == "model-20"

    def test_text_in_a_meta_file(self):
        export = open_export(TEXT / "model-20.meta")
        assert export.select().graph_def.node
        assert _prefix(export) == "model-20"

    @pytest.mark.parametrize("ending", [".pbtxt", ".meta.pbtxt"])
    def test_text_file(self, tmp_path, ending):
        shutil.copytree(TEXT, tmp_path / "run")
        text = tmp_path / "run" / f"model-20{ending}"
        os.rename(tmp_path / "run" / "model-20.meta", text)
        for path in (text, tmp_path / "run" / "model-20", tmp_path / "run"):
            export = open_export(path)
            assert export.path == str(text)
            assert _prefix(export) == "model-20"

    @pytest.mark.parametrize("base", ["", "-7", "checkpoints", "a b", "m[1]"])
    @pytest.mark.parametrize("ending", ["", ".meta"])
    def test_odd_base_names(self, tmp_path, base, ending):
        for path in MLP.glob("model-20.*"):
            name = path.name.replace("model-20", base, 1)
            shutil.copy(path, tmp_path / name)
        export = open_export(f"{tmp_path}/{base}{ending}")
        assert export.path == f"{tmp_path}/{base}.meta"
        assert export.checkpoint == f"{tmp_path}/{base}"
        assert open_checkpoint(export.checkpoint).keys()

    def test_relative_path(self, run, monkeypatch):
        monkeypatch.chdir(run)
        assert _prefix(open_export("model-20")) == "model-20"

    def test_prefix_of_a_shard_pattern(self, tmp_path):
        shutil.copy(V1_FILE / "model-20.meta", tmp_path / "export.meta")
        shutil.copy(V1_FILE / "model-20", tmp_path / "export-00000-of-00001")
        paths = ["export", "export.meta", "export-?????-of-00001"]
        for name in [*paths, "export-00000-of-00001"]:
            export = open_export(tmp_path / name)
            assert _prefix(export) == "export-?????-of-00001"
        assert _prefix(open_export(tmp_path)) == "export-?????-of-00001"

    def test_directory_of_the_same_name_as_a_prefix(self, run):
        (run / "model-20").mkdir()
        assert _prefix(open_export(run / "model-20")) == "model-20"

    def test_graph_without_checkpoint(self, run):
        for path in [*run.glob("*.data-*"), *run.glob("*.index")]:
            path.unlink()
        export = open_export(run / "model-20")
        assert export.checkpoint is None
        assert export.note == ""

    @pytest.mark.parametrize("pattern", ["*.data-*", "*.index"])
    def test_part_of_a_checkpoint_is_noted(self, run, pattern):
        for path in run.glob(pattern):
            path.unlink()
        export = open_export(run / "model-20.meta")
        assert export.checkpoint is None
        assert "model-20" in export.note

    def test_missing_shard_is_noted(self, tmp_path):
        shutil.copy(V1_FILE / "model-20.meta", tmp_path / "export.meta")
        shutil.copy(V1_FILE / "model-20", tmp_path / "export-00000-of-00002")
        export = open_export(tmp_path / "export")
        assert export.checkpoint is None
        assert "shards" in export.note

    def test_missing_data_file_is_noted(self, run):
        data = "model-20.data-00000-of-00001"
        os.rename(run / data, run / "model-20.data-00000-of-00002")
        export = open_export(run / "model-20")
        assert export.checkpoint is None
        assert "not all its data files" in export.note

    def test_version_strings_can_be_parsed(self, run):
        path = run / "model-20.meta"
        meta_graph_def = v1.MetaGraphDef.FromString(path.read_bytes())
        for written, read in {
            "0.12.head": "0.12",
            "1.15.5": "1.15.5",
            "1.14.0-rc0": "1.14.0-rc0",
            "2.9.0-dev20220227": "2.9.0-dev20220227",
            "1.4.0+nv": "1.4.0+nv",
            "unknown": "",
        }.items():
            meta_graph_def.meta_info_def.tensorflow_version = written
            path.write_bytes(meta_graph_def.SerializeToString())
            assert open_export(path).select().meta_info_def.tensorflow_version == read


class TestDirectory:
    def test_takes_what_the_state_file_says(self, run):
        _copy_step(run, 30)
        _state(run, '"model-20"')
        assert _prefix(open_export(run)) == "model-20"
        assert _prefix(open_export(f"{run}/")) == "model-20"

    @pytest.mark.parametrize(
        "written",
        ['"/home/me/run/model-20"', r'"C:\\work\\run\\model-20"', '"../model-20"'],
    )
    def test_paths_of_another_machine(self, run, written):
        _copy_step(run, 30)
        _state(run, written)
        assert _prefix(open_export(run)) == "model-20"

    def test_does_not_leave_the_directory(self, run, tmp_path):
        shutil.copytree(run, tmp_path / "other")
        _copy_step(run, 30)
        for path in run.glob("model-20.*"):
            path.unlink()
        _state(run, f'"{tmp_path}/other/model-20"')
        with pytest.warns(UserWarning, match="model-30"):
            assert _prefix(open_export(run)) == "model-30"

    @pytest.mark.parametrize("content", [None, "", "garbage {", "\x00\xff"])
    def test_takes_the_highest_step_without_a_state_file(self, run, content):
        _copy_step(run, 100)
        _copy_step(run, 9)
        (run / "checkpoint").unlink()
        if content is not None:
            (run / "checkpoint").write_text(content)
        assert _prefix(open_export(run)) == "model-100"

    def test_takes_the_next_complete_one_and_says_so(self, run):
        _copy_step(run, 30)
        _copy_step(run, 40)
        _remove_data(run, "model-40")
        (run / "model-30.meta").unlink()
        _state(run, '"model-40"', '"model-20"', '"model-30"')
        with pytest.warns(UserWarning, match=r"model-40.*model-20"):
            assert _prefix(open_export(run)) == "model-20"

    def test_step_0_is_newer_than_no_step(self, run):
        _copy_step(run, 0)
        for path in run.glob("model-20.*"):
            os.rename(path, run / path.name.replace("model-20", "model"))
        (run / "checkpoint").unlink()
        assert _prefix(open_export(run)) == "model-0"

    def test_valid_manifest_comes_before_the_state_file(self, run):
        for step in (30, 40):
            _copy_step(run, step)
            _write_manifest(run, step)
        _copy_step(run, 50)
        _state(run, '"model-20"')
        assert _prefix(open_export(run)) == "model-40"
        os.truncate(run / "model-40.meta", 100)
        assert _prefix(open_export(run)) == "model-30"
        (run / "model-30.meta").unlink()
        assert _prefix(open_export(run)) == "model-20"

    def test_state_file_of_another_run(self, run):
        _state(run, '"lenet"')
        with pytest.warns(UserWarning, match="lenet"):
            assert _prefix(open_export(run)) == "model-20"

    def test_unrelated_checkpoints_are_not_guessed_between(self, run):
        for path in run.glob("model-20.*"):
            shutil.copy(path, run / path.name.replace("model", "other"))
        (run / "checkpoint").unlink()
        with pytest.raises(FormatError, match="several") as caught:
            open_export(run)
        assert caught.value.findings == (str(run / "model-20"), str(run / "other-20"))

    def test_a_single_graph_without_checkpoint(self, run):
        _remove_data(run, "model-20")
        export = open_export(run)
        assert export.checkpoint is None
        assert "data files" in export.note

    def test_lists_what_is_incomplete(self, run):
        _copy_step(run, 30)
        _remove_data(run, "model-20")
        (run / "model-30.index").unlink()
        with pytest.raises(FormatError, match="no complete checkpoint") as caught:
            open_export(run)
        assert len(caught.value.findings) == 2

    def test_checkpoint_without_graph(self, run):
        (run / "model-20.meta").unlink()
        with pytest.raises(FormatError, match=r"no \.meta"):
            open_export(run)

    def test_directory_of_exports_names_them(self, tmp_path):
        shutil.copytree(MULTI, tmp_path / "1555")
        with pytest.raises(FormatError) as caught:
            open_export(tmp_path)
        assert caught.value.findings == (str(tmp_path / "1555"),)

    def test_empty_directory(self, tmp_path):
        with pytest.raises(FormatError, match="neither"):
            open_export(tmp_path)


class TestSavedModel:
    @pytest.mark.parametrize("path", [MULTI, MULTI / "saved_model.pb", f"{MULTI}/"])
    def test_opens_all_graphs(self, path):
        export = open_export(path)
        assert export.kind == "saved_model"
        tags = [sorted(m.meta_info_def.tags) for m in export.meta_graphs]
        assert tags == [["train"], ["serve"], ["gpu", "serve"]]
        assert _prefix(export) == "variables"
        assert export.assets_directory == str(MULTI / "assets")

    def test_selects_by_tags(self):
        export = open_export(MULTI)
        assert export.select() is export.meta_graphs[1]
        assert export.select("train") is export.meta_graphs[0]
        assert export.select(["gpu", "serve"]) is export.meta_graphs[2]

    @pytest.mark.parametrize("tags", ["eval", ["gpu"], []])
    def test_unknown_tags_list_those_there_are(self, tags):
        with pytest.raises(SignatureError) as caught:
            open_export(MULTI).select(tags)
        assert caught.value.findings == ("['train']", "['serve']", "['gpu', 'serve']")

    def test_graph_without_tags_where_none_serves(self):
        export = open_export(
            FIXTURES / "saved_models" / "1.15.5" / "hub" / "saved_model"
        )
        tags = [list(m.meta_info_def.tags) for m in export.meta_graphs]
        assert tags == [[], ["train"]]
        assert export.select() is export.meta_graphs[0]

    def test_the_only_graph_needs_no_tags(self):
        export = open_export(FIXTURES / "versions" / "1.4.0" / "savedmodel_predict")
        assert export.select() is export.meta_graphs[0]

    def test_text_form(self, tmp_path):
        from google.protobuf import text_format
        from tensorflow.core.protobuf.saved_model_pb2 import SavedModel

        shutil.copytree(MULTI, tmp_path / "model")
        binary = tmp_path / "model" / "saved_model.pb"
        text = text_format.MessageToString(SavedModel.FromString(binary.read_bytes()))
        (tmp_path / "model" / "saved_model.pbtxt").write_text(text)
        binary.unlink()
        export = open_export(tmp_path / "model")
        assert export.meta_graphs == open_export(MULTI).meta_graphs
        assert _prefix(export) == "variables"

    def test_without_variables(self, tmp_path):
        shutil.copy(MULTI / "saved_model.pb", tmp_path)
        export = open_export(tmp_path)
        assert export.checkpoint is None
        assert export.assets_directory is None

    def test_in_chunks(self, tmp_path):
        (tmp_path / "saved_model.cpb").write_bytes(b"")
        with pytest.raises(FormatError, match="chunks"):
            open_export(tmp_path)

    def test_assets_that_lead_out(self, tmp_path):
        shutil.copy(MULTI / "saved_model.pb", tmp_path)
        (tmp_path / "assets").symlink_to("/etc")
        assert open_export(tmp_path).assets_directory is None


class TestNothingThere:
    @pytest.mark.parametrize("name", ["modle-20", "model-2", "modle-20.meta"])
    def test_names_the_nearest(self, run, name):
        with pytest.raises(FormatError, match="nearest: model-20"):
            open_export(run / name)

    def test_no_directory(self, tmp_path):
        with pytest.raises(FormatError, match="There is no"):
            open_export(tmp_path / "no" / "model")

    @pytest.mark.parametrize("path", ["", "a\0b"])
    def test_no_path(self, path):
        with pytest.raises(FormatError, match="Expected the path"):
            open_export(path)

    def test_checkpoint_whose_graph_is_gone(self, run):
        _copy_step(run, 30)
        (run / "model-20.meta").unlink()
        with pytest.raises(FormatError, match="has no graph") as caught:
            open_export(run / "model-20")
        assert caught.value.findings == (str(run / "model-30.meta"),)


class TestNamesThatDiffer:
    """A graph that was written once, for all checkpoints."""

    @pytest.fixture
    def facenet(self, tmp_path):
        """`net.meta`, and checkpoints `net.ckpt-9` and `net.ckpt-20`."""
        folder = tmp_path / "net"
        folder.mkdir()
        shutil.copy(MLP / "model-20.meta", folder / "net.meta")
        for step in (9, 20):
            for path in MLP.glob("model-20.[id]*"):
                name = path.name.replace("model-20", f"net.ckpt-{step}")
                shutil.copy(path, folder / name)
        return folder

    @pytest.mark.parametrize("path", ["", "net", "net.meta", "net.ckpt-20"])
    @pytest.mark.parametrize("stated", [True, False])
    def test_any_path(self, facenet, path, stated):
        if stated:
            _state(facenet, '"net.ckpt-20"')
        with pytest.warns(UserWarning, match=r"of its own name: .* is taken"):
            export = open_export(facenet / path)
        assert export.path == str(facenet / "net.meta")
        assert _prefix(export) == "net.ckpt-20"

    def test_the_checkpoint_that_is_named(self, facenet):
        _state(facenet, '"net.ckpt-9"')
        for path, name in (("net.ckpt-20", "net.ckpt-20"), ("net.meta", "net.ckpt-9")):
            with pytest.warns(UserWarning, match="of its own name"):
                assert _prefix(open_export(facenet / path)) == name

    def test_checkpoints_of_several_names_are_not_guessed_between(self, facenet):
        for path in facenet.glob("net.ckpt-9.*"):
            os.rename(path, facenet / path.name.replace("net", "other"))
        export = open_export(facenet / "net.meta")
        assert export.checkpoint is None
        assert "net.ckpt-20, other.ckpt-9" in export.note

    def test_checkpoint_with_a_graph_of_its_own_is_not_taken(self, run):
        (run / "graph.meta").write_bytes((run / "model-20.meta").read_bytes())
        assert open_export(run / "graph.meta").checkpoint is None
        assert open_export(run / "model-20").path == str(run / "model-20.meta")

    def test_graph_of_an_earlier_step(self, run):
        _copy_step(run, 30)
        _copy_step(run, 10)
        (run / "model-30.meta").unlink()
        with pytest.warns(UserWarning, match=r"model-30.*model-20\.meta"):
            assert _prefix(open_export(run / "model-30")) == "model-30"
        _state(run, '"model-30"', '"model-20"')
        with pytest.warns(UserWarning, match=r"model-30.*model-20\.meta"):
            assert _prefix(open_export(run)) == "model-30"

    def test_what_is_no_meta_graph_is_not_taken(self, facenet):
        os.rename(facenet / "net.meta", facenet / "labels.pbtxt")
        with pytest.raises(FormatError, match="has no graph"):
            open_export(facenet / "net.ckpt-20")


@pytest.mark.timeout(20)
class TestNoRegularFile:
    def _open(self, path):
        """Opens in a thread, so that a hang fails the test and not the run."""
        caught = []

        def target():
            try:
                open_export(path)
            except FormatError as error:
                caught.append(error)

        thread = threading.Thread(target=target, daemon=True)
        thread.start()
        thread.join(10)
        return caught

    @pytest.mark.parametrize("name", ["model.meta", "saved_model.pb"])
    def test_pipe(self, tmp_path, name):
        os.mkfifo(tmp_path / name)
        assert "regular" in str(self._open(tmp_path / name)[0])

    def test_pipe_as_state_file(self, run):
        (run / "checkpoint").unlink()
        os.mkfifo(run / "checkpoint")
        assert _prefix(open_export(run)) == "model-20"

    def test_directory_as_graph(self, tmp_path):
        (tmp_path / "model.meta").mkdir()
        (tmp_path / "model.index").write_bytes(b"")
        assert len(self._open(tmp_path / "model")) == 1

    def test_device(self, tmp_path):
        (tmp_path / "model.meta").symlink_to("/dev/zero")
        assert "regular" in str(self._open(tmp_path / "model.meta")[0])


class TestRegistry:
    class Layout:
        name = "mine"

        def recognizes(self, path):
            return path.endswith(".mine")

        def open(self, path):
            return Export(path, "meta_graph", [])

    def test_layouts_of_a_child_do_not_leak(self):
        child = LAYOUTS.child()
        child.register(self.Layout())
        assert child.open("model.mine").path == "model.mine"
        assert child.open(MULTI).kind == "saved_model"
        with pytest.raises(FormatError):
            LAYOUTS.open("model.mine")

    def test_names_are_unique(self):
        child = LAYOUTS.child()
        child.register(self.Layout())
        with pytest.raises(DuplicateHandlerError, match="mine"):
            child.register(self.Layout())


def test_every_export_of_the_corpus_opens(corpus):
    for folder in sorted(path for path in corpus.iterdir() if path.is_dir()):
        if folder.name.startswith("h5-"):
            continue
        meta = next(iter(sorted(folder.glob("*.meta"))), folder)
        export = open_export(meta)
        assert export.meta_graphs[0].graph_def.node
        if folder.name.startswith("GO-"):
            assert export.checkpoint is None
        elif list(folder.rglob("*.index")) or not list(folder.glob("saved_model.pb*")):
            assert open_checkpoint(export.checkpoint).keys()
