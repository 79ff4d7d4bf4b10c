"""Tables of asset files, against what TensorFlow itself looked up in them."""

import numpy as np
import pytest
import tensorflow as tf
from tensorflow.core.protobuf import meta_graph_pb2, saved_model_pb2

from keras_metagraph.errors import FormatError, UntrustedContentError
from keras_metagraph.graph.from_proto import graph_from_proto
from keras_metagraph.graph.passes import repair
from keras_metagraph.loading.vocabularies import inline_vocabularies
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
