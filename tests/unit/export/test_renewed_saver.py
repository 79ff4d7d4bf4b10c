"""Graphs whose savers cannot read the checkpoint that is written beside them."""

from pathlib import Path

import numpy as np
import tensorflow as tf

import keras_metagraph as kmg
from keras_metagraph.formats.registry import open_export
from keras_metagraph.graph.from_proto import graph_from_proto
from keras_metagraph.graph.restore_wiring import keys_read

v1 = tf.compat.v1
FIXTURES = Path(__file__).parents[2] / "fixtures"
TREES = FIXTURES / "saved_models" / "1.15.5" / "trees" / "saved_model"


def write_old_graph(directory):
    """A graph with a saver as TensorFlow 0.11 made it, and a checkpoint beside it."""
    with tf.Graph().as_default(), v1.Session() as session:
        x = v1.placeholder(tf.float32, [None, 2], "x")
        w = v1.get_variable("w", [2, 1], use_resource=False)
        tf.matmul(x, w, name="y")
        session.run(w.assign([[1.0], [2.0]]))
        v1.train.Saver(name="new").save(session, str(directory / "model"))
        with tf.name_scope("save"):
            filename = tf.constant("model", name="Const")
            value = tf.raw_ops.RestoreSlice(
                file_pattern=filename,
                tensor_name="w",
                shape_and_slice="",
                dt=tf.float32,
                name="restore_slice",
            )
            restore = v1.assign(w, tf.reshape(value, [2, 1]), name="Assign")
            saved = tf.identity(filename, name="control_dependency")
        saver_def = v1.train.SaverDef(
            filename_tensor_name=filename.name,
            save_tensor_name=saved.name,
            restore_op_name=restore.op.name,
            version=v1.train.SaverDef.V1,
        )
        v1.train.export_meta_graph(
            str(directory / "model.meta"),
            saver_def=saver_def,
            clear_extraneous_savers=0,
        )


def test_the_saver_reads_what_is_written_beside_it(tmp_path):
    write_old_graph(tmp_path)
    model = kmg.load_from_meta_graph(tmp_path / "model.meta")

    prefix = kmg.save_meta_graph(model, tmp_path / "out" / "model")

    with tf.Graph().as_default(), v1.Session() as session:
        saver = v1.train.import_meta_graph(f"{prefix}.meta")
        saver.restore(session, prefix)
        found = session.run("y:0", {"x:0": np.ones((1, 2))})
        again = saver.save(session, str(tmp_path / "again"))
    assert found.tolist() == [[3.0]]
    assert tf.train.load_checkpoint(again).get_tensor("w").tolist() == [[1.0], [2.0]]
    before, after = (
        {node.name for node in kmg.load_from_meta_graph(path).meta_graph.graph_def.node}
        for path in (tmp_path / "model.meta", f"{prefix}.meta")
    )
    assert before < after


def write_table(directory):
    """A table that training fills, and that the saver keeps in the checkpoint."""
    with tf.Graph().as_default(), v1.Session() as session:
        x = v1.placeholder(tf.string, [None], "x")
        table = tf.lookup.experimental.MutableHashTable(tf.string, tf.int64, -1)
        ids = tf.identity(table.lookup(x), "ids")
        w = v1.get_variable("w", [3], use_resource=False)
        tf.gather(w, ids, name="y")
        session.run(w.assign([1.0, 2.0, 3.0]))
        session.run(table.insert(["a", "b"], tf.constant([2, 1], tf.int64)))
        v1.train.Saver().save(session, str(directory / "model"))


def test_contents_of_tables_are_restored_from_the_graph(tmp_path):
    write_table(tmp_path)
    model = kmg.load_from_meta_graph(tmp_path / "model")

    prefix = kmg.save_meta_graph(model, tmp_path / "out" / "model")
    kmg.save_saved_model(tmp_path / "export", model)

    def restore_prefix(session):
        v1.train.import_meta_graph(f"{prefix}.meta").restore(session, prefix)

    def load_export(session):
        v1.saved_model.load(session, ["serve"], str(tmp_path / "export"))

    for load in (restore_prefix, load_export):
        with tf.Graph().as_default(), v1.Session() as session:
            load(session)
            found = session.run("y:0", {"x:0": ["a", "b"]})
        assert found.tolist() == [3.0, 2.0]


def test_the_saver_asks_for_no_boosted_trees(tmp_path):
    model = kmg.load_from_meta_graph(TREES)

    kmg.save_saved_model(tmp_path / "export", model)

    written = dict(
        tf.train.list_variables(str(tmp_path / "export" / "variables" / "variables"))
    )
    (graph,) = open_export(tmp_path / "export").meta_graphs
    assert keys_read(graph, graph_from_proto(graph.graph_def)) == written.keys()
