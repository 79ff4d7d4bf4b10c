"""Tables of asset files, against what TensorFlow itself looked up in them."""

import numpy as np
import pytest
import tensorflow as tf
from tensorflow.core.protobuf import meta_graph_pb2, saved_model_pb2

from keras_metagraph.errors import FormatError, UntrustedContentError
from keras_metagraph.graph.from_proto import graph_from_proto
from keras_metagraph.graph.passes import repair
from keras_metagraph.inspect import inspect_meta_graph
from keras_metagraph.loading.api import load_from_meta_graph
from keras_metagraph.loading.vocabularies import inline_named_files, inline_vocabularies
from keras_metagraph.session.executor import SessionExecutor

v1 = tf.compat.v1
WORDS = np.array([b"cat", b"dog", b"fish", b"nothing"])
WHOLE_LINE = tf.lookup.TextFileIndex.WHOLE_LINE
LINE_NUMBER = tf.lookup.TextFileIndex.LINE_NUMBER


class Saved:
    """A SavedModel with one table of an asset, and what its lookups gave."""

    def __init__(self, folder, **settings):
        source = folder / "words.txt"
        source.write_text("cat\t7\ndog\t8\nfish\t9\n")
        self.export = folder / "export"
        with tf.Graph().as_default() as graph, v1.Session(graph=graph) as session:
            keys = v1.placeholder(tf.string, [None], "keys")
            initializer = tf.lookup.TextFileInitializer(str(source), **settings)
            values = v1.lookup.StaticHashTable(initializer, -1).lookup(keys)
            session.run(v1.tables_initializer())
            self.expected = session.run(values, {keys: WORDS})
            builder = v1.saved_model.Builder(str(self.export))
            builder.add_meta_graph_and_variables(
                session,
                ["serve"],
                assets_collection=v1.get_collection(v1.GraphKeys.ASSET_FILEPATHS),
                main_op=v1.tables_initializer(),
            )
            builder.save()
        self.tensor = values.name
        data = (self.export / "saved_model.pb").read_bytes()
        self.meta_graph_def = saved_model_pb2.SavedModel.FromString(data).meta_graphs[0]

    def inline(self):
        return inline_vocabularies(self.meta_graph_def, str(self.export / "assets"))

    def lookup(self, meta_graph_def):
        graph = repair(graph_from_proto(meta_graph_def.graph_def))
        return SessionExecutor(graph, {}).run(self.tensor, {"keys:0": WORDS})


COLUMNS = {
    "key_dtype": tf.string,
    "key_index": 0,
    "value_dtype": tf.int64,
    "value_index": 1,
}


@pytest.mark.parametrize(
    "settings",
    [
        COLUMNS,
        COLUMNS | {"vocab_size": 2},
        COLUMNS | {"value_index": LINE_NUMBER},
        COLUMNS | {"key_index": WHOLE_LINE, "value_index": LINE_NUMBER},
    ],
)
def test_table_gives_what_it_gave(tmp_path, settings):
    saved = Saved(tmp_path, **settings)
    np.testing.assert_array_equal(saved.lookup(saved.inline()), saved.expected)


def test_nothing_else_of_the_graph_changes(tmp_path):
    saved = Saved(tmp_path, **COLUMNS)
    before = {node.name: node for node in saved.meta_graph_def.graph_def.node}
    after = {node.name: node for node in saved.inline().graph_def.node}
    changed = [name for name in before if before[name] != after[name]]
    assert [before[name].op for name in changed] == ["InitializeTableFromTextFileV2"]


def test_file_outside_of_the_assets_is_not_read(tmp_path):
    saved = Saved(tmp_path, **COLUMNS)
    (tmp_path / "export" / "secret.txt").write_text("cat\t1\n")
    packed = saved.meta_graph_def.collection_def["saved_model_assets"].any_list.value[0]
    asset = meta_graph_pb2.AssetFileDef()
    packed.Unpack(asset)
    asset.filename = "../secret.txt"
    packed.Pack(asset)
    with pytest.raises(UntrustedContentError, match=r"\.\./secret\.txt"):
        saved.inline()


def test_missing_asset_is_named(tmp_path):
    saved = Saved(tmp_path, **COLUMNS)
    (saved.export / "assets" / "words.txt").unlink()
    with pytest.raises(FormatError, match=r"words\.txt"):
        saved.inline()


def test_file_that_is_no_asset_is_refused_when_the_table_is_used(tmp_path):
    saved = Saved(tmp_path, **COLUMNS)
    del saved.meta_graph_def.collection_def["saved_model_assets"]
    with pytest.raises(UntrustedContentError):
        saved.lookup(saved.inline())


class Trained:
    """A checkpoint with a table of a file that the program had elsewhere."""

    def __init__(self, folder, name="words.txt"):
        self.source = folder / "program" / name
        self.source.parent.mkdir()
        self.source.write_text("cat\ndog\nfish\n")
        self.prefix = str(folder / "run" / "model")
        with tf.Graph().as_default() as graph, v1.Session(graph=graph) as session:
            words = v1.placeholder(tf.string, [None], "words")
            initializer = tf.lookup.TextFileInitializer(
                str(self.source), tf.string, WHOLE_LINE, tf.int64, LINE_NUMBER
            )
            ids = v1.lookup.StaticHashTable(initializer, 3).lookup(words)
            embedding = v1.get_variable("embedding", [4, 2], use_resource=False)
            vectors = tf.gather(embedding, ids, name="vectors")
            session.run([v1.global_variables_initializer(), v1.tables_initializer()])
            self.expected = session.run(vectors, {words: WORDS})
            v1.train.Saver().save(session, self.prefix)

    def predict(self, **arguments):
        model = load_from_meta_graph(self.prefix, outputs="vectors:0", **arguments)
        return model.predict(WORDS, verbose=0)["vectors"]


def test_a_file_beside_the_graph_is_the_one_that_it_names(tmp_path):
    trained = Trained(tmp_path)
    trained.source.rename(tmp_path / "run" / "words.txt")
    with pytest.warns(UserWarning, match=r"run/words\.txt'; the graph names"):
        np.testing.assert_array_equal(trained.predict(), trained.expected)


def test_a_file_elsewhere_is_read_for_a_trusted_graph_only(tmp_path):
    trained = Trained(tmp_path)
    with pytest.raises(UntrustedContentError, match=r"program/words\.txt(.|\n)*copy"):
        trained.predict()
    np.testing.assert_array_equal(trained.predict(safe_mode=False), trained.expected)
    trained.source.unlink()
    with pytest.raises(FormatError, match=r"not there(.|\n)*words\.txt"):
        trained.predict(safe_mode=False)


def test_a_report_says_that_tables_stay_empty(tmp_path):
    trained = Trained(tmp_path)
    (report,) = inspect_meta_graph(trained.prefix).meta_graphs
    assert [op.op for op in report.refused if op.needed_by == "outputs"] == [
        "InitializeTableFromTextFileV2"
    ]
    trained.source.rename(tmp_path / "run" / "words.txt")
    (report,) = inspect_meta_graph(trained.prefix).meta_graphs
    assert not report.blocked


def test_a_link_out_of_the_directory_is_not_followed(tmp_path):
    trained = Trained(tmp_path)
    (tmp_path / "run" / "words.txt").symlink_to(trained.source)
    with pytest.raises(UntrustedContentError, match=r"words\.txt"):
        trained.predict()


def test_a_hidden_file_is_no_vocabulary(tmp_path):
    trained = Trained(tmp_path, ".words")
    trained.source.rename(tmp_path / "run" / ".words")
    with pytest.raises(UntrustedContentError, match=r"program/\.words"):
        trained.predict()


def test_a_path_that_is_fed_names_no_file(tmp_path):
    with tf.Graph().as_default() as graph:
        path = v1.placeholder_with_default(str(tmp_path / "words.txt"), [])
        (tmp_path / "words.txt").write_text("cat\n")
        initializer = tf.lookup.TextFileInitializer(
            path, tf.string, WHOLE_LINE, tf.int64, LINE_NUMBER
        )
        v1.lookup.StaticHashTable(initializer, -1)
        meta_graph_def = v1.train.export_meta_graph(graph=graph)
    assert inline_named_files(meta_graph_def, str(tmp_path)) is meta_graph_def
