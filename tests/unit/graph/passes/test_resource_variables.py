"""Reference variables as resource variables."""

import numpy as np
import pytest
import tensorflow as tf

from keras_metagraph.graph.from_proto import graph_from_proto
from keras_metagraph.graph.ir import Graph, TensorName
from keras_metagraph.graph.passes import prepare_for_session, ref_ops, repair
from keras_metagraph.graph.passes.resource_variables import resource_variables
from keras_metagraph.session.executor import SessionExecutor

v1 = tf.compat.v1


@pytest.fixture(autouse=True)
def _control_flow_of_tf1():
    v1.disable_control_flow_v2()
    yield
    v1.enable_control_flow_v2()


def variable(value, name="w", dtype=tf.float32):
    initial = np.asarray(value, dtype.as_numpy_dtype)
    return v1.get_variable(name, initializer=initial, use_resource=False)


def graph_of(build):
    with tf.Graph().as_default() as graph:
        build()
    return repair(graph_from_proto(graph.as_graph_def(add_shapes=True)))


def references(graph):
    """What is left of references in a graph."""
    return [
        node.name
        for node in graph.nodes.values()
        if node.op in ref_ops.VARIABLES
        or node.op.startswith("Ref")
        or any(value.type > 100 for value in node.attrs.values())
    ]


class Runs:
    """A graph of reference variables, in a session and as resources."""

    def __init__(self, build):
        with tf.Graph().as_default() as graph:
            build()
            variables = {v.op.name: v for v in v1.global_variables()}
            self.session = v1.Session()
            self.session.run(v1.global_variables_initializer())
            values = self.session.run(variables)
            self.variables = variables
        self.source = repair(graph_from_proto(graph.as_graph_def(add_shapes=True)))
        self.executor = SessionExecutor(
            self.source, {name: tf.Variable(value) for name, value in values.items()}
        )

    def check(self, fetches, feeds=None, steps=2):
        assert not references(prepare_for_session(self.source))
        for _ in range(steps):
            expected = self.session.run(fetches, feeds)
            found = self.executor.run(fetches, feeds)
            for one, other in zip(found, expected, strict=True):
                if other is not None:
                    np.testing.assert_allclose(one, other, 1e-6)
            for name, value in self.session.run(self.variables).items():
                now = self.executor.variables[name].numpy()
                np.testing.assert_allclose(now, value, 1e-6, err_msg=name)


class TestNames:
    def test_variable_and_read_keep_theirs(self):
        graph = resource_variables(graph_of(lambda: variable([1.0]))).graph
        assert graph.nodes["w"].op == "VarHandleOp"
        assert graph.nodes["w"].attrs["shared_name"].s == b"w"
        read = graph.nodes["w/read"]
        assert read.op == "ReadVariableOp"
        assert read.inputs == [TensorName("w")]
        assert read.attrs["dtype"].type == tf.float32.as_datatype_enum

    def test_update_keeps_its_name_for_the_value(self):
        graph = resource_variables(
            graph_of(lambda: v1.assign_add(variable([1.0]), [2.0], name="a"))
        ).graph
        assert graph.nodes["a/AssignAddVariableOp"].op == "AssignAddVariableOp"
        assert graph.nodes["a"].op == "ReadVariableOp"
        assert graph.nodes["a"].control_inputs == ["a/AssignAddVariableOp"]

    def test_who_waits_for_an_update_does_not_read(self):
        def build():
            with tf.control_dependencies([v1.assign(variable([1.0]), [2.0], name="a")]):
                tf.no_op("after")

        graph = resource_variables(graph_of(build)).graph
        assert graph.nodes["after"].control_inputs == ["a/AssignVariableOp"]

    def test_shape_that_an_assignment_changes_is_unknown(self):
        def build():
            v1.assign(variable([1.0]), [1.0, 2.0], validate_shape=False)

        graph = resource_variables(graph_of(build)).graph
        assert graph.nodes["w"].attrs["shape"].shape.unknown_rank

    def test_source_stays(self):
        graph = graph_of(lambda: variable([1.0]))
        before = dict(graph.nodes)
        assert resource_variables(graph).modified
        assert graph.nodes == before

    def test_nothing_to_do(self):
        graph = Graph()
        result = resource_variables(graph)
        assert not result.modified
        assert result.graph is graph


def apply_ops():
    w, m, v = (variable([1.0, 2.0], name) for name in "wmv")
    grad = tf.constant([0.5, -0.5])
    raw = tf.raw_ops
    with tf.control_dependencies(
        [raw.ApplyGradientDescent(var=w._ref(), alpha=0.1, delta=grad)]
    ):
        adam = raw.ApplyAdam(
            var=w._ref(),
            m=m._ref(),
            v=v._ref(),
            beta1_power=0.9,
            beta2_power=0.99,
            lr=0.1,
            beta1=0.9,
            beta2=0.99,
            epsilon=1e-3,
            grad=grad,
            name="adam",
        )
    tf.identity(adam, "y")


def scatter_ops():
    w = variable(np.arange(6.0).reshape(3, 2))
    add = v1.scatter_add(w, [0, 2], [[1.0, 1.0], [2.0, 2.0]])
    with tf.control_dependencies([add]):
        sub = v1.scatter_nd_sub(w, [[1]], [[5.0, 5.0]])
    with tf.control_dependencies([sub]):
        sparse = tf.raw_ops.SparseApplyMomentum(
            var=w._ref(),
            accum=variable(np.ones((3, 2)), "m")._ref(),
            lr=0.1,
            grad=tf.ones([1, 2]),
            indices=[1],
            momentum=0.9,
            use_nesterov=True,
        )
    tf.identity(sparse, "y")


def assignments():
    w = variable(1.0)
    a = v1.assign_add(w, 2.0)
    b = v1.assign_sub(a, 0.5)
    tf.identity(b, "y")


def read_through_views():
    w = variable([1.0, 2.0])
    view = tf.reshape(tf.identity(w.read_value()), [2, 1])
    with tf.control_dependencies([v1.assign_add(w, [1.0, 1.0])]):
        tf.multiply(view, 2.0, name="y")


def average_after_step():
    w = variable([1.0, 2.0])
    average = tf.train.ExponentialMovingAverage(0.9)
    with tf.control_dependencies([v1.assign_sub(w, [0.1, 0.1])]):
        update = average.apply([w])
    with tf.control_dependencies([update]):
        tf.identity(average.average(w), "y")


def update_in_a_branch():
    w = variable(1.0)
    y = v1.cond(
        w.read_value() < 3, lambda: v1.assign_add(w, 1.0), lambda: w.read_value()
    )
    tf.identity(y, "y")


def update_in_a_loop():
    w = variable(1.0)

    def body(i, h):
        with tf.control_dependencies([v1.assign_add(w, 1.0)]):
            return i + 1, h + w.read_value()

    _, y = v1.while_loop(lambda i, h: i < 3, body, [0, 0.0], parallel_iterations=1)
    tf.identity(y, "y")


def counters():
    w = variable(0, dtype=tf.int32)
    tf.identity(tf.raw_ops.CountUpTo(ref=w._ref(), limit=5), "y")


def is_initialized():
    tf.identity(v1.is_variable_initialized(variable(1.0)), "y")


def temporary_variable():
    ref = tf.raw_ops.TemporaryVariable(shape=[2], dtype=tf.float32, var_name="t")
    start = tf.raw_ops.Assign(ref=ref, value=[0.0, 0.0])
    x = variable([1.0, 2.0]).read_value()
    adds = [tf.raw_ops.AssignAdd(ref=start, value=value) for value in (x, x * 2)]
    with tf.control_dependencies(adds):
        tf.raw_ops.DestroyTemporaryVariable(ref=ref, var_name="t", name="y")


@pytest.mark.parametrize(
    "build",
    [
        apply_ops,
        scatter_ops,
        assignments,
        read_through_views,
        average_after_step,
        update_in_a_branch,
        update_in_a_loop,
        counters,
        is_initialized,
        temporary_variable,
    ],
)
def test_runs_as_references_did(build):
    Runs(build).check(["y:0"])
