"""Attributes that stop TensorFlow, or mislead it."""

import tensorflow as tf

from keras_metagraph.graph.ir import Function, Graph, Node, TensorName
from keras_metagraph.graph.passes import build
from keras_metagraph.graph.passes.repair_attributes import (
    RECORDED_SHAPES,
    recorded_shape,
    repair_attributes,
)


def graph_of(*nodes, producer=134):
    return Graph({node.name: node for node in nodes}, producer=producer)


def placeholder(shape, recorded=None, op="Placeholder"):
    attrs = {"dtype": build.type_attr(build.FLOAT)}
    if shape != "missing":
        attrs["shape"] = build.shape_attr(shape)
    if recorded is not None:
        attrs["_output_shapes"] = build.shapes_attr([recorded])
    return Node("x", op, attrs=attrs)


def shape_of(graph):
    return tf.TensorShape(graph.nodes["x"].attrs["shape"].shape)


class TestAttributes:
    def test_drops_devices_and_private_attributes(self):
        attrs = {
            "T": build.type_attr(build.FLOAT),
            "_class": build.string_attr("loc:@w"),
            "_XlaScope": build.string_attr("jit"),
        }
        node = Node("y", "Relu", attrs=attrs, device="/device:GPU:0")
        result = repair_attributes(graph_of(node))
        assert result.modified
        assert result.graph.nodes["y"].device == ""
        assert set(result.graph.nodes["y"].attrs) == {"T"}
        assert node.device == "/device:GPU:0"
        assert set(node.attrs) == {"T", "_class", "_XlaScope"}

    def test_drops_attributes_that_the_op_does_not_have(self):
        attrs = {"T": build.type_attr(build.FLOAT), "newer": build.bool_attr(True)}
        result = repair_attributes(graph_of(Node("y", "Relu", attrs=attrs)))
        assert set(result.graph.nodes["y"].attrs) == {"T"}

    def test_keeps_attributes_of_unknown_ops(self):
        attrs = {"anything": build.bool_attr(True)}
        graph = graph_of(Node("y", "OpOfContrib", attrs=attrs))
        result = repair_attributes(graph)
        assert not result.modified
        assert result.graph is graph

    def test_drops_control_inputs_that_lead_nowhere_or_repeat(self):
        graph = graph_of(
            Node("a", "NoOp"), Node("b", "NoOp", control_inputs=["a", "gone", "a"])
        )
        result = repair_attributes(graph)
        assert result.graph.nodes["b"].control_inputs == ["a"]

    def test_notes_overridden_gradients(self):
        attrs = {
            "T": build.type_attr(build.FLOAT),
            "_gradient_op_type": build.string_attr("FlipGradient"),
        }
        result = repair_attributes(graph_of(Node("y", "Identity", attrs=attrs)))
        assert not result.modified
        assert "y (FlipGradient)" in result.notes[0]

    def test_moves_recorded_shapes_away_from_tensorflow(self):
        attrs = {
            "T": build.type_attr(build.FLOAT),
            "_output_shapes": build.shapes_attr([[None, 3]]),
        }
        node = repair_attributes(graph_of(Node("y", "Relu", attrs=attrs))).graph.nodes[
            "y"
        ]
        assert set(node.attrs) == {"T", RECORDED_SHAPES}
        assert recorded_shape(node, 0).as_list() == [None, 3]
        assert recorded_shape(node, 1) is None

    def test_repairs_functions(self):
        body = Graph(
            {
                "x": Node("x", "_Arg", attrs={"T": build.type_attr(build.FLOAT)}),
                "y": Node("y", "Relu", [TensorName("x")], device="/gpu:0"),
            }
        )
        graph = Graph(functions={"f": Function("f", ["x"], [TensorName("y")], body)})
        result = repair_attributes(graph)
        assert result.modified
        function = result.graph.functions["f"]
        assert function.graph.nodes["y"].device == ""
        assert function.graph.functions is result.graph.functions
        assert body.nodes["y"].device == "/gpu:0"

    def test_changes_nothing_the_second_time(self):
        graph = repair_attributes(
            graph_of(placeholder([], [None, 4]), producer=21)
        ).graph
        result = repair_attributes(graph)
        assert not result.modified
        assert result.graph is graph


class TestShapesOfPlaceholders:
    def test_legacy_scalar_has_the_recorded_shape(self):
        graph = graph_of(placeholder([], [None, 4]), producer=21)
        assert shape_of(repair_attributes(graph).graph).as_list() == [None, 4]

    def test_legacy_scalar_without_a_record_is_unknown(self):
        graph = graph_of(placeholder([]), producer=21)
        assert shape_of(repair_attributes(graph).graph).rank is None

    def test_legacy_scalar_that_is_one(self):
        graph = graph_of(placeholder([], []), producer=21)
        assert shape_of(repair_attributes(graph).graph).rank == 0

    def test_scalar_of_an_exact_exporter(self):
        graph = graph_of(placeholder([], [None, 4]), producer=24)
        assert shape_of(repair_attributes(graph).graph).rank == 0

    def test_exact_shape_wins(self):
        graph = graph_of(placeholder([None, 3], [5, 3]), producer=21)
        assert shape_of(repair_attributes(graph).graph).as_list() == [None, 3]

    def test_missing_shape(self):
        graph = graph_of(placeholder("missing", [2, 3]))
        assert shape_of(repair_attributes(graph).graph).as_list() == [2, 3]

    def test_first_variable_op_never_tells_scalars(self):
        graph = graph_of(placeholder([], [7], op="Variable"), producer=26)
        assert shape_of(repair_attributes(graph).graph).as_list() == [7]
