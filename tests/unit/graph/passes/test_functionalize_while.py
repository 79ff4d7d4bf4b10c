"""Loops of TensorFlow 1 as `While` nodes."""

import pytest
import tensorflow as tf

from keras_metagraph.errors import PassError
from keras_metagraph.graph.from_proto import graph_from_proto
from keras_metagraph.graph.ir import Graph, Node, TensorName
from keras_metagraph.graph.passes import repair
from keras_metagraph.graph.passes.frames import find_frames
from keras_metagraph.graph.passes.functionalize_while import functionalize_while
from keras_metagraph.graph.passes.structure import prune

v1 = tf.compat.v1
V1_LOOP = {"Enter", "Exit", "LoopCond", "NextIteration"}


@pytest.fixture(autouse=True)
def _control_flow_of_tf1():
    v1.disable_control_flow_v2()
    yield
    v1.enable_control_flow_v2()


def graph_of(build):
    with tf.Graph().as_default() as graph:
        build()
    source = repair(graph_from_proto(graph.as_graph_def(add_shapes=True)))
    return prune(source, ["y"])


def simple():
    x = v1.placeholder(tf.float32, [None, 3], "x")
    scale = v1.placeholder(tf.float32, [], "scale")
    _, y = v1.while_loop(
        lambda i, h: i < 3, lambda i, h: (i + 1, h * scale), [0, x], name="loop"
    )
    tf.identity(y, "y")


def nested():
    x = v1.placeholder(tf.float32, [], "x")

    def outer(i, h):
        _, h = v1.while_loop(
            lambda j, h: j < i, lambda j, h: (j + 1, h * 2.0), [0, h], name="inner"
        )
        return i + 1, h

    _, y = v1.while_loop(lambda i, h: i < 3, outer, [0, x], name="outer")
    tf.identity(y, "y")


def ops(graph):
    return {node.op for node in graph.nodes.values()}


def loops(graph):
    return [node for node in graph.nodes.values() if node.op == "While"]


class TestFrames:
    def test_inner_loops_come_first(self):
        frames = find_frames(graph_of(nested))
        assert [(frame.name, frame.depth) for frame in frames] == [
            ("outer/inner/while_context", 2)
            if "context" in frames[0].name
            else (frames[0].name, 2),
            (frames[1].name, 1),
        ]
        assert frames[0].parent is frames[1]

    def test_nodes_are_in_one_frame(self):
        inner, outer = find_frames(graph_of(nested))
        assert not set(inner.nodes) & set(outer.nodes)


class TestOneLoop:
    def test_leaves_no_frame(self):
        result = functionalize_while(graph_of(simple))
        assert result.modified
        assert not V1_LOOP & ops(result.graph)
        for function in result.graph.functions.values():
            assert not V1_LOOP & ops(function.graph)

    def test_loop_variables_and_invariants(self):
        (loop,) = loops(functionalize_while(graph_of(simple)).graph)
        assert TensorName("x") in loop.inputs
        assert TensorName("scale") in loop.inputs
        assert len(loop.inputs) == 3

    def test_body_gives_invariants_back(self):
        graph = functionalize_while(graph_of(simple)).graph
        (loop,) = loops(graph)
        body = graph.functions[loop.attrs["body"].func.name]
        place = loop.inputs.index(TensorName("scale"))
        assert body.results[place] == TensorName(body.arguments[place])
        assert len(body.results) == len(body.arguments) == 3

    def test_condition_and_body_take_the_same(self):
        graph = functionalize_while(graph_of(simple)).graph
        (loop,) = loops(graph)
        condition = graph.functions[loop.attrs["cond"].func.name]
        body = graph.functions[loop.attrs["body"].func.name]
        assert condition.arguments == body.arguments
        assert len(condition.results) == 1

    def test_constants_go_inside(self):
        graph = functionalize_while(graph_of(simple)).graph
        (loop,) = loops(graph)
        condition = graph.functions[loop.attrs["cond"].func.name]
        assert "Const" in ops(condition.graph)

    def test_recorded_shapes(self):
        (loop,) = loops(functionalize_while(graph_of(simple)).graph)
        shapes = loop.attrs["output_shapes"].list.shape
        place = loop.inputs.index(TensorName("x"))
        assert tf.TensorShape(shapes[place]).as_list() == [None, 3]

    def test_exit_stays_under_its_name(self):
        graph = functionalize_while(graph_of(simple)).graph
        (exit_name,) = [t.node for t in graph.nodes["y"].inputs]
        node = graph.nodes[exit_name]
        assert node.op == "Identity"
        assert node.inputs[0].node == loops(graph)[0].name

    def test_source_stays(self):
        graph = graph_of(simple)
        before = dict(graph.nodes)
        functionalize_while(graph)
        assert graph.nodes == before
        assert not graph.functions


def test_nested_loops():
    graph = functionalize_while(graph_of(nested)).graph
    (outer,) = loops(graph)
    body = graph.functions[outer.attrs["body"].func.name].graph
    (inner,) = loops(body)
    assert inner.attrs["body"].func.name in graph.functions
    for function in graph.functions.values():
        assert not V1_LOOP & ops(function.graph)


def test_what_a_loop_waits_for():
    def build():
        x = v1.placeholder(tf.float32, [], "x")
        with tf.control_dependencies([tf.no_op("first")]):
            start = tf.identity(x)
        y = v1.while_loop(lambda h: h < 3.0, lambda h: h + 1.0, [start])
        with tf.control_dependencies([y]):
            tf.no_op("y")

    graph = functionalize_while(graph_of(build)).graph
    (loop,) = loops(graph)
    assert graph.nodes[loop.inputs[0].node].control_inputs == ["first"]
    (waited,) = graph.nodes["y"].control_inputs
    assert graph.nodes[waited].inputs[0].node == loop.name


def test_effects_of_an_iteration():
    def build():
        x = v1.placeholder(tf.float32, [], "x")

        def body(h):
            with tf.control_dependencies([tf.raw_ops.Abort(name="effect")]):
                return h + 1.0

        tf.identity(v1.while_loop(lambda h: h < 3.0, body, [x]), "y")

    graph = functionalize_while(graph_of(build)).graph
    (loop,) = loops(graph)
    body = graph.functions[loop.attrs["body"].func.name]
    assert "Abort" in ops(body.graph)


def test_what_the_next_iteration_waits_for():
    graph = graph_of(simple)
    closing = next(n for n in graph.nodes.values() if n.op == "NextIteration")
    pivot = next(n for n in graph.nodes.values() if n.op == "Switch")
    graph.add(Node("effect", "NoOp", control_inputs=[f"{pivot.name}"]))
    closing.control_inputs.append("effect")
    graph = functionalize_while(graph).graph
    (loop,) = loops(graph)
    body = graph.functions[loop.attrs["body"].func.name]
    assert body.control_results == ["effect"]
    assert "effect" in body.graph.nodes


def test_graph_without_loops():
    graph = Graph()
    result = functionalize_while(graph)
    assert not result.modified
    assert result.graph is graph


def test_refuses_loops_of_another_build():
    graph = graph_of(simple)
    for node in graph.nodes.values():
        if node.op == "LoopCond":
            node.op = "Identity"
    with pytest.raises(PassError, match="not built as") as caught:
        functionalize_while(graph)
    assert "LoopCond" in caught.value.findings[0]
