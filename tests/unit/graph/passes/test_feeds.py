"""Cutting a graph at what is given."""

import numpy as np
import tensorflow as tf

from keras_metagraph.graph.ir import Graph, Node, TensorName
from keras_metagraph.graph.passes.feeds import cut_feeds

SPEC = tf.TensorSpec([None, 3], tf.float32)


def graph_of(*nodes):
    return Graph({node.name: node for node in nodes}, producer=21)


def test_placeholder_keeps_its_name_and_gets_the_shape():
    graph = graph_of(
        Node("x", "PlaceholderWithDefault", [TensorName("default")]),
        Node("y", "Relu", [TensorName("x")]),
    )
    cut, replaced = cut_feeds(graph, {TensorName("x"): SPEC}, {})
    assert replaced == {TensorName("x"): TensorName("x")}
    node = cut.nodes["x"]
    assert node.op == "Placeholder"
    assert node.inputs == []
    assert tf.TensorShape(node.attrs["shape"].shape).as_list() == [None, 3]
    assert cut.nodes["y"].inputs == [TensorName("x")]
    assert graph.nodes["x"].op == "PlaceholderWithDefault"


def test_one_output_of_many():
    graph = graph_of(
        Node("next", "IteratorGetNext"),
        Node("y", "AddN", [TensorName("next", 0), TensorName("next", 1)]),
    )
    tensor = TensorName("next", 1)
    cut, replaced = cut_feeds(graph, {tensor: SPEC}, {})
    assert cut.nodes["y"].inputs == [TensorName("next", 0), replaced[tensor]]
    assert cut.nodes["next"].op == "IteratorGetNext"
    assert cut.nodes[replaced[tensor].node].op == "Placeholder"


def test_constants():
    graph = graph_of(
        Node("flag", "Placeholder"), Node("y", "Not", [TensorName("flag")])
    )
    cut, _ = cut_feeds(graph, {}, {TensorName("flag"): np.asarray(True)})
    assert cut.nodes["flag"].op == "Const"
    assert tf.make_ndarray(cut.nodes["flag"].attrs["value"].tensor)


def test_nobody_waits_for_a_fed_node():
    graph = graph_of(
        Node("x", "Placeholder"),
        Node("y", "NoOp", control_inputs=["x", "z"]),
        Node("z", "NoOp"),
    )
    cut, _ = cut_feeds(graph, {TensorName("x"): SPEC}, {})
    assert cut.nodes["y"].control_inputs == ["z"]


def test_unknown_rank():
    graph = graph_of(Node("x", "Placeholder"))
    spec = tf.TensorSpec(None, tf.string)
    cut, _ = cut_feeds(graph, {TensorName("x"): spec}, {})
    assert cut.nodes["x"].attrs["shape"].shape.unknown_rank


def test_nothing_is_fed():
    graph = graph_of(Node("x", "Placeholder"))
    assert cut_feeds(graph, {}, {}) == (graph, {})
