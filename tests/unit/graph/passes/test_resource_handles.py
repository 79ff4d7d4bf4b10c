"""Handles that were strings: of stacks, arrays, tables, queues."""

import numpy as np
import pytest
import tensorflow as tf

from keras_metagraph.graph.ir import Graph, Node, TensorName
from keras_metagraph.graph.passes import build, ref_ops
from keras_metagraph.graph.passes.resource_handles import resource_handles
from keras_metagraph.graph.to_proto import graph_to_proto

v1 = tf.compat.v1
FLOATS = build.type_attr(build.FLOAT)
STRINGS = build.type_attr(build.STRING)


def graph_of(*nodes):
    return Graph({node.name: node for node in nodes})


def run(graph, fetch, feeds=None):
    with tf.Graph().as_default() as imported:
        tf.graph_util.import_graph_def(graph_to_proto(graph), name="")
    with v1.Session(graph=imported) as session:
        return session.run(fetch, feeds)


def test_every_op_has_a_form_that_exists():
    for op, form in ref_ops.HANDLES.items():
        assert hasattr(tf.raw_ops, form), op
    for op, form in ref_ops.RESOURCE_FORMS.items():
        assert hasattr(tf.raw_ops, form) == hasattr(tf.raw_ops, op), op


def test_table():
    attrs = {"key_dtype": STRINGS, "value_dtype": build.type_attr(build.INT32)}
    kinds = {"Tkey": STRINGS, "Tval": build.type_attr(build.INT32)}
    find = {"Tin": STRINGS, "Tout": build.type_attr(build.INT32)}
    table = TensorName("table")
    graph = graph_of(
        build.const_node("keys", ["a", "b"], build.STRING),
        build.const_node("numbers", [1, 2], build.INT32),
        build.const_node("other", -1, build.INT32),
        Node("table", "HashTable", attrs=attrs),
        Node(
            "fill",
            "InitializeTable",
            [table, TensorName("keys"), TensorName("numbers")],
            attrs=kinds,
        ),
        Node(
            "y",
            "LookupTableFind",
            [table, TensorName("keys"), TensorName("other")],
            control_inputs=["fill"],
            attrs=find,
        ),
    )
    result = resource_handles(graph)
    assert result.modified
    assert run(result.graph, "y:0").tolist() == [1, 2]
    assert graph.nodes["table"].op == "HashTable"


def test_handles_go_through_loops_and_branches():
    attrs = {
        "T": build.type_attr(build.STRING + 100),
        "frame_name": build.string_attr("f"),
    }
    stack = {"elem_type": FLOATS}
    graph = graph_of(
        Node("stack", "Stack", attrs=stack),
        Node("enter", "RefEnter", [TensorName("stack")], attrs=attrs),
        Node("again", "Enter", [TensorName("enter")], attrs=attrs),
        Node("text", "Enter", [TensorName("words")], attrs={**attrs, "T": STRINGS}),
        Node("words", "Placeholder", attrs={"dtype": STRINGS}),
        Node("pop", "StackPop", [TensorName("again")], attrs=stack),
    )
    found = resource_handles(graph).graph
    assert found.nodes["stack"].op == "StackV2"
    assert found.nodes["enter"].op == "Enter"
    for name in ("enter", "again"):
        assert found.nodes[name].attrs["T"].type == build.RESOURCE
    assert found.nodes["text"].attrs["T"].type == build.STRING
    assert found.nodes["pop"].op == "StackPopV2"


def test_stack_stays_in_its_frame():
    graph = graph_of(
        Node("pivot", "NoOp"),
        Node("stack", "Stack", control_inputs=["pivot"], attrs={"elem_type": FLOATS}),
    )
    found = resource_handles(graph).graph
    (size,) = found.nodes["stack"].inputs
    assert found.nodes[size.node].control_inputs == ["pivot"]


@pytest.mark.parametrize("version", ["", "V2"])
def test_flow_of_an_array_starts_at_the_array(version):
    graph = graph_of(
        build.const_node("size", 1, build.INT32),
        build.const_node("zero", 0, build.INT32),
        build.const_node("start", 0.0, build.FLOAT),
        build.const_node("value", 7.0, build.FLOAT),
        Node(
            "array",
            f"TensorArray{version}",
            [TensorName("size")],
            attrs={"dtype": FLOATS},
        ),
        Node("flow", "Identity", [TensorName("start")], attrs={"T": FLOATS}),
        Node(
            "write",
            f"TensorArrayWrite{version}",
            [TensorName(n) for n in ("array", "zero", "value", "flow")],
            attrs={"T": FLOATS},
        ),
        Node(
            "y",
            f"TensorArrayRead{version}",
            [TensorName(n) for n in ("array", "zero", "write")],
            attrs={"dtype": FLOATS},
        ),
    )
    found = resource_handles(graph).graph
    assert found.nodes["flow"].inputs == [TensorName("array", 1)]
    np.testing.assert_array_equal(run(found, "y:0"), 7.0)


def test_nothing_to_do():
    graph = graph_of(build.const_node("x", 1, build.INT32))
    result = resource_handles(graph)
    assert not result.modified
    assert result.graph is graph
