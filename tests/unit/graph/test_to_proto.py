"""Writing the own graph as a GraphDef."""

import numpy as np
import pytest
import tensorflow as tf

from keras_metagraph.errors import FormatError
from keras_metagraph.graph.from_proto import graph_from_proto
from keras_metagraph.graph.ir import Function, Graph, Node, TensorName
from keras_metagraph.graph.to_proto import graph_to_proto, reachable_functions


def _type(dtype):
    return tf.compat.v1.AttrValue(type=tf.as_dtype(dtype).as_datatype_enum)


def _call(name, function, inputs=(), types=("float32",)):
    """A node that calls a function."""
    attrs = {key: tf.compat.v1.AttrValue() for key in ("Tin", "Tout", "f")}
    attrs["f"].func.name = function
    attrs["Tin"].list.type.extend(tf.as_dtype(t).as_datatype_enum for t in types)
    attrs["Tout"].list.type.extend(tf.as_dtype(t).as_datatype_enum for t in types)
    return Node(name, "PartitionedCall", list(inputs), attrs=attrs)


def _made_function(name, nodes, result, dtype="float32"):
    """A function as a pass makes one: without anything from a file."""
    body = Graph()
    body.add(Node("x", "_Arg", attrs={"T": _type(dtype)}))
    for node in nodes:
        body.add(node)
    return Function(name, ["x"], [result], body)


def _run(graph_def, feeds, fetch):
    """What a session makes of a GraphDef."""
    with tf.Graph().as_default() as graph:
        tf.graph_util.import_graph_def(graph_def, name="")
        with tf.compat.v1.Session(graph=graph) as session:
            return session.run(fetch, feeds)


def _placeholder():
    return Node("in", "Placeholder", attrs={"dtype": _type("float32")})


def test_function_of_a_pass_runs():
    graph = Graph(producer=27)
    graph.add(_placeholder())
    graph.add(_call("call", "twice", [TensorName("in")]))
    add = Node("add", "AddV2", [TensorName("x"), TensorName("x")])
    add.attrs["T"] = _type("float32")
    graph.functions["twice"] = _made_function("twice", [add], TensorName("add"))
    graph_def = graph_to_proto(graph)
    signature = graph_def.library.function[0].signature
    assert [arg.type for arg in signature.output_arg] == [tf.float32.as_datatype_enum]
    assert _run(graph_def, {"in:0": 4.0}, "call:0") == 8.0


def test_name_of_a_result_does_not_hide_an_argument():
    graph = Graph()
    graph.add(_placeholder())
    graph.add(_call("call", "same", [TensorName("in")]))
    body = Graph()
    body.add(Node("output_0", "_Arg", attrs={"T": _type("float32")}))
    graph.functions["same"] = Function(
        "same", ["output_0"], [TensorName("output_0")], body
    )
    assert _run(graph_to_proto(graph), {"in:0": 3.0}, "call:0") == 3.0


def test_control_flow_of_a_traced_function_runs_after_the_way_back():
    @tf.function(input_signature=[tf.TensorSpec([], tf.float32)])
    def program(x):
        x = tf.while_loop(lambda v: v < 100.0, lambda v: [v * 2.0], [x])[0]
        return tf.cond(x > 120.0, lambda: tf.split([x, 1.0], 2)[1][0], lambda: x)

    graph_def = program.get_concrete_function().graph.as_graph_def()
    written = graph_to_proto(graph_from_proto(graph_def))
    fetch = next(n.name for n in graph_def.node if n.op == "Identity") + ":0"
    for value in (1.0, 1.9):
        np.testing.assert_equal(
            _run(written, {"x:0": value}, fetch), _run(graph_def, {"x:0": value}, fetch)
        )
    assert len(written.library.function) == 4


def test_only_functions_that_are_reachable_are_written():
    graph = Graph()
    graph.add(_call("call", "a"))
    inner = _call("inner", "b")
    bound = Node("bound", "Anything", attrs={"g": tf.compat.v1.AttrValue()})
    bound.attrs["g"].func.name = "nowhere"
    bound.attrs["g"].func.attr["h"].func.name = "c"
    listed = Node("listed", "Case", attrs={"branches": tf.compat.v1.AttrValue()})
    listed.attrs["branches"].list.func.add(name="d")
    direct = Node("direct", "e")
    for name, nodes in {
        "a": [inner, bound, listed, direct],
        "b": [],
        "c": [],
        "d": [],
        "e": [],
        "gradient_of_e": [],
        "unused": [inner],
    }.items():
        graph.functions[name] = _made_function(name, nodes, TensorName("x"))
    graph.functions["e"].gradient = "gradient_of_e"
    assert reachable_functions(graph) == ["a", "b", "c", "d", "e", "gradient_of_e"]
    library = graph_to_proto(graph).library
    names = [function.signature.name for function in library.function]
    assert names == ["a", "b", "c", "d", "e", "gradient_of_e"]
    assert [g.gradient_func for g in library.gradient] == ["gradient_of_e"]


def test_functions_that_call_one_another_end():
    graph = Graph()
    graph.add(Node("call", "a"))
    graph.functions["a"] = _made_function("a", [Node("n", "b")], TensorName("x"))
    graph.functions["b"] = _made_function("b", [Node("n", "a")], TensorName("x"))
    assert reachable_functions(graph) == ["a", "b"]


def test_changed_argument_type_is_written():
    graph = Graph()
    graph.add(_placeholder())
    graph.add(_call("call", "f", [TensorName("in")]))
    graph.functions["f"] = _made_function("f", [], TensorName("x"))
    again = graph_from_proto(graph_to_proto(graph))
    again.functions["f"].graph.nodes["x"].attrs["T"] = _type("resource")
    signature = graph_to_proto(again).library.function[0].signature
    assert signature.input_arg[0].type == tf.resource.as_datatype_enum
    assert signature.output_arg[0].type == tf.resource.as_datatype_enum


def test_changed_arguments_and_results_are_written():
    graph = Graph()
    graph.add(_placeholder())
    graph.add(_call("call", "f", [TensorName("in")]))
    graph.functions["f"] = _made_function("f", [], TensorName("x"))
    function = graph_from_proto(graph_to_proto(graph)).functions["f"]
    function.graph.add(Node("y", "_Arg", attrs={"T": _type("int32")}))
    function.arguments.append("y")
    function.results.append(TensorName("y"))
    graph.functions["f"] = function
    signature = graph_to_proto(graph).library.function[0].signature
    assert [arg.name for arg in signature.input_arg] == ["x", "y"]
    assert [arg.type for arg in signature.output_arg] == [1, 3]


def test_writing_does_not_change_the_graph():
    graph = Graph()
    graph.add(_placeholder())
    graph_def = graph_to_proto(graph)
    graph_def.node[0].attr["dtype"].type = tf.int32.as_datatype_enum
    assert graph.nodes["in"].attrs["dtype"].type == tf.float32.as_datatype_enum


class TestWhatCannotBeWritten:
    def _graph(self, node, index=0):
        graph = Graph()
        graph.add(_call("call", "f"))
        function = _made_function("f", [node], TensorName(node.name, index))
        graph.functions["f"] = function
        return graph

    def test_output_of_an_unknown_op(self):
        graph = self._graph(Node("n", "BilateralSliceApply"))
        with pytest.raises(FormatError, match=r"'f'.*'n:0'"):
            graph_to_proto(graph)

    def test_output_that_the_op_does_not_have(self):
        neg = Node("n", "Neg", [TensorName("x")], attrs={"T": _type("float32")})
        with pytest.raises(FormatError, match=r"'n:1'.*no such output"):
            graph_to_proto(self._graph(neg, 1))

    def test_result_without_a_type(self):
        with pytest.raises(FormatError, match="type"):
            graph_to_proto(self._graph(Node("n", "Neg", [TensorName("x")])))
