"""Conditions whose predicate is known."""

import numpy as np
import pytest
import tensorflow as tf

from keras_metagraph.graph.from_proto import graph_from_proto
from keras_metagraph.graph.ir import TensorName
from keras_metagraph.graph.passes.feeds import cut_feeds
from keras_metagraph.graph.passes.fold_conditions import fold_conditions

v1 = tf.compat.v1


@pytest.fixture(autouse=True)
def _control_flow_of_tf1():
    v1.disable_control_flow_v2()
    yield
    v1.enable_control_flow_v2()


def folded(build, flag):
    """A graph in which the placeholder `p` is a constant; and what `y` needs of it."""
    with tf.Graph().as_default() as graph:
        build(v1.placeholder(tf.bool, [], "p"))
    source = graph_from_proto(graph.as_graph_def())
    cut, _ = cut_feeds(source, {}, {TensorName("p"): np.asarray(flag)})
    result = fold_conditions(cut)
    return result, result.graph.subgraph(result.graph.ancestors(["y"]))


def ops(graph):
    return {node.op for node in graph.nodes.values()}


def one_condition(p):
    x = v1.placeholder(tf.float32, [], "x")
    labels = v1.placeholder(tf.float32, [], "labels")
    tf.identity(v1.cond(p, lambda: tf.exp(x) + labels, lambda: tf.sin(x)), "y")


@pytest.mark.parametrize(
    ("flag", "op", "other"), [(True, "Exp", "Sin"), (False, "Sin", "Exp")]
)
def test_takes_the_branch(flag, op, other):
    result, needed = folded(one_condition, flag)
    assert result.modified
    assert op in ops(needed)
    assert not {other, "Switch", "Merge"} & ops(needed)


def test_does_not_need_what_the_other_branch_needs():
    _, needed = folded(one_condition, False)
    assert "labels" not in needed.nodes


def test_merge_stays_under_its_name():
    _, needed = folded(one_condition, True)
    assert needed.nodes["cond/Merge"].op == "Identity"


def test_predicates_made_of_known_ones():
    def build(p):
        x = v1.placeholder(tf.float32, [], "x")
        n = v1.placeholder_with_default(3, [], "n")
        q = tf.logical_and(tf.logical_not(p), tf.greater(n, 2))
        tf.identity(v1.cond(q, lambda: tf.exp(x), lambda: tf.sin(x)), "y")

    _, needed = folded(build, False)
    assert "Exp" in ops(needed)
    assert "Switch" not in ops(needed)


def test_condition_in_a_loop():
    def build(p):
        x = v1.placeholder(tf.float32, [], "x")

        def body(i, h):
            return i + 1, v1.cond(p, lambda: tf.exp(h), lambda: tf.sin(h))

        _, y = v1.while_loop(lambda i, h: i < 3, body, [0, x])
        tf.identity(y, "y")

    _, needed = folded(build, True)
    assert {"Exp", "LoopCond"} <= ops(needed)
    assert "Sin" not in ops(needed)


def test_loop_in_the_other_branch():
    def build(p):
        x = v1.placeholder(tf.float32, [], "x")

        def loop():
            return v1.while_loop(lambda h: h < 3, lambda h: h + 1, [x])

        tf.identity(v1.cond(p, loop, lambda: tf.sin(x)), "y")

    _, needed = folded(build, False)
    assert "LoopCond" not in ops(needed)


def test_which_branch_was_taken():
    def build(p):
        x = v1.placeholder(tf.float32, [], "x")
        false, true = tf.raw_ops.Switch(data=x, pred=p)
        merge = tf.raw_ops.Merge(inputs=[tf.sin(false), tf.exp(true)])
        tf.identity(merge.value_index, "y")

    _, needed = folded(build, True)
    (source,) = [needed.nodes[t.node] for t in needed.nodes["y"].inputs]
    assert tf.make_ndarray(source.attrs["value"].tensor) == 1


def test_merge_that_waits_for_the_other_branch():
    def build(p):
        x = v1.placeholder(tf.float32, [], "x")
        false, true = tf.raw_ops.Switch(data=x, pred=p)
        with tf.control_dependencies([tf.sin(false)]):
            inner = tf.raw_ops.Merge(inputs=[tf.cos(true), tf.tan(true)])
        outer = tf.raw_ops.Merge(inputs=[inner.output, tf.exp(true)])
        tf.identity(outer.output, "y")

    _, needed = folded(build, True)
    assert "Exp" in ops(needed)
    assert not {"Cos", "Tan"} & ops(needed)


def test_functional_condition_becomes_a_call():
    def build(p):
        v1.enable_control_flow_v2()
        x = v1.placeholder(tf.float32, [], "x")
        tf.identity(tf.cond(p, lambda: tf.exp(x), lambda: tf.sin(x)), "y")

    result, needed = folded(build, True)
    call = next(n for n in needed.nodes.values() if n.op in result.graph.functions)
    assert "true" in call.op
    assert "If" not in ops(needed)


def test_unknown_predicates_stay():
    with tf.Graph().as_default() as graph:
        one_condition(v1.placeholder(tf.bool, [], "p"))
    source = graph_from_proto(graph.as_graph_def())
    result = fold_conditions(source)
    assert not result.modified
    assert result.graph is source
