"""The list of op definitions that a MetaGraphDef carries (`stripped_op_list`)."""

from typing import Any

from keras_metagraph.export.op_table import known_ops
from keras_metagraph.graph.ir import Graph
from keras_metagraph.graph.op_defs import op_def
from keras_metagraph.graph.to_proto import reachable_functions


def write_op_list(op_list: Any, graph: Graph, *, old: bool) -> None:
    """Writes the definitions of the ops that a graph uses.

    Args:
        op_list: The `OpList` to fill.
        graph: The graph; the functions that it calls count too.
        old: Whether to write the definitions as TensorFlow 1.15 has them.
    """
    bodies = [graph, *(graph.functions[f].graph for f in reachable_functions(graph))]
    used = {node.op for body in bodies for node in body.nodes.values()}
    for name in sorted(used):
        definition = op_def(name)
        if definition is None:
            continue
        written = op_list.op.add()
        written.CopyFrom(definition)
        for field in ("summary", "description", "is_distributed_communication"):
            written.ClearField(field)
        for arg in [*written.input_arg, *written.output_arg]:
            for field in ("description", "experimental_full_type", "handle_data"):
                arg.ClearField(field)
        attributes = list(written.attr)
        del written.attr[:]
        known = known_ops().get(name) if old else None
        for attribute in attributes:
            if known is None or attribute.name in known:
                attribute.ClearField("description")
                # Lists dtypes that 1.15 has no number for.
                attribute.ClearField("allowed_values")
                written.attr.add().CopyFrom(attribute)


def strip_default_attributes(graph: Graph) -> None:
    """Removes attributes that have the value that a missing one would have."""
    bodies = [graph, *(function.graph for function in graph.functions.values())]
    for body in bodies:
        for node in body.nodes.values():
            definition = op_def(node.op)
            for attribute in definition.attr if definition is not None else ():
                if (
                    attribute.HasField("default_value")
                    and node.attrs.get(attribute.name) == attribute.default_value
                ):
                    del node.attrs[attribute.name]
