"""Function names that are a graph's own."""

import tensorflow as tf

from keras_metagraph.graph.from_proto import graph_from_proto
from keras_metagraph.graph.ir import Graph
from keras_metagraph.graph.passes.private_functions import private_functions
from keras_metagraph.graph.to_proto import attr_functions, graph_to_proto
from keras_metagraph.layers.island import Island
from keras_metagraph.session.executor import SessionExecutor

v1 = tf.compat.v1


def graph_of(factor):
    with tf.Graph().as_default() as graph:
        x = v1.placeholder(tf.float32, [], "x")

        def true():
            return tf.cond(x > 1, lambda: x * factor, lambda: x + factor)

        tf.identity(tf.cond(x > 0, true, lambda: x - factor), "y")
    graph = graph_from_proto(graph.as_graph_def())
    # As another process would have named them.
    names = {name: f"f{place}" for place, name in enumerate(graph.functions)}
    for each in (graph, *(function.graph for function in graph.functions.values())):
        for node in each.nodes.values():
            for value in node.attrs.values():
                if list(attr_functions(value)):
                    value.func.name = names[value.func.name]
    functions = {}
    for function in graph.functions.values():
        function.name = names[function.name]
        function.graph.functions = functions
        functions[function.name] = function
    graph.functions = functions
    return graph


def named(graph):
    return {
        name
        for each in (graph, *(function.graph for function in graph.functions.values()))
        for node in each.nodes.values()
        for value in node.attrs.values()
        for name in attr_functions(value)
    }


def test_all_names_are_new():
    source = graph_of(2.0)
    first, second = (private_functions(source).graph for _ in range(2))
    assert not set(first.functions) & set(source.functions)
    assert not set(first.functions) & set(second.functions)
    assert named(first) == set(first.functions)
    for name, function in first.functions.items():
        assert function.name == name
        assert function.graph.functions is first.functions
    assert named(source) == set(source.functions)


def test_can_be_written():
    graph_def = graph_to_proto(private_functions(graph_of(2.0)).graph)
    assert len(graph_def.library.function) == 4


def test_graphs_with_the_same_names_run_in_one_process():
    for factor in (2.0, 3.0):
        executor = SessionExecutor(graph_of(factor), {})
        assert executor.run("y:0", {"x:0": 5.0}) == 5 * factor
        island = Island(graph_of(factor), {"x": "x:0"}, {"y": "y:0"})
        assert island({"x": tf.constant(-1.0)})["y"] == -1 - factor


def test_library_without_functions():
    graph = Graph()
    result = private_functions(graph)
    assert not result.modified
    assert result.graph is graph
