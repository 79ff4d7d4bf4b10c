"""Graphs of TensorFlow before 0.12, whose savers read no checkpoints of today."""

import numpy as np
import tensorflow as tf

import keras_metagraph as kmg

v1 = tf.compat.v1


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
