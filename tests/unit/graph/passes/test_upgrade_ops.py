"""Ops that are gone, and those that have more inputs now."""

import dataclasses

import numpy as np
import pytest
import tensorflow as tf

from keras_metagraph.graph.from_proto import graph_from_proto
from keras_metagraph.graph.ir import Function, Graph, Node, TensorName
from keras_metagraph.graph.passes import build
from keras_metagraph.graph.passes.resource_handles import resource_handles
from keras_metagraph.graph.passes.upgrade_ops import upgrade_ops
from keras_metagraph.graph.to_proto import graph_to_proto

v1 = tf.compat.v1
T = {"T": build.type_attr(build.FLOAT)}


def run(graph, fetch, feeds=None):
    """Runs a graph in a session of this TensorFlow."""
    with tf.Graph().as_default() as imported:
        tf.graph_util.import_graph_def(graph_to_proto(graph), name="")
    with v1.Session(graph=imported) as session:
        return session.run(fetch, feeds)


def float_input(name="x", shape=(None,)):
    attrs = {
        "dtype": build.type_attr(build.FLOAT),
        "shape": build.shape_attr(list(shape)),
    }
    return Node(name, "Placeholder", attrs=attrs)


def test_renamed_ops():
    x = float_input(shape=(None, 2, 2))
    node = Node("y", "BatchMatrixInverse", [TensorName("x")], attrs=T)
    graph = Graph({"x": x, "y": node})
    result = upgrade_ops(graph)
    assert result.modified
    assert result.graph.nodes["y"].op == "MatrixInverse"
    assert node.op == "BatchMatrixInverse"
    value = np.eye(2, dtype=np.float32)[None] * 4
    np.testing.assert_allclose(run(result.graph, "y:0", {"x:0": value}), value / 16)


def test_sum_without_a_kernel():
    attrs = {**T, "N": build.int_attr(2), "shape": build.shape_attr([None])}
    node = Node("y", "AccumulateNV2", [TensorName("x")] * 2, attrs=attrs)
    graph = upgrade_ops(Graph({"x": float_input(), "y": node})).graph
    assert run(graph, "y:0", {"x:0": [1.0, 2.0]}).tolist() == [2.0, 4.0]


def test_list_ops_get_their_new_inputs():
    attrs = {"element_dtype": build.type_attr(build.FLOAT)}
    node = Node(
        "y", "TensorListStack", [TensorName("x")], control_inputs=["c"], attrs=attrs
    )
    graph = Graph({"x": float_input(), "c": Node("c", "NoOp"), "y": node})
    upgraded = upgrade_ops(graph).graph
    (_, shape) = upgraded.nodes["y"].inputs
    assert upgraded.nodes[shape.node].control_inputs == ["c"]
    again = upgrade_ops(upgraded)
    assert not again.modified


@pytest.mark.parametrize("value", [5, "word"])
def test_dense_table_gets_a_key_for_deletion(value):
    dtype = build.STRING if isinstance(value, str) else build.INT32
    empty = build.const_node("empty", value, dtype)
    node = Node("table", "MutableDenseHashTable", [TensorName("empty")])
    graph = upgrade_ops(Graph({"empty": empty, "table": node})).graph
    (_, deleted) = graph.nodes["table"].inputs
    key = tf.make_ndarray(graph.nodes[deleted.node].attrs["value"].tensor)
    assert key != np.asarray(value, key.dtype)


def test_oldest_tensor_arrays():
    """`Unpack` and `Pack` of before TensorFlow 0.12, on handles that are references."""
    floats = build.type_attr(build.FLOAT)
    size = build.const_node("size", 2, build.INT32)
    start = build.const_node("start", 0.0, build.FLOAT)
    array = Node("array", "TensorArray", [TensorName("size")], attrs={"dtype": floats})
    inputs = [TensorName("array"), TensorName("x"), TensorName("start")]
    unpack = Node("unpack", "TensorArrayUnpack", inputs, attrs=T)
    inputs = [TensorName("array"), TensorName("unpack")]
    pack = Node("y", "TensorArrayPack", inputs, attrs={"dtype": floats})
    nodes = [float_input(shape=(2, None)), size, start, array, unpack, pack]
    graph = upgrade_ops(Graph({node.name: node for node in nodes})).graph
    graph = resource_handles(graph).graph
    value = [[1.0, 2.0], [3.0, 4.0]]
    assert run(graph, "y:0", {"x:0": value}).tolist() == value


def test_functions_are_upgraded_too():
    body = Graph(
        {
            "x": Node("x", "_Arg", attrs=T),
            "y": Node("y", "BatchMatrixInverse", [TensorName("x")], attrs=T),
        }
    )
    function = Function("f", ["x"], [TensorName("y")], body)
    result = upgrade_ops(Graph(functions={"f": function}))
    assert result.modified
    upgraded = result.graph.functions["f"]
    assert upgraded.graph.nodes["y"].op == "MatrixInverse"
    assert upgraded.graph.functions is result.graph.functions
    assert body.nodes["y"].op == "BatchMatrixInverse"


def test_nothing_to_do():
    graph = Graph({"x": float_input()})
    result = upgrade_ops(graph)
    assert not result.modified
    assert result.graph is graph


class TestGatherTree:
    def upgraded(self, count=1):
        ints = [tf.TensorSpec([None] * rank, tf.int32) for rank in (3, 3, 1, 0)]
        with tf.Graph().as_default() as graph:
            names = ["ids", "parents", "lengths", "token"]
            for name, spec in zip(names, ints, strict=True):
                v1.placeholder(spec.dtype, spec.shape, name)
        source = graph_from_proto(graph.as_graph_def())
        inputs = [TensorName(name) for name in names]
        for place in range(count):
            source.add(
                Node(
                    f"y{place}",
                    "GatherTree",
                    inputs,
                    attrs={"T": build.type_attr(build.INT32)},
                )
            )
        return upgrade_ops(source).graph

    def test_reads_out_the_beams(self):
        # One sequence, two beams, three steps: the second beam comes from the first.
        ids = np.array([[[1, 2]], [[3, 4]], [[5, 6]]], np.int32)
        parents = np.array([[[0, 0]], [[1, 0]], [[0, 0]]], np.int32)
        feeds = {"ids:0": ids, "parents:0": parents, "lengths:0": [3], "token:0": 9}
        found = run(self.upgraded(), "y0:0", feeds)
        assert found.tolist() == [[[2, 2]], [[3, 3]], [[5, 6]]]

    def test_nothing_behind_the_end(self):
        ids = np.array([[[1]], [[9]], [[5]], [[6]]], np.int32)
        feeds = {
            "ids:0": ids,
            "parents:0": np.zeros_like(ids),
            "lengths:0": [3],
            "token:0": 9,
        }
        assert run(self.upgraded(), "y0:0", feeds).ravel().tolist() == [1, 9, 9, 9]

    def test_shorter_sequences(self):
        ids = np.array([[[1], [2]], [[3], [4]]], np.int32)
        feeds = {
            "ids:0": ids,
            "parents:0": np.zeros_like(ids),
            "lengths:0": [1, 0],
            "token:0": 7,
        }
        found = run(self.upgraded(), "y0:0", feeds)
        assert found.tolist() == [[[1], [7]], [[7], [7]]]

    def test_several_in_one_graph(self):
        graph = self.upgraded(count=2)
        ids = np.array([[[1, 2]]], np.int32)
        feeds = {
            "ids:0": ids,
            "parents:0": np.zeros_like(ids),
            "lengths:0": [1],
            "token:0": 0,
        }
        first, second = run(graph, ["y0:0", "y1:0"], feeds)
        assert first.tolist() == second.tolist() == ids.tolist()
        assert graph.functions
        for function in graph.functions.values():
            assert function.graph.functions is graph.functions


def test_upgrades_do_not_change_their_source():
    node = Node("y", "BatchMatrixInverse", [TensorName("x")], attrs=T)
    graph = Graph({"x": float_input(shape=(2, 2)), "y": node})
    before = dataclasses.replace(node)
    upgrade_ops(graph)
    assert graph.nodes == {"x": graph.nodes["x"], "y": before}
