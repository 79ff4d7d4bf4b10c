"""Of a distributed model only the first replica is exported."""

import tensorflow as tf

from keras_metagraph.export.nodes import make_node
from keras_metagraph.export.replicas import clear_placements, drop_copies
from keras_metagraph.graph.from_proto import graph_from_proto
from keras_metagraph.graph.ir import Graph


def test_changes_of_copies_go_and_reads_stay():
    graph = Graph()
    for name in ("first", "copy"):
        graph.add(make_node(name, "Placeholder", dtype=tf.resource))
    graph.add(make_node("read", "ReadVariableOp", ["copy"], dtype=tf.float32))
    for name in ("first", "copy"):
        node = make_node(f"{name}/add", "AssignAddVariableOp", [name, "read"])
        graph.add(node)
    graph.add(make_node("end", "NoOp", control=["first/add", "copy/add"]))
    drop_copies(graph, ["copy"])
    assert "copy/add" not in graph.nodes
    assert "read" in graph.nodes
    assert graph.nodes["end"].control_inputs == ["first/add"]


def test_copies_are_followed_into_branches():
    first, copy = tf.Variable(1.0), tf.Variable(1.0)

    @tf.function
    def step(x):
        def change():
            first.assign_add(x)
            copy.assign_add(x)
            return x

        return tf.cond(x > 0.0, change, lambda: x)

    concrete = step.get_concrete_function(tf.TensorSpec([]))
    graph = graph_from_proto(concrete.graph.as_graph_def())
    names = {
        id(handle): tensor.op.name
        for handle, tensor in zip(
            concrete.captured_inputs,
            concrete.inputs[-len(concrete.captured_inputs) :],
            strict=True,
        )
    }
    drop_copies(graph, [names[id(copy.handle)]])
    changes = [
        (function.name, node.name)
        for function in graph.functions.values()
        for node in function.graph.nodes.values()
        if node.op == "AssignAddVariableOp"
    ]
    assert len(changes) == 1
    function = graph.functions[changes[0][0]]
    assert set(function.control_results) <= set(function.graph.nodes)


def test_devices_of_a_strategy_go_and_those_of_the_user_stay():
    graph = Graph()
    graph.add(make_node("a", "NoOp")).device = "/job:localhost/replica:0/device:CPU:1"
    graph.add(make_node("b", "NoOp")).device = "/device:GPU:0"
    clear_placements(graph)
    assert [node.device for node in graph.nodes.values()] == ["", "/device:GPU:0"]
