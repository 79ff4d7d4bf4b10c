"""Orders and groups of nodes."""

import pytest

from keras_metagraph.errors import PassError
from keras_metagraph.graph.ir import Graph, Node, TensorName
from keras_metagraph.graph.walk import batches, schedule


def graph_of(*edges, ops=()):
    """A graph of nodes `name`, or `name: inputs`; `^` stands before control inputs."""
    graph = Graph()
    for text in edges:
        name, _, inputs = text.partition(":")
        names = inputs.split()
        graph.add(
            Node(
                name,
                dict(ops).get(name, "Op"),
                [TensorName(n) for n in names if not n.startswith("^")],
                [n[1:] for n in names if n.startswith("^")],
            )
        )
    return graph


def names(nodes):
    return [node.name for node in nodes]


def test_keeps_the_order_of_the_graph():
    graph = graph_of("b", "a", "c:a b")
    assert names(schedule(graph)) == ["b", "a", "c"]


def test_puts_inputs_first():
    graph = graph_of("c:a ^b", "b:a", "a")
    assert names(schedule(graph)) == ["a", "b", "c"]


def test_takes_only_what_the_roots_need():
    graph = graph_of("a", "b:a", "c:a")
    assert names(schedule(graph, ["b"])) == ["a", "b"]


def test_deep_graphs():
    count = 30_000
    edges = ["n0", *(f"n{i}:n{i - 1}" for i in range(1, count))]
    assert names(schedule(graph_of(*edges)))[-1] == f"n{count - 1}"


def test_refuses_a_circle():
    graph = graph_of("a:c", "b:a", "c:b", "d")
    with pytest.raises(PassError, match="wait for each other") as caught:
        schedule(graph)
    assert caught.value.findings == ("a", "b", "c")


def test_allows_the_circle_of_a_loop():
    ops = {"next": "NextIteration", "merge": "Merge"}
    graph = graph_of("start", "merge:start next", "next:merge", ops=ops.items())
    assert names(schedule(graph, loops=True)) == ["start", "merge", "next"]
    with pytest.raises(PassError):
        schedule(graph)


def test_batches_put_much_together():
    graph = graph_of("a", "S:a", "b", "c:S b", "d:b", "T:c", "e:d T")
    groups = batches(schedule(graph), lambda node: node.name.isupper())
    assert [names(group) for group in groups] == [
        ["a", "b", "d"],
        ["S"],
        ["c"],
        ["T"],
        ["e"],
    ]


def test_batches_respect_control_inputs():
    graph = graph_of("S", "a:^S", "T:^a")
    groups = batches(schedule(graph), lambda node: node.name.isupper())
    assert [names(group) for group in groups] == [["S"], ["a"], ["T"]]


def test_no_batches_of_nothing():
    assert list(batches([], lambda node: True)) == []
