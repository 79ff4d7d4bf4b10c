"""What changes state is told from what only reads it."""

import tensorflow as tf

from keras_metagraph.export.effects import has_effect, side_effects
from keras_metagraph.export.inline import inline_calls
from keras_metagraph.graph.from_proto import graph_from_proto

STATE = tf.Variable(1.0)


def traced(function):
    graph = tf.function(function).get_concrete_function(tf.TensorSpec([])).graph
    names = tuple(op.name for op in graph.control_outputs)
    return graph_from_proto(graph.as_graph_def()), names


def test_reads_and_random_numbers_are_no_effects():
    graph, names = traced(lambda x: STATE * x + tf.random.uniform([]))
    assert not side_effects(graph, names)


def test_assignments_are():
    graph, names = traced(lambda x: STATE.assign(x))
    assert [graph.nodes[n].op for n in side_effects(graph, names)] == [
        "AssignVariableOp"
    ]


def test_a_branch_has_the_effects_of_its_functions():
    def changing(x):
        return tf.cond(x > 0.0, lambda: STATE.assign(x), lambda: STATE.read_value())

    def reading(x):
        return tf.cond(x > 0.0, lambda: STATE + x, lambda: STATE - x)

    for function, expected in ((changing, True), (reading, False)):
        graph, _ = traced(function)
        (branch,) = (n for n in graph.nodes.values() if n.op in ("If", "StatelessIf"))
        assert has_effect(branch, graph.functions) is expected


def test_a_call_that_was_inlined_has_the_effects_of_its_function():
    inner = tf.function(lambda x: STATE.assign(x))
    graph, names = traced(lambda x: (inner(x), STATE.read_value())[1])
    inline_calls(graph)
    assert [graph.nodes[n].op for n in side_effects(graph, names)] == [
        "AssignVariableOp"
    ]
