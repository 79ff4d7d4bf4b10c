"""Conditions of TensorFlow 1 as `If` nodes."""

import pytest
import tensorflow as tf

from keras_metagraph.errors import PassError
from keras_metagraph.graph.from_proto import graph_from_proto
from keras_metagraph.graph.ir import Graph, Node, TensorName
from keras_metagraph.graph.passes import build as nodes
from keras_metagraph.graph.passes import repair
from keras_metagraph.graph.passes.conditions import find_conditions
from keras_metagraph.graph.passes.functionalize_cond import functionalize_cond
from keras_metagraph.graph.passes.structure import prune, structure

v1 = tf.compat.v1


@pytest.fixture(autouse=True)
def _control_flow_of_tf1():
    v1.disable_control_flow_v2()
    yield
    v1.enable_control_flow_v2()


def graph_of(build):
    with tf.Graph().as_default() as graph:
        build(
            v1.placeholder(tf.bool, [], "p"), v1.placeholder(tf.float32, [None, 3], "x")
        )
    return prune(repair(graph_from_proto(graph.as_graph_def(add_shapes=True))), ["y"])


def ops(graph):
    return {node.op for node in graph.nodes.values()}


def conditions_in(graph):
    return [node for node in graph.nodes.values() if node.op == "If"]


def branches(graph, node):
    """The functions of a condition: for false, for true."""
    return [
        graph.functions[node.attrs[key].func.name]
        for key in ("else_branch", "then_branch")
    ]


def simple(p, x):
    tf.identity(v1.cond(p, lambda: tf.exp(x), lambda: tf.sin(x)), "y")


def two_results(p, x):
    a, b = v1.cond(p, lambda: (tf.exp(x), x + 1.0), lambda: (tf.sin(x), x))
    tf.add(a, b, name="y")


class TestOneCondition:
    def test_branches_hold_their_side(self):
        graph = structure(graph_of(simple), ["y"])
        (node,) = conditions_in(graph)
        false, true = branches(graph, node)
        assert "Sin" in ops(false.graph)
        assert "Exp" in ops(true.graph)
        assert "Sin" not in ops(true.graph)
        assert not {"Switch", "Merge"} & (ops(graph) | ops(true.graph))

    def test_takes_the_predicate_and_what_it_captures(self):
        graph = structure(graph_of(simple), ["y"])
        (node,) = conditions_in(graph)
        assert node.inputs == [TensorName("p"), TensorName("x")]
        for function in branches(graph, node):
            assert function.arguments == ["x"]

    def test_merge_stays_under_its_name(self):
        graph = structure(graph_of(simple), ["y"])
        (node,) = conditions_in(graph)
        merge = graph.nodes["cond/Merge"]
        assert merge.op == "Identity"
        assert merge.inputs == [TensorName(node.name)]

    def test_several_results_are_one_condition(self):
        graph = structure(graph_of(two_results), ["y"])
        (node,) = conditions_in(graph)
        assert len(branches(graph, node)[0].results) == 2
        assert len(node.attrs["Tout"].list.type) == 2

    def test_source_stays(self):
        graph = graph_of(simple)
        before = dict(graph.nodes)
        functionalize_cond(graph)
        assert graph.nodes == before
        assert not graph.functions

    def test_which_branch_was_taken(self):
        def build(p, x):
            false, true = tf.raw_ops.Switch(data=x, pred=p)
            merge = tf.raw_ops.Merge(inputs=[tf.exp(true), tf.sin(false)])
            tf.add(tf.cast(merge.value_index, tf.float32), merge.output, name="y")

        graph = structure(graph_of(build), ["y"])
        assert {"Cast", "LogicalNot"} <= ops(graph)


def test_conditions_in_conditions():
    def build(p, x):
        def inner():
            return v1.cond(tf.reduce_sum(x) > 0, lambda: tf.exp(x), lambda: tf.sin(x))

        tf.identity(v1.cond(p, inner, lambda: x), "y")

    graph = structure(graph_of(build), ["y"])
    (outer,) = conditions_in(graph)
    _, true = branches(graph, outer)
    (inner,) = conditions_in(true.graph)
    assert {"Exp"} <= ops(branches(graph, inner)[1].graph)


def test_conditions_of_one_predicate_one_behind_the_other():
    def build(p, x):
        for _ in range(3):
            x = v1.cond(p, lambda x=x: tf.exp(x), lambda x=x: tf.sin(x))
        tf.identity(x, "y")

    graph = structure(graph_of(build), ["y"])
    assert len(conditions_in(graph)) == 3


def test_conditions_of_one_predicate_and_one_scope():
    def build(p, x):
        for _ in range(3):
            false, true = tf.raw_ops.Switch(data=x, pred=p)
            inputs = [tf.sin(false), tf.exp(true)]
            x = tf.raw_ops.Merge(inputs=inputs).output
        tf.identity(x, "y")

    graph = structure(graph_of(build), ["y"])
    assert len(conditions_in(graph)) == 3


def test_conditions_of_one_predicate_side_by_side():
    def build(p, x):
        a = v1.cond(p, lambda: tf.exp(x), lambda: tf.sin(x))
        b = v1.cond(p, lambda: tf.tanh(x), lambda: tf.cos(x))
        tf.add(a, b, name="y")

    graph = structure(graph_of(build), ["y"])
    (node,) = conditions_in(graph)
    assert {"Exp", "Tanh"} <= ops(branches(graph, node)[1].graph)


def test_condition_waits_for_what_a_branch_waits_for():
    def build(p, x):
        with tf.control_dependencies([tf.no_op("first")]):
            y = v1.cond(p, lambda: tf.exp(x), lambda: tf.sin(x))
        tf.identity(y, "y")

    graph = structure(graph_of(build), ["y"])
    (node,) = conditions_in(graph)
    assert node.control_inputs == ["first"]


def test_operation_in_a_branch():
    def build(p, x):
        def true():
            tf.no_op("effect")
            return tf.exp(x)

        tf.identity(v1.cond(p, true, lambda: x), "y")

    with tf.Graph().as_default() as source:
        build(v1.placeholder(tf.bool, [], "p"), v1.placeholder(tf.float32, [], "x"))
    graph = repair(graph_from_proto(source.as_graph_def()))
    result = structure(graph, [], ["cond/effect"])
    node = result.nodes["cond/effect"]
    assert node.op == "If"
    false, true = branches(result, node)
    assert true.control_results == ["cond/effect"]
    assert false.control_results == []
    assert "y" not in result.nodes


def test_refuses_a_tensor_that_is_not_always_there():
    graph = graph_of(simple)
    with pytest.raises(PassError, match="one branch") as caught:
        structure(graph, ["cond/Exp"])
    assert caught.value.findings == ("cond/Exp",)


def test_refuses_joins_of_no_condition():
    graph = Graph()
    graph.add(Node("x", "Placeholder"))
    attrs = {"T": nodes.type_attr(nodes.FLOAT)}
    inputs = [TensorName("x"), TensorName("x")]
    graph.add(Node("y", "Merge", inputs, attrs=attrs))
    with pytest.raises(PassError, match="joins branches") as caught:
        find_conditions(graph)
    assert "y joins" in caught.value.findings[0]


def test_graph_without_conditions():
    graph = Graph()
    result = functionalize_cond(graph)
    assert not result.modified
    assert result.graph is graph


def test_condition_in_a_loop():
    def build(p, x):
        def body(h):
            return v1.cond(p, lambda: tf.exp(h), lambda: tf.sin(h))

        tf.identity(v1.while_loop(lambda h: tf.reduce_sum(h) < 3.0, body, [x]), "y")

    graph = structure(graph_of(build), ["y"])
    (loop,) = [node for node in graph.nodes.values() if node.op == "While"]
    body = graph.functions[loop.attrs["body"].func.name]
    (node,) = conditions_in(body.graph)
    assert "Exp" in ops(branches(graph, node)[1].graph)


def test_functions_share_one_library():
    graph = structure(graph_of(simple), ["y"])
    assert graph.functions
    for function in graph.functions.values():
        assert function.graph.functions is graph.functions
