"""Files that are damaged, too large, or something else."""

import gzip
import pickle
import zipfile

import h5py
import pytest
import tensorflow as tf
from google.protobuf import text_format
from tensorflow.core.protobuf.saved_model_pb2 import SavedModel

from keras_metagraph.errors import FormatError
from keras_metagraph.formats import protos
from keras_metagraph.formats.protos import read_meta_graph, read_saved_model
from oracle.references import FIXTURES

v1 = tf.compat.v1

META = FIXTURES / "zoo" / "mlp_adam" / "model-20.meta"
SAVED_MODEL = FIXTURES / "zoo" / "image_serving" / "saved_model" / "saved_model.pb"


@pytest.fixture
def file(tmp_path):
    """Writes bytes or text to a file, and returns its path."""

    def write(content, name="model.meta"):
        path = tmp_path / name
        if isinstance(content, str):
            content = content.encode()
        path.write_bytes(content)
        return str(path)

    return write


@pytest.fixture(scope="module")
def meta_graph_def():
    return v1.MetaGraphDef.FromString(META.read_bytes())


def _refusal(path, read=read_meta_graph):
    with pytest.raises(FormatError) as caught:
        read(path)
    assert caught.value.problem.startswith(repr(path))
    assert caught.value.fix
    return caught.value.problem


class TestOtherFiles:
    @pytest.mark.parametrize(
        ("content", "phrase"),
        [
            (b"", "an empty file"),
            (b"\n \n", "text of another kind"),
            ("version https://git-lfs.github.com/spec/v1\noid sha256:4d7a", "Git LFS"),
            ("<!DOCTYPE html><html></html>", "a web page"),
            ('{"a": 1}', "JSON"),
            ('model_checkpoint_path: "model-1"\n', "state file"),
            (gzip.compress(b"text", mtime=0), "gzip"),
            (pickle.dumps([1]), "pickle"),
            (b"\x89HDF\r\n\x1a\n" + bytes(100), "HDF5"),
            (bytes(range(1, 256)), "binary data"),
            ("hello: world {", "text of another kind"),
        ],
    )
    def test_says_what_it_seems_to_be(self, file, content, phrase):
        assert f"It seems to be {phrase}" in _refusal(file(content)) or phrase in (
            _refusal(file(content))
        )

    def test_keras_files(self, tmp_path):
        path = tmp_path / "model.h5"
        h5py.File(path, "w").close()
        assert "HDF5" in _refusal(str(path))
        path = tmp_path / "model.keras"
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("config.json", "{}")
        assert ".keras" in _refusal(str(path))

    def test_frozen_graph(self, file, meta_graph_def):
        graph_def = meta_graph_def.graph_def
        problem = _refusal(file(graph_def.SerializeToString()))
        assert f"a frozen GraphDef of {len(graph_def.node)} nodes" in problem

    def test_graph_in_text_form(self, file, meta_graph_def):
        text = text_format.MessageToString(meta_graph_def.graph_def)
        assert "a GraphDef in text form" in _refusal(file(text, "graph.pbtxt"))

    def test_saved_model_in_the_place_of_a_meta_graph(self, file):
        assert "SavedModel directory" in _refusal(file(SAVED_MODEL.read_bytes()))

    def test_meta_graph_in_the_place_of_a_saved_model(self, file):
        path = file(META.read_bytes(), "saved_model.pb")
        assert "no SavedModel" in _refusal(path, read_saved_model)

    def test_checkpoint(self):
        index = META.with_name("model-20.index")
        assert "a part of a checkpoint" in _refusal(str(index))

    def test_graph_without_nodes_is_a_graph(self, file):
        meta_graph_def = v1.MetaGraphDef()
        meta_graph_def.graph_def.versions.producer = 27
        read = read_meta_graph(file(meta_graph_def.SerializeToString()))
        assert read.graph_def.versions.producer == 27

    def test_proto_without_graph(self, file):
        meta_graph_def = v1.MetaGraphDef()
        meta_graph_def.meta_info_def.tags.append("serve")
        path = file(meta_graph_def.SerializeToString())
        assert "it holds no graph" in _refusal(path)
        path = file(SavedModel(saved_model_schema_version=1).SerializeToString())
        assert "it holds no graph" in _refusal(path, read_saved_model)

    @pytest.mark.parametrize("node", [{"name": "a"}, {"op": "NoOp"}])
    def test_proto_that_only_looks_like_a_graph(self, file, node):
        meta_graph_def = v1.MetaGraphDef()
        meta_graph_def.graph_def.node.add(**node)
        path = file(meta_graph_def.SerializeToString())
        assert "it holds no graph" in _refusal(path)

    def test_missing_file(self, tmp_path):
        assert "No such file" in _refusal(str(tmp_path / "no.meta"))


class TestTruncated:
    def test_binary(self, file):
        content = META.read_bytes()
        for length in range(0, len(content) - 1, max(1, len(content) // 97)):
            path = file(content[:length])
            try:
                read = read_meta_graph(path)
            except FormatError:
                continue
            # Cut between two fields of the message: all of it that is left is whole.
            assert read.SerializeToString(deterministic=True)

    def test_says_how_much_is_missing(self, file):
        content = META.read_bytes()
        problem = _refusal(file(content[: len(content) // 2]))
        assert "a truncated MetaGraphDef" in problem

    def test_frozen_graph(self, file, meta_graph_def):
        content = meta_graph_def.graph_def.SerializeToString()
        assert "GraphDef" in _refusal(file(content[: len(content) // 2]))

    def test_text(self, file):
        text = (FIXTURES / "zoo" / "text_meta" / "model-20.meta").read_text()
        problem = _refusal(file(text[: len(text) // 2]))
        assert "a MetaGraphDef in text form, damaged or truncated" in problem

    def test_saved_model(self, file):
        content = SAVED_MODEL.read_bytes()
        path = file(content[: len(content) // 2], "saved_model.pb")
        _refusal(path, read_saved_model)


class TestText:
    def test_unknown_fields_are_passed_over(self, file):
        path = file('graph_def { node { name: "a" op: "NoOp" later: 7 } } newer: "x"')
        assert read_meta_graph(path).graph_def.node[0].name == "a"

    def test_comments_before_the_first_field(self, file):
        path = file('# a comment\n\n graph_def { node { name: "a" op: "NoOp" } }')
        assert read_meta_graph(path).graph_def.node[0].op == "NoOp"

    def test_nesting_beyond_all_bounds(self, file):
        depth = 5000
        text = "graph_def { node { attr { key: 'a' value { " + (
            "func { attr { key: 'a' value { " * depth + "} } } " * depth + "} } } }"
        )
        assert "no MetaGraphDef" in _refusal(file(text))

    def test_binary_nesting_beyond_all_bounds(self, file):
        value = v1.AttrValue(i=1)
        for _ in range(60):
            outer = v1.AttrValue()
            outer.func.attr["a"].CopyFrom(value)
            value = outer
        meta_graph_def = v1.MetaGraphDef()
        node = meta_graph_def.graph_def.node.add(name="a", op="NoOp")
        node.attr["a"].CopyFrom(value)
        assert "no MetaGraphDef" in _refusal(file(meta_graph_def.SerializeToString()))


class TestTooLarge:
    def test_bytes(self, file):
        path = file(META.read_bytes())
        with pytest.raises(FormatError, match="more than 1000"):
            read_meta_graph(path, max_bytes=1000)

    def test_sparse_file_is_not_read(self, tmp_path):
        path = tmp_path / "model.meta"
        with open(path, "wb") as file:
            file.truncate(2**33)
        assert "8589934592" in _refusal(str(path))

    def test_empty_nodes(self, file, monkeypatch):
        monkeypatch.setattr(protos, "MAX_PARTS", 1000)
        nodes = b"\x0a\x00" * 1001
        content = b"\x12" + bytes([0xD2, 0x0F]) + nodes
        assert len(nodes) == 2002
        assert v1.MetaGraphDef.FromString(content).graph_def.node
        assert "more than 1,000 nodes" in _refusal(file(content))

    @pytest.mark.parametrize("where", ["functions", "bodies", "collections"])
    def test_other_parts(self, file, monkeypatch, where):
        monkeypatch.setattr(protos, "MAX_PARTS", 100)
        meta_graph_def = v1.MetaGraphDef()
        library = meta_graph_def.graph_def.library
        for number in range(101):
            if where == "functions":
                library.function.add()
            elif where == "bodies":
                (library.function or [library.function.add()])[0].node_def.add()
            else:
                meta_graph_def.collection_def[str(number)].SetInParent()
        assert "more than" in _refusal(file(meta_graph_def.SerializeToString()))

    def test_text(self, file, monkeypatch):
        monkeypatch.setattr(protos, "MAX_PARTS", 100)
        assert "more than" in _refusal(file("graph_def { " + "node { }" * 101 + "}"))
