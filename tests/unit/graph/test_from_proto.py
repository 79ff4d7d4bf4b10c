"""Reading a GraphDef, and the law that writing it gives it back."""

import os
from pathlib import Path

import pytest
import tensorflow as tf

from keras_metagraph.errors import FormatError
from keras_metagraph.formats import open_export
from keras_metagraph.graph.from_proto import graph_from_proto
from keras_metagraph.graph.ir import TensorName
from keras_metagraph.graph.to_proto import function_to_proto, graph_to_proto
from oracle.references import FIXTURES


def _graph_files(root: Path) -> list[str]:
    found = [*root.rglob("*.meta"), *root.rglob("saved_model.pb*")]
    return sorted(os.fspath(path) for path in found)


def _without_debug_info(nodes):
    """Drops what the own graph does not keep; data inputs before control inputs."""
    for node in nodes:
        node.ClearField("experimental_debug_info")
        node.ClearField("experimental_type")
        node.input[:] = sorted(node.input, key=lambda text: text.startswith("^"))


def _assert_round_trip(graph_def):
    graph = graph_from_proto(graph_def)
    written = graph_to_proto(graph)
    _without_debug_info(graph_def.node)
    assert list(written.node) == list(graph_def.node)
    assert written.versions.producer == graph_def.versions.producer
    for function_def in graph_def.library.function:
        _without_debug_info(function_def.node_def)
        function = graph.functions[function_def.signature.name]
        assert function_to_proto(function, graph.functions) == function_def


FILES = _graph_files(FIXTURES)


def test_there_are_fixtures():
    assert len(FILES) > 20


@pytest.mark.parametrize("path", FILES, ids=lambda p: os.path.relpath(p, FIXTURES))
def test_fixture_comes_back_as_it_was(path):
    for meta_graph_def in open_export(path).meta_graphs:
        _assert_round_trip(meta_graph_def.graph_def)


def test_corpus_comes_back_as_it_was(corpus):
    for path in _graph_files(corpus):
        for meta_graph_def in open_export(path).meta_graphs:
            _assert_round_trip(meta_graph_def.graph_def)


def _function(body: str, library: str = "") -> tf.compat.v1.GraphDef:
    """A GraphDef with one function `f`, from text."""
    from google.protobuf import text_format

    text = f"library {{ function {{ {body} }} {library} }} versions {{ producer: 27 }}"
    return text_format.Parse(text, tf.compat.v1.GraphDef())


def _inputs(graph_def, node):
    body = graph_from_proto(graph_def).functions["f"].graph
    return [tuple(tensor) for tensor in body.nodes[node].inputs]


class TestNodes:
    def _graph_def(self, *nodes):
        graph_def = tf.compat.v1.GraphDef()
        for name, op, inputs in nodes:
            graph_def.node.add(name=name, op=op, input=inputs)
        return graph_def

    def test_parses_inputs(self):
        graph_def = self._graph_def(
            ("a", "Unknown", []), ("b", "Op", ["a", "a:3", "^a", "c/d:0"])
        )
        node = graph_from_proto(graph_def).nodes["b"]
        assert node.inputs == [
            TensorName("a", 0),
            TensorName("a", 3),
            TensorName("c/d", 0),
        ]
        assert node.control_inputs == ["a"]

    def test_keeps_order_and_device(self):
        graph_def = self._graph_def(("z", "NoOp", []), ("a", "NoOp", []))
        graph_def.node[0].device = "/device:GPU:0"
        graph = graph_from_proto(graph_def)
        assert list(graph.nodes) == ["z", "a"]
        assert graph.nodes["z"].device == "/device:GPU:0"

    def test_takes_the_version_of_old_files(self):
        graph_def = tf.compat.v1.GraphDef(version=9)
        assert graph_from_proto(graph_def).producer == 9

    def test_lists_all_repeated_names(self):
        graph_def = self._graph_def(
            ("a", "NoOp", []), ("b", "NoOp", []), ("b", "NoOp", []), ("a", "NoOp", [])
        )
        with pytest.raises(FormatError) as caught:
            graph_from_proto(graph_def)
        assert caught.value.findings == ("'a'", "'b'")


class TestFunctionTensors:
    def test_numbers_outputs_of_a_list(self):
        graph_def = _function("""
            signature { name: "f" input_arg { name: "x" type: DT_FLOAT }
                        input_arg { name: "axis" type: DT_INT32 }
                        output_arg { name: "y" type: DT_FLOAT } }
            node_def { name: "split" op: "Split" input: "axis" input: "x"
                attr { key: "num_split" value { i: 3 } }
                attr { key: "T" value { type: DT_FLOAT } } }
            node_def { name: "add" op: "Add" input: "split:output:2" input: "x"
                attr { key: "T" value { type: DT_FLOAT } } }
            ret { key: "y" value: "add:z:0" }
        """)
        assert _inputs(graph_def, "add") == [("split", 2), ("x", 0)]
        assert _inputs(graph_def, "split") == [("axis", 0), ("x", 0)]
        _assert_round_trip(graph_def)

    def test_numbers_outputs_behind_a_list(self):
        # UniqueWithCounts: y, idx, count; FusedBatchNorm-like flat positions.
        graph_def = _function("""
            signature { name: "f" input_arg { name: "x" type: DT_FLOAT }
                        output_arg { name: "y" type: DT_INT32 } }
            node_def { name: "u" op: "UniqueWithCounts" input: "x"
                attr { key: "T" value { type: DT_FLOAT } } }
            ret { key: "y" value: "u:count:0" }
        """)
        function = graph_from_proto(graph_def).functions["f"]
        assert function.results == [TensorName("u", 2)]
        _assert_round_trip(graph_def)

    def test_numbers_outputs_of_a_list_of_types(self):
        graph_def = _function("""
            signature { name: "f" input_arg { name: "x" type: DT_FLOAT }
                        output_arg { name: "y" type: DT_FLOAT } }
            node_def { name: "many" op: "IdentityN" input: "x" input: "x"
                attr { key: "T" value { list { type: [DT_FLOAT, DT_FLOAT] } } } }
            ret { key: "y" value: "many:output:1" }
        """)
        function = graph_from_proto(graph_def).functions["f"]
        assert function.results == [TensorName("many", 1)]
        _assert_round_trip(graph_def)

    def test_numbers_outputs_of_a_called_function(self):
        graph_def = _function(
            """
            signature { name: "f" input_arg { name: "x" type: DT_FLOAT }
                        output_arg { name: "y" type: DT_FLOAT } }
            node_def { name: "call" op: "g" input: "x" }
            ret { key: "y" value: "call:second:0" }
            """,
            """function {
            signature { name: "g" input_arg { name: "x" type: DT_FLOAT }
                        output_arg { name: "first" type: DT_FLOAT }
                        output_arg { name: "second" type: DT_FLOAT } }
            ret { key: "first" value: "x" } ret { key: "second" value: "x" }
            }""",
        )
        functions = graph_from_proto(graph_def).functions
        assert functions["f"].results == [TensorName("call", 1)]
        assert functions["g"].results == [TensorName("x", 0)] * 2
        _assert_round_trip(graph_def)

    def test_uses_defaults_of_attributes_that_old_files_lack(self):
        graph_def = _function("""
            signature { name: "f" input_arg { name: "x" type: DT_FLOAT }
                        output_arg { name: "y" type: DT_INT32 } }
            node_def { name: "u" op: "Unique" input: "x"
                attr { key: "T" value { type: DT_FLOAT } } }
            ret { key: "y" value: "u:idx:0" }
        """)
        assert graph_from_proto(graph_def).functions["f"].results == [
            TensorName("u", 1)
        ]

    def test_keeps_outputs_of_ops_that_nobody_knows(self):
        graph_def = _function("""
            signature { name: "f" input_arg { name: "x" type: DT_FLOAT }
                        output_arg { name: "y" type: DT_FLOAT } }
            node_def { name: "c" op: "BilateralSliceApply" input: "x" }
            node_def { name: "r" op: "Add" input: "c:first:0" input: "c:out:1"
                attr { key: "T" value { type: DT_FLOAT } } }
            ret { key: "y" value: "c:out:1" }
        """)
        inputs = _inputs(graph_def, "r")
        assert [name for name, _ in inputs] == ["c", "c"]
        assert inputs[0] != inputs[1]
        _assert_round_trip(graph_def)

    def test_keeps_control_results_and_attributes(self):
        graph_def = _function("""
            signature { name: "f" is_stateful: true control_output: "run"
                        input_arg { name: "x" type: DT_STRING } }
            node_def { name: "print" op: "Print" input: "x" input: "^x"
                attr { key: "T" value { type: DT_STRING } }
                attr { key: "U" value { list { } } } }
            control_ret { key: "run" value: "print" }
            attr { key: "_noinline" value { b: true } }
            arg_attr { key: 0 value { attr {
                key: "_user_specified_name" value { s: "given" } } } }
        """)
        function = graph_from_proto(graph_def).functions["f"]
        assert function.control_results == ["print"]
        assert function.attrs["_noinline"].b
        argument = function.graph.nodes["x"]
        assert (argument.op, argument.attrs["T"].type) == ("_Arg", 7)
        assert argument.attrs["_user_specified_name"].s == b"given"
        _assert_round_trip(graph_def)

    def test_keeps_types_that_the_caller_chooses(self):
        graph_def = _function("""
            signature { name: "f" input_arg { name: "x" type_attr: "T" }
                        output_arg { name: "y" type_attr: "T" }
                        attr { name: "T" type: "type" } }
            node_def { name: "neg" op: "Neg" input: "x"
                attr { key: "T" value { placeholder: "T" } } }
            ret { key: "y" value: "neg:y:0" }
        """)
        _assert_round_trip(graph_def)

    def test_reads_gradients_of_functions(self):
        graph_def = _function(
            'signature { name: "f" }',
            'function { signature { name: "g" } }'
            'gradient { function_name: "f" gradient_func: "g" }',
        )
        assert graph_from_proto(graph_def).functions["f"].gradient == "g"

    def test_bodies_share_the_library(self):
        graph_def = _function(
            'signature { name: "f" }', 'function { signature { name: "g" } }'
        )
        graph = graph_from_proto(graph_def)
        assert graph.functions["f"].graph.functions is graph.functions
        assert graph.functions["g"].graph.functions is graph.functions


class TestDamagedFunctions:
    SIGNATURE = """
        signature { name: "f" input_arg { name: "x" type: DT_FLOAT }
                    output_arg { name: "y" type: DT_FLOAT } }
        node_def { name: "neg" op: "Neg" input: "x"
            attr { key: "T" value { type: DT_FLOAT } } }
    """

    @pytest.mark.parametrize(
        "reference",
        [
            "neg",
            "neg:y",
            "neg:z:0",
            "neg:y:1",
            "neg:y:-1",
            "neg:y:99999999999",
            "q:y:0",
        ],
    )
    def test_names_what_cannot_be_read(self, reference):
        graph_def = _function(
            self.SIGNATURE + f'ret {{ key: "y" value: "{reference}" }}'
        )
        with pytest.raises(FormatError, match=r"'f'.*cannot be read"):
            graph_from_proto(graph_def)

    def test_missing_result(self):
        with pytest.raises(FormatError, match="'y'"):
            graph_from_proto(_function(self.SIGNATURE))

    def test_a_list_as_argument(self):
        graph_def = _function("""
            signature { name: "f" attr { name: "N" type: "int" }
                input_arg { name: "x" type: DT_FLOAT number_attr: "N" } }
        """)
        with pytest.raises(FormatError, match="list of tensors"):
            graph_from_proto(graph_def)

    def test_repeated_names_in_a_body(self):
        graph_def = _function(self.SIGNATURE + 'node_def { name: "x" op: "NoOp" }')
        with pytest.raises(FormatError, match="'f'"):
            graph_from_proto(graph_def)
