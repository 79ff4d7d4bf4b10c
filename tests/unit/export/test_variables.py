"""Variables, initializers and the saver work in a session."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_metagraph.export.names import NamedVariable
from keras_metagraph.export.saver import add_group, add_saver
from keras_metagraph.export.variables import add_variable
from keras_metagraph.graph.ir import Graph
from keras_metagraph.graph.to_proto import graph_to_proto


def named(name, value, role="weight", **arguments):
    variable = keras.Variable(value, name="v", **arguments)
    return NamedVariable(name, variable, role, 0, name, variable.trainable)


def initial(variable):
    """The initial value of a variable in a session."""
    graph = Graph()
    nodes = add_variable(graph, variable)
    with tf.Graph().as_default(), tf.compat.v1.Session() as session:
        tf.graph_util.import_graph_def(graph_to_proto(graph), name="")
        session.run(nodes.initializer)
        return session.run(f"{nodes.read}:0")


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        (named("rate", np.float32(0.25), "optimizer"), 0.25),
        (named("global_step", 7, "optimizer", dtype="int64"), 0),
        (named("seed", [3, 4], "seed", dtype="int64"), [3, 4]),
        (named("gamma", np.ones(40, "float32")), np.ones(40)),
        (named("bias", np.arange(40.0)), np.zeros(40)),
        (named("slot", np.full((9, 9), 0.1, "float32"), "optimizer"), 0.1),
        (named("total", np.float32(9.0), "metric"), 0.0),
    ],
)
def test_initial_values(variable, value):
    np.testing.assert_allclose(initial(variable), value, rtol=1e-6)


def test_matrices_start_with_random_numbers_of_the_usual_size():
    value = initial(named("kernel", np.zeros((3, 3, 40, 50), "float32")))
    expected = np.sqrt(2.0 / (9 * (40 + 50)))
    assert 0.7 * expected < value.std() < 1.1 * expected


def test_no_weight_is_a_constant_of_the_graph():
    graph = Graph()
    add_variable(graph, named("kernel", np.arange(60000.0).reshape(200, 300)))
    add_variable(graph, named("bias", np.arange(300.0)))
    assert graph_to_proto(graph).ByteSize() < 2000


def test_the_saver_saves_and_restores_like_that_of_tensorflow(tmp_path):
    graph = Graph()
    kernel = add_variable(graph, named("dense/kernel", np.ones((2, 3), "float32")))
    counter = named("global_step", 5, "optimizer", dtype="int64", trainable=False)
    step = add_variable(graph, counter)
    total = add_variable(graph, named("total", 1.0, "metric"))
    add_group(graph, "init", [v.initializer for v in (kernel, step, total)])
    saver_def = add_saver(graph, [kernel, step], [total.initializer])
    meta_graph_def = tf.compat.v1.MetaGraphDef()
    meta_graph_def.graph_def.CopyFrom(graph_to_proto(graph))
    meta_graph_def.saver_def.CopyFrom(saver_def)
    variables = meta_graph_def.collection_def["variables"].bytes_list.value
    variables.extend([kernel.definition(), step.definition()])
    prefix = str(tmp_path / "model")
    with tf.Graph().as_default(), tf.compat.v1.Session() as session:
        saver = tf.compat.v1.train.import_meta_graph(meta_graph_def)
        found = {v.op.name: v for v in tf.compat.v1.global_variables()}
        assert set(found) == {"dense/kernel", "global_step"}
        assert [v.op.name for v in found.values() if v.trainable] == ["dense/kernel"]
        session.run("init")
        session.run(found["global_step"].assign_add(3))
        before = session.run(found)
        assert saver.save(session, prefix, write_meta_graph=False) == prefix
        session.run(found["global_step"].assign(0))
        saver.restore(session, prefix)
        after = session.run(found)
        assert session.run("total/Read/ReadVariableOp:0") == 0.0
    assert after["global_step"] == 3
    np.testing.assert_array_equal(before["dense/kernel"], after["dense/kernel"])
    assert dict(tf.train.list_variables(prefix)) == {
        "dense/kernel": [2, 3],
        "global_step": [],
    }


def test_scopes_that_are_taken_are_left_alone():
    graph = Graph()
    variable = add_variable(graph, named("save", np.float32(1.0)))
    assert add_saver(graph, [variable]).restore_op_name == "save_1/restore_all"
    assert add_group(graph, "save", []) == "save_1"
