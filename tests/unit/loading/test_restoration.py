import dataclasses

import numpy as np
import pytest
import tensorflow as tf

from keras_metagraph import load_from_meta_graph
from keras_metagraph.errors import CheckpointError, MissingVariableError
from keras_metagraph.formats.registry import open_export
from keras_metagraph.graph.from_proto import graph_from_proto
from keras_metagraph.graph.passes import repair
from keras_metagraph.graph.variables import graph_variables
from keras_metagraph.loading.infer import Interface
from keras_metagraph.loading.restoration import Needs, merge_slices, restore

v1 = tf.compat.v1
INTERFACE = Interface(
    inputs={"x": "x:0"},
    outputs={"y": "y:0"},
    labels={"label": "label:0"},
    loss="loss:0",
    train_op=["train_op"],
)


@pytest.fixture
def export(tmp_path):
    """`export(names)`: a model of which a Saver kept the variables called so."""

    def save(names, initial_slot=0.0):
        with tf.Graph().as_default(), v1.Session() as session:
            x = v1.placeholder(tf.float32, [None, 2], "x")
            label = v1.placeholder(tf.float32, [None, 1], "label")
            w = v1.get_variable("w", [2, 1], use_resource=False)
            y = tf.matmul(x, w, name="y")
            loss = tf.reduce_mean((y - label) ** 2, name="loss")
            slot = v1.get_variable(
                "slot", initializer=tf.constant(initial_slot), use_resource=False
            )
            noise = v1.get_variable("noise", [3], use_resource=False)
            unused = v1.get_variable("unused", [3], use_resource=False)
            step = v1.train.GradientDescentOptimizer(0.1).minimize(loss)
            updates = [step, v1.assign_add(slot, tf.reduce_sum(noise))]
            tf.group(*updates, name="train_op")
            session.run(v1.global_variables_initializer())
            every = {"w": w, "slot": slot, "noise": noise, "unused": unused}
            saver = v1.train.Saver({name: every[name] for name in names})
            saver.save(session, str(tmp_path / "model"))
        return open_export(tmp_path / "model")

    return save


def restored(export, checkpoint=True):
    if not checkpoint:
        export = dataclasses.replace(export, checkpoint=None)
    meta = export.select()
    graph = repair(graph_from_proto(meta.graph_def))
    variables = graph_variables(meta, graph)
    return restore(export, graph, variables, Needs.of(graph, INTERFACE))


def test_all_values_are_those_of_the_checkpoint(export):
    saved = export(["w", "slot", "noise", "unused"])
    result = restored(saved)
    reader = tf.train.load_checkpoint(saved.checkpoint)
    assert sorted(result.values) == ["noise", "slot", "unused", "w"]
    for name, value in result.values.items():
        np.testing.assert_array_equal(value, reader.get_tensor(name))
    assert not result.initialized
    assert not result.dropped
    assert not result.untrainable


def test_what_the_outputs_need_is_never_made_up(export):
    with pytest.raises(MissingVariableError) as caught:
        restored(export(["slot"]))
    assert len(caught.value.findings) == 1
    assert caught.value.findings[0].startswith("w (2, 1)")


def test_without_a_checkpoint_nothing_is_made_up(export):
    with pytest.raises(CheckpointError) as caught:
        restored(export(["w"]), checkpoint=False)
    assert caught.value.findings == ("w",)


def test_others_are_sorted_by_what_needs_them(export):
    result = restored(export(["w"], initial_slot=7.0))
    assert result.initialized == ("slot",)
    assert result.untrainable == ("noise",)
    assert result.dropped == ("unused",)
    assert sorted(result.variables) == ["slot", "w"]


def test_moving_averages_start_from_the_restored_weight(tmp_path):
    with tf.Graph().as_default(), v1.Session() as session:
        v1.disable_control_flow_v2()
        v1.placeholder(tf.float32, [None], "x")
        w = v1.get_variable("w", [2], use_resource=False)
        copies = [v1.Variable(w.initialized_value(), name="copy", use_resource=False)]
        start = copies[0].initialized_value() * 2.0
        copies.append(v1.Variable(start, name="double", use_resource=False))
        lost = v1.get_variable("lost", [2], use_resource=False)
        copies.append(v1.Variable(lost.initialized_value(), name="of_lost"))
        average = v1.train.ExponentialMovingAverage(0.9).apply([w])
        reads = [tf.reduce_sum(copy) for copy in copies]
        tf.group(average, *reads, name="train_op")
        v1.enable_control_flow_v2()
        session.run(v1.global_variables_initializer())
        saved = session.run(w)
        v1.train.Saver([w]).save(session, str(tmp_path / "model"))
    interface = Interface(train_op=["train_op"])
    export = open_export(tmp_path / "model")
    meta = export.select()
    graph = repair(graph_from_proto(meta.graph_def))
    variables = graph_variables(meta, graph)
    result = restore(export, graph, variables, Needs.of(graph, interface))
    average = "w/ExponentialMovingAverage"
    assert result.turns == (("copy", average), ("double",))
    assert result.untrainable == ("of_lost",)
    with pytest.warns(UserWarning, match="train op is not used"):
        model = load_from_meta_graph(
            tmp_path / "model", outputs=["x:0"], train_op="train_op"
        )
    for name, factor in {"w": 1.0, "copy": 1.0, average: 1.0, "double": 2.0}.items():
        value = model.meta_graph.run(f"{name}:0")
        np.testing.assert_array_equal(value, saved * factor)


def test_parts_of_a_variable_become_one_tensor(tmp_path):
    with tf.Graph().as_default(), v1.Session() as session:
        v1.get_variable(
            "table",
            initializer=tf.reshape(tf.range(15.0), [5, 3]),
            partitioner=tf.compat.v1.fixed_size_partitioner(2),
            use_resource=False,
        )
        session.run(v1.global_variables_initializer())
        v1.train.Saver().save(session, str(tmp_path / "model"))
    export = open_export(tmp_path / "model")
    meta = export.select()
    graph = repair(graph_from_proto(meta.graph_def))
    variables = graph_variables(meta, graph)
    none = Interface()
    values = restore(export, graph, variables, Needs.of(graph, none)).values
    assert sorted(value.shape for value in values.values()) == [(2, 3), (3, 3)]
    merged = merge_slices(variables, values)
    np.testing.assert_array_equal(merged["table"], np.arange(15.0).reshape(5, 3))
