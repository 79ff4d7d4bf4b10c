"""Calls are replaced by the bodies of what they call."""

import tensorflow as tf

from keras_metagraph.export.inline import inline_calls
from keras_metagraph.graph.from_proto import graph_from_proto
from keras_metagraph.graph.ir import TensorName
from keras_metagraph.graph.to_proto import graph_to_proto


def read(function, *specs):
    """The graph of a function, and the name of its first output."""
    concrete = function.get_concrete_function(*specs)
    return graph_from_proto(concrete.graph.as_graph_def()), concrete


def run(graph, feeds, fetches):
    with tf.Graph().as_default(), tf.compat.v1.Session() as session:
        tf.graph_util.import_graph_def(graph_to_proto(graph), name="")
        return session.run(fetches, feeds)


def test_nested_calls_compute_the_same():
    @tf.function
    def square(x):
        return x * x, x + 1.0

    @tf.function
    def both(x):
        a, b = square(x)
        return square(a)[0] + b

    @tf.function
    def outer(x):
        return both(x) - 1.0

    graph, concrete = read(outer, tf.TensorSpec([]))
    assert any(n.op == "PartitionedCall" for n in graph.nodes.values())
    inline_calls(graph)
    assert {n.op for n in graph.nodes.values()} <= {
        "AddV2",
        "Const",
        "Identity",
        "Mul",
        "NoOp",
        "Placeholder",
        "Sub",
    }
    (placeholder,) = (t.name for t in concrete.inputs)
    assert run(graph, {placeholder: 3.0}, concrete.outputs[0].name) == 84.0


def test_calls_inside_of_loops_are_inlined_there():
    @tf.function
    def step(x):
        return x * 2.0

    @tf.function
    def loop(x):
        return tf.while_loop(lambda v: v < 100.0, lambda v: [step(v)], [x])[0]

    graph, concrete = read(loop, tf.TensorSpec([]))
    inline_calls(graph)
    bodies = [n.op for f in graph.functions.values() for n in f.graph.nodes.values()]
    assert "Mul" in bodies
    reachable = graph_to_proto(graph).library.function
    assert all(n.op != "PartitionedCall" for f in reachable for n in f.node_def)
    assert run(graph, {concrete.inputs[0].name: 3.0}, concrete.outputs[0].name) == 192.0


def test_the_body_waits_for_what_the_call_waited_for_and_ends_before_what_followed():
    state = tf.Variable(1.0)

    @tf.function
    def change():
        state.assign_add(1.0)
        return state.read_value()

    @tf.function
    def outer():
        state.assign(10.0)
        changed = change()
        state.assign(0.0)
        return changed

    graph, _ = read(outer)
    (call,) = (n for n in graph.nodes.values() if n.op == "StatefulPartitionedCall")
    before = list(call.control_inputs)
    inline_calls(graph)
    added = [n for n in graph.nodes.values() if n.op == "AssignAddVariableOp"]
    assert graph.ancestors([added[0].name]) >= set(before)
    last = [n for n in graph.nodes.values() if n.op == "AssignVariableOp"][-1]
    assert added[0].name in graph.ancestors([last.name])


def test_an_argument_that_is_returned_is_passed_through():
    @tf.function
    def same(x):
        return x

    @tf.function
    def outer(x):
        return same(same(x))

    graph, concrete = read(outer, tf.TensorSpec([]))
    inline_calls(graph)
    assert run(graph, {concrete.inputs[0].name: 5.0}, concrete.outputs[0].name) == 5.0
    assert TensorName.parse(concrete.inputs[0].name).node in graph.nodes
