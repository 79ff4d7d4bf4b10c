"""Puts a program that TensorFlow traced in the place of a node."""

import dataclasses
from collections.abc import Mapping

from keras_metagraph.graph.ir import Graph, Node, TensorName
from keras_metagraph.graph.passes import build


def splice(
    rewriter: build.Rewriter,
    node: Node,
    source: Graph,
    given: Mapping[str, TensorName],
    output: TensorName,
    dtype: int,
) -> None:
    """Replaces a node of one output by the nodes of another graph.

    Args:
        rewriter: The graph.
        node: The node that is replaced.
        source: The graph of the program; its functions are taken over too.
        given: What stands for the placeholders of the program, by their names.
        output: What the program computes.
        dtype: Its `DataType` enum.
    """

    def here(tensor: TensorName) -> TensorName:
        if tensor.node in given:
            return given[tensor.node]
        return TensorName(f"{node.name}/{tensor.node}", tensor.index)

    for each in source.nodes.values():
        if each.name in given:
            continue
        controls = [f"{node.name}/{name}" for name in each.control_inputs]
        rewriter.add(
            dataclasses.replace(
                each,
                name=f"{node.name}/{each.name}",
                inputs=[here(tensor) for tensor in each.inputs],
                control_inputs=controls if each.inputs else build.frame_controls(node),
            )
        )
    rewriter.functions.update(source.functions)
    attrs = {"T": build.type_attr(dtype)}
    rewriter.replace(Node(node.name, "Identity", [here(output)], attrs=attrs))
