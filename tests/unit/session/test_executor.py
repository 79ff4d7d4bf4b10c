"""Runs of the executor against runs of a real session on the same graph."""

import numpy as np
import pytest
import tensorflow as tf

from keras_metagraph.errors import SignatureError, UntrustedContentError
from keras_metagraph.graph.from_proto import graph_from_proto
from keras_metagraph.graph.passes import repair
from keras_metagraph.session.executor import SessionExecutor

v1 = tf.compat.v1


@pytest.fixture(autouse=True)
def control_flow_of_tf1():
    v1.disable_control_flow_v2()
    yield
    v1.enable_control_flow_v2()


class Case:
    """A graph of reference variables: in a session, and in an executor."""

    def __init__(self, build):
        with tf.Graph().as_default() as graph:
            build()
            config = v1.ConfigProto(
                inter_op_parallelism_threads=1,
                intra_op_parallelism_threads=1,
                use_per_session_threads=True,  # else the first session decides
            )
            self.session = v1.Session(graph=graph, config=config)
            self.session.run(v1.global_variables_initializer())
            self.session.run(v1.tables_initializer())
            variables = {v.op.name: v for v in v1.global_variables()}
            values = self.session.run(variables)
        self.executor = SessionExecutor(
            repair(graph_from_proto(graph.as_graph_def(add_shapes=True))),
            {name: tf.Variable(value) for name, value in values.items()},
        )

    def assert_same(self, fetches, feeds=None, steps=3):
        for _ in range(steps):
            expected = self.session.run(fetches, feeds)
            found = self.executor.run(fetches, feeds)
            pairs = zip(tf.nest.flatten(found), tf.nest.flatten(expected), strict=True)
            for one, other in pairs:
                if other is not None:
                    np.testing.assert_allclose(one, other, rtol=1e-6)
        with self.session.graph.as_default():
            variables = {v.op.name: v for v in v1.global_variables()}
        for name, value in self.session.run(variables).items():
            np.testing.assert_allclose(
                self.executor.variables[name], value, rtol=1e-6, err_msg=name
            )


def variable(name, value, dtype=tf.float32):
    return v1.get_variable(
        name, initializer=tf.constant(value, dtype), use_resource=False
    )


def test_step_assigned_beside_the_rate_that_reads_it():
    def build():
        step = variable("step", 3, tf.int64)
        w = variable("w", [1.0, 2.0])
        rate = 0.1 * tf.cast(step, tf.float32)
        update = v1.assign(w, w - rate * w)
        tf.group(update, v1.assign(step, step + 1), name="train_op")

    Case(build).assert_same("train_op")


def test_average_of_updated_weights():
    def build():
        w = variable("w", [1.0, 2.0])
        average = tf.train.ExponentialMovingAverage(0.9)
        with tf.control_dependencies([v1.assign_sub(w, 0.1 * w)]):
            tf.group(average.apply([w]), name="train_op")

    Case(build).assert_same("train_op")


def test_loss_can_be_asked_for_as_it_was_before_the_update():
    def build():
        w = variable("w", [1.0, 2.0])
        loss = tf.nn.l2_loss(w, name="loss")
        v1.train.GradientDescentOptimizer(0.1).minimize(loss, name="train_op")

    case = Case(build)
    step = case.executor.function(["loss:0", "train_op"], [], before=["loss:0"])
    for _ in range(3):
        expected = case.session.run("loss:0")
        case.session.run("train_op")
        np.testing.assert_allclose(step([])[0], expected, rtol=1e-6)


def test_value_of_an_update_is_the_value_after_it():
    def build():
        count = variable("count", 1.0)
        tf.identity(v1.assign_add(count, 2.0), "after")

    Case(build).assert_same("after:0")


def test_conditional_update():
    def build():
        flag = v1.placeholder(tf.bool, [], "flag")
        count = variable("count", 1.0)
        result = v1.cond(
            flag, lambda: v1.assign_add(count, 2.0), lambda: tf.identity(count)
        )
        tf.identity(result, "result")

    case = Case(build)
    case.assert_same("result:0", {"flag:0": True})
    case.assert_same("result:0", {"flag:0": False})


def test_sparse_update_of_an_embedding():
    def build():
        ids = v1.placeholder(tf.int32, [None], "ids")
        table = variable("table", np.arange(12.0).reshape(6, 2))
        loss = tf.reduce_sum(tf.nn.embedding_lookup(table, ids) ** 2, name="loss")
        v1.train.AdagradOptimizer(0.1).minimize(loss, name="train_op")

    Case(build).assert_same(["loss:0", "train_op"], {"ids:0": [1, 1, 4]})


def test_variable_itself_is_fetched_as_its_value():
    Case(lambda: variable("w", [1.0, 2.0])).assert_same("w:0")


def test_update_that_waits_for_a_fed_placeholder():
    def build():
        x = v1.placeholder(tf.float32, [None], "x")
        total = variable("total", 0.0)
        with tf.control_dependencies([x]):
            v1.assign_add(total, 1.0, name="update")

    Case(build).assert_same("update:0", {"x:0": [1.0, 2.0]})


def test_tables_of_two_graphs_with_the_same_names_stay_apart():
    def table_of(word):
        def build():
            words = v1.placeholder(tf.string, [None], "words")
            source = tf.lookup.KeyValueTensorInitializer([word], [7])
            table = v1.lookup.StaticHashTable(source, -1, name="vocabulary")
            tf.identity(table.lookup(words), "ids")

        return build

    feeds = {"words:0": ["a", "b"]}
    Case(table_of("a")).assert_same("ids:0", feeds)
    Case(table_of("b")).assert_same("ids:0", feeds)


def test_feeds_that_nothing_needs_are_ignored():
    def build():
        v1.placeholder(tf.float32, [], "unused")
        tf.constant(3.0, name="c")

    Case(build).assert_same("c:0", {"unused:0": 1.0})


def test_any_tensor_can_be_fed():
    def build():
        inner = tf.multiply(v1.placeholder(tf.float32, [], "x"), 2.0, name="inner")
        tf.add(inner, 1.0, name="y")

    Case(build).assert_same(["y:0", "inner:0"], {"inner:0": 5.0})


def test_all_unfed_placeholders_are_named():
    def build():
        a = v1.placeholder(tf.float32, [], "a")
        tf.add(a, v1.placeholder(tf.float32, [], "b"), name="y")

    with pytest.raises(SignatureError) as caught:
        Case(build).executor.run("y:0")
    assert caught.value.findings == ("a:0", "b:0")


def test_all_unknown_names_are_named_with_their_nearest():
    case = Case(lambda: tf.constant(1.0, name="logits"))
    with pytest.raises(SignatureError) as caught:
        case.executor.run(["logit:0", "nothing_like_it"])
    assert caught.value.findings == ("logit:0; nearest: logits", "nothing_like_it")


def test_ops_that_touch_files_are_refused_only_where_they_are_needed(tmp_path):
    path = tmp_path / "secret"

    def build():
        tf.constant(1.0, name="harmless")
        tf.io.write_file(str(path), "x", name="write")

    case = Case(build)
    case.assert_same("harmless:0")
    with pytest.raises(UntrustedContentError):
        case.executor.run("write")
    assert not path.exists()
