"""A scope ends at a slash."""

import pytest
import tensorflow as tf

from keras_metagraph.errors import SignatureError
from keras_metagraph.export.nodes import const_node, make_node
from keras_metagraph.export.scoped import in_scope, take_scope, without_scope
from keras_metagraph.graph.ir import Graph, TensorName


@pytest.fixture
def graph():
    graph = Graph()
    graph.add(make_node("x", "Placeholder", dtype=tf.float32))
    graph.add(const_node("net_ema/w", 1.0))
    graph.add(make_node("net/w", "VarHandleOp", shared_name="net/w"))
    graph.add(make_node("net/read", "ReadVariableOp", ["net/w"]))
    graph.add(make_node("net/mul", "Mul", ["x", "net/read"], ["x", "net/w"]))
    graph.add(make_node("net/split", "Add", ["y:1", "net_ema/w"]))
    graph.add(make_node("y", "Split"))
    return graph


def test_a_scope_that_starts_the_same_is_another():
    assert in_scope("net/w", "net")
    assert in_scope("net/w", "net/")
    assert not in_scope("net_ema/w", "net")
    assert not in_scope("net", "net")
    assert without_scope("net/a/net/b", "net") == "a/net/b"


def test_nodes_are_named_without_the_scope_and_inputs_from_outside_noted(graph):
    unbound = take_scope(graph, "net")
    assert list(graph.nodes) == ["w", "read", "mul", "split"]
    assert graph.nodes["w"].attrs["shared_name"].s == b"w"
    assert graph.nodes["mul"].inputs == [
        TensorName("$unbound_inputs_x"),
        TensorName("read"),
    ]
    assert graph.nodes["mul"].control_inputs == ["w"]
    assert unbound == [
        "$unbound_inputs_x",
        "$unbound_inputs_y:1",
        "$unbound_inputs_net_ema/w",
    ]


def test_an_unknown_scope_lists_those_there_are(graph):
    with pytest.raises(SignatureError, match="no scope 'nets'") as info:
        take_scope(graph, "nets")
    assert info.value.findings == ("there is 'net'", "there is 'net_ema'")
