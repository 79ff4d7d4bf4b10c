"""Graphs that are damaged, or made to exhaust whoever reads them."""

import time

import pytest
import tensorflow as tf
from google.protobuf import text_format

from keras_metagraph.audit import Limits, check_structure
from keras_metagraph.errors import FormatError, UntrustedContentError
from keras_metagraph.formats import open_export
from oracle.references import FIXTURES

v1 = tf.compat.v1


def _meta(*nodes, **functions):
    """A MetaGraphDef: nodes as (name, op, inputs), function bodies likewise."""
    meta_graph_def = v1.MetaGraphDef()
    graph_def = meta_graph_def.graph_def
    for name, op, *inputs in nodes:
        graph_def.node.add(name=name, op=op, input=inputs)
    for function, body in functions.items():
        function_def = graph_def.library.function.add()
        function_def.signature.name = function
        for name, op, *inputs in body:
            function_def.node_def.add(name=name, op=op, input=inputs)
    return meta_graph_def


def _findings(meta_graph_def, error=FormatError, limits=Limits()):  # noqa: B008
    with pytest.raises(error) as caught:
        check_structure(meta_graph_def, limits)
    assert type(caught.value) is error
    return caught.value.findings


def _graph_files(root):
    return sorted([*root.rglob("*.meta"), *root.rglob("saved_model.pb*")])


class TestRealGraphs:
    @pytest.mark.parametrize(
        "path", _graph_files(FIXTURES), ids=lambda p: str(p.relative_to(FIXTURES))
    )
    def test_fixtures_hold_together(self, path):
        for meta_graph_def in open_export(path).meta_graphs:
            check_structure(meta_graph_def)

    def test_corpus_holds_together(self, corpus):
        for path in _graph_files(corpus):
            for meta_graph_def in open_export(path).meta_graphs:
                check_structure(meta_graph_def)

    def test_while_loops_are_no_circles(self):
        check_structure(
            _meta(
                ("zero", "Const"),
                ("enter", "Enter", "zero"),
                ("merge", "Merge", "enter", "next"),
                ("cond", "LoopCond", "merge"),
                ("switch", "Switch", "merge", "cond"),
                ("next", "NextIteration", "switch:1"),
                ("exit", "Exit", "switch"),
            )
        )


class TestReferences:
    def test_lists_everything(self):
        findings = _findings(
            _meta(
                ("a", "NoOp", "gone", "^lost"), ("a", "NoOp"), ("b", ""), ("", "NoOp")
            )
        )
        text = "\n".join(findings)
        for part in ("'gone'", "'^lost'", "2 nodes are called 'a'", "'b' has no op"):
            assert part in text
        assert "has no name" in text

    def test_output_numbers(self):
        check_structure(_meta(("a", "NoOp"), ("b", "NoOp", "a:12")))
        findings = _findings(_meta(("a", "NoOp"), ("b", "NoOp", "a:" + "9" * 5000)))
        assert len(findings) == 1

    @pytest.mark.parametrize("control", ["", "^"])
    def test_circles(self, control):
        findings = _findings(
            _meta(("a", "NoOp", control + "b"), ("b", "NoOp", "a"), ("c", "NoOp", "a"))
        )
        assert "['a', 'b', 'c']" in findings[0]

    def test_node_that_waits_for_itself(self):
        assert "['a']" in _findings(_meta(("a", "NoOp", "a")))[0]

    def test_long_chains_take_no_recursion(self):
        nodes = [
            ("n0", "NoOp"),
            *((f"n{i}", "NoOp", f"n{i - 1}") for i in range(1, 9**5)),
        ]
        start = time.perf_counter()
        check_structure(_meta(*nodes))
        assert time.perf_counter() - start < 20

    def test_inside_functions(self):
        findings = _findings(_meta(f=[("a", "Neg", "gone:y:0"), ("b", "Neg", "b:y:0")]))
        assert "f: node 'a' has an input 'gone:y:0', which is not there" in findings
        assert "f: nodes wait for one another: ['b']" in findings

    def test_results_of_functions(self):
        meta_graph_def = _meta(f=[("a", "NoOp")])
        function = meta_graph_def.graph_def.library.function[0]
        function.signature.input_arg.add(name="x")
        function.signature.output_arg.add(name="y")
        function.ret["y"] = "x"
        check_structure(meta_graph_def)
        function.ret["y"] = "gone:z:0"
        function.signature.output_arg.add(name="z")
        function.control_ret["run"] = "lost"
        assert _findings(meta_graph_def) == (
            "f: returns 'gone:z:0', which is not there",
            "f: returns 'lost', which is not there",
            "f: returns nothing as 'z'",
        )

    def test_argument_and_node_of_one_name(self):
        meta_graph_def = _meta(f=[("x", "NoOp")])
        function = meta_graph_def.graph_def.library.function[0]
        function.signature.input_arg.add(name="x")
        assert "f: 2 nodes are called 'x'" in _findings(meta_graph_def)


class TestFunctionCalls:
    """TensorFlow crashes on all of them while it imports the graph."""

    def test_a_function_that_calls_itself(self):
        findings = _findings(_meta(f=[("n", "f")]), UntrustedContentError)
        assert findings == ("functions call one another in a circle: f -> f",)

    def test_two_functions_that_call_one_another(self):
        findings = _findings(
            _meta(g=[("n", "f")], f=[("n", "g")], h=[("n", "f")]), UntrustedContentError
        )
        assert "g -> f -> g" in findings[0]

    @pytest.mark.parametrize("kind", ["func", "list", "nested"])
    def test_calls_by_attribute(self, kind):
        meta_graph_def = _meta(f=[("n", "PartitionedCall")], g=[("n", "If")])
        first, second = (
            f.node_def[0] for f in meta_graph_def.graph_def.library.function
        )
        first.attr["f"].func.name = "g"
        if kind == "func":
            second.attr["f"].func.name = "f"
        elif kind == "list":
            second.attr["f"].list.func.add(name="f")
        else:
            second.attr["f"].func.attr["inner"].func.name = "f"
        findings = _findings(meta_graph_def, UntrustedContentError)
        assert "f -> g -> f" in findings[0]

    def test_calls_by_gradient(self):
        meta_graph_def = _meta(
            f=[("n", "SymbolicGradient")], g=[], gradient_of_g=[("n", "f")]
        )
        library = meta_graph_def.graph_def.library
        library.function[0].node_def[0].attr["f"].func.name = "g"
        check_structure(meta_graph_def)
        library.gradient.add(function_name="g", gradient_func="gradient_of_g")
        findings = _findings(meta_graph_def, UntrustedContentError)
        assert "f -> gradient_of_g -> f" in findings[0]

    def test_functions_called_twice_are_no_circle(self):
        check_structure(
            _meta(
                a=[("n", "b"), ("m", "c")],
                b=[("n", "d"), ("m", "d")],
                c=[("n", "d")],
                d=[],
            )
        )

    @pytest.mark.timeout(20)
    def test_every_function_is_followed_once(self):
        functions = {
            f"f{i}": [("n", f"f{i + 1}"), ("m", f"f{i + 2}")] for i in range(90)
        }
        check_structure(_meta(f90=[], f91=[], **functions))

    def test_long_chains_take_no_recursion(self):
        functions = {f"f{i}": [("n", f"f{i + 1}")] for i in range(5000)}
        check_structure(_meta(f5000=[], **functions))

    @pytest.mark.parametrize("name", ["ReadFile", "MatMul", "_Arg"])
    def test_function_with_the_name_of_an_op(self, name):
        findings = _findings(_meta(**{name: []}), UntrustedContentError)
        assert findings == (f"a function takes the name of the op {name!r}",)

    def test_two_functions_of_one_name(self):
        meta_graph_def = _meta(f=[])
        meta_graph_def.graph_def.library.function.add().signature.name = "f"
        assert _findings(meta_graph_def) == ("2 functions are called 'f'",)


class TestSizes:
    @pytest.mark.parametrize(
        ("limits", "words"),
        [
            ({"nodes": 3}, "4 nodes"),
            ({"functions": 1}, "2 functions"),
            ({"name_length": 3}, "name of 4 characters"),
            ({"inputs": 1}, "2 inputs of node 'long'"),
            ({"attributes": 1}, "2 attributes of node 'long'"),
            ({"collection_values": 1}, "2 values of the collection 'mine'"),
            ({"signatures": 0}, "1 signatures"),
        ],
    )
    def test_limits(self, limits, words):
        meta_graph_def = _meta(
            ("a", "NoOp"),
            ("long", "NoOp", "a", "a"),
            f=[("b", "NoOp")],
            g=[("c", "NoOp")],
        )
        meta_graph_def.graph_def.node[1].attr["x"].i = 1
        meta_graph_def.graph_def.node[1].attr["y"].i = 1
        meta_graph_def.collection_def["mine"].int64_list.value.extend([1, 2])
        meta_graph_def.signature_def["serve"].method_name = "predict"
        check_structure(meta_graph_def)
        findings = _findings(meta_graph_def, UntrustedContentError, Limits(**limits))
        assert any(
            finding.startswith(words) or words in finding for finding in findings
        )

    @pytest.mark.parametrize("place", ["node", "function", "list"])
    def test_constants(self, place):
        meta_graph_def = _meta(("a", "Const"), f=[("b", "Const")])
        node = meta_graph_def.graph_def.node[0]
        if place == "function":
            node = meta_graph_def.graph_def.library.function[0].node_def[0]
        value = node.attr["value"]
        tensor = value.list.tensor.add() if place == "list" else value.tensor
        tensor.dtype = 1
        tensor.tensor_shape.dim.add(size=10**18)
        tensor.float_val.append(1.0)
        findings = _findings(meta_graph_def, UntrustedContentError)
        assert "would take" in findings[0]
        tensor.tensor_shape.dim[0].size = -1
        assert "negative" in _findings(meta_graph_def)[0]

    def test_resource_in_a_constant(self):
        meta_graph_def = _meta(("a", "Const"))
        tensor = meta_graph_def.graph_def.node[0].attr["value"].tensor
        tensor.dtype = tf.resource.as_datatype_enum
        tensor.resource_handle_val.add(container="localhost", name="another model's")
        findings = _findings(meta_graph_def, UntrustedContentError)
        assert "encoded object" in findings[0]

    def test_beyond_the_limits_nothing_else_is_looked_at(self):
        meta_graph_def = _meta(("a", "NoOp", "gone"))
        findings = _findings(meta_graph_def, UntrustedContentError, Limits(nodes=0))
        assert findings == ("1 nodes, more than 0",)

    @pytest.mark.parametrize("listed", [False, True])
    def test_functions_bound_to_functions(self, listed):
        meta_graph_def = _meta(("a", "NoOp"))
        value = meta_graph_def.graph_def.node[0].attr["f"]
        if listed:
            value = value.list.func.add().attr["g"]
        for _ in range(20):
            value = value.func.attr["g"]
        value.func.name = "f"
        findings = _findings(meta_graph_def, UntrustedContentError)
        assert "more than 16 deep" in findings[0]

    def test_damage_is_told_along_with_what_is_hostile(self):
        findings = _findings(
            _meta(("a", "NoOp", "gone"), f=[("n", "f")]), UntrustedContentError
        )
        assert len(findings) == 2

    def test_many_findings_are_cut_off(self):
        nodes = [(f"n{i}", "NoOp", "gone") for i in range(3000)]
        assert len(_findings(_meta(*nodes))) == 1000


def test_text_in_names_does_not_break_the_message():
    meta_graph_def = v1.MetaGraphDef()
    text_format.Parse(
        r'graph_def { node { name: "a\n\033[31m" op: "NoOp" input: "b" } }',
        meta_graph_def,
    )
    assert "\x1b" not in "".join(_findings(meta_graph_def))
