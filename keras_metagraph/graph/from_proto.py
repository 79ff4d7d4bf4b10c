"""Reads a `GraphDef` into the package's own graph.

In a `FunctionDef` an input is written `node:output_argument:place`; here it becomes
the flat `TensorName(node, index)` that a `GraphDef` would have. What the own graph
does not keep: debug info of nodes, full types, and the versions but for the producer.
"""

from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any

import tensorflow as tf

from keras_metagraph.errors import FormatError
from keras_metagraph.graph import op_defs
from keras_metagraph.graph.ir import Function, Graph, Node, TensorName

GraphDef = Any
FunctionDef = Any
NodeDef = Any

UNKNOWN_OUTPUTS = "_keras_metagraph_outputs"
"""Attribute that keeps the output arguments of ops unknown to this TensorFlow."""


def graph_from_proto(graph_def: GraphDef) -> Graph:
    """Reads a graph and its function library.

    Args:
        graph_def: A `GraphDef`, of any TensorFlow from 0.12 on.

    Returns:
        The graph. Attribute protos are shared with `graph_def`.

    Raises:
        FormatError: If names repeat or a function's inputs cannot be read.

    Example:
        >>> graph = graph_from_proto(meta_graph_def.graph_def)
        >>> graph.node("dense/MatMul").inputs
        [TensorName(node='x', index=0), TensorName(node='dense/kernel/read', index=0)]
    """
    library = graph_def.library
    _check_unique((node.name for node in graph_def.node), "Nodes")
    _check_unique((f.signature.name for f in library.function), "Functions")
    signatures = {f.signature.name: f.signature for f in library.function}
    gradients = {g.function_name: g.gradient_func for g in library.gradient}
    functions: dict[str, Function] = {}
    for function_def in library.function:
        function = function_from_proto(function_def, signatures)
        function.gradient = gradients.get(function.name, "")
        function.graph.functions = functions
        function.graph.producer = graph_def.versions.producer
        functions[function.name] = function
    return Graph(
        {node_def.name: _read_node(node_def) for node_def in graph_def.node},
        functions,
        graph_def.versions.producer or graph_def.version,
    )


def function_from_proto(
    function_def: FunctionDef, signatures: Mapping[str, Any]
) -> Function:
    """Reads one function; `signatures` are those of the whole library."""
    signature = function_def.signature
    _check_unique(
        [
            *(arg.name for arg in signature.input_arg),
            *(node_def.name for node_def in function_def.node_def),
        ],
        f"Nodes of the function {signature.name!r}",
    )
    graph = Graph()
    for place, arg in enumerate(signature.input_arg):
        graph.add(_argument(function_def, arg, place))
    for node_def in function_def.node_def:
        graph.add(_read_node(node_def, parse=False))
    reader = _BodyReader(function_def, graph, signatures)
    for node_def in function_def.node_def:
        data = (text for text in node_def.input if not text.startswith("^"))
        graph.nodes[node_def.name].inputs = [reader.tensor(text) for text in data]
    results = [reader.result(arg.name) for arg in signature.output_arg]
    reader.note_unknown_outputs()
    header = type(function_def)(
        signature=signature, resource_arg_unique_id=function_def.resource_arg_unique_id
    )
    control = function_def.control_ret
    order = list(signature.control_output) or sorted(control)
    return Function(
        name=signature.name,
        arguments=[arg.name for arg in signature.input_arg],
        results=results,
        graph=graph,
        control_results=[control.get(name, name) for name in order],
        attrs=dict(function_def.attr),
        header=header,
    )


def _read_node(node_def: NodeDef, parse: bool = True) -> Node:
    """A node as written; with `parse`, its data inputs as a `GraphDef` writes them."""
    inputs, control = [], []
    for text in node_def.input:
        if text.startswith("^"):
            control.append(text[1:])
        elif parse:
            inputs.append(TensorName.parse(text))
    return Node(
        node_def.name,
        node_def.op,
        inputs,
        control,
        dict(node_def.attr),
        node_def.device,
    )


def _argument(function_def: FunctionDef, arg: Any, place: int) -> Node:
    """The node that stands for an argument of a function, inside its body."""
    if arg.number_attr or arg.type_list_attr:
        raise FormatError(
            f"The function {function_def.signature.name!r} takes a list of tensors as "
            f"its argument {arg.name!r}; expected one tensor an argument.",
            fix="write the graph with a TensorFlow that instantiates its functions.",
        )
    attrs: dict[str, Any] = {}
    if place in function_def.arg_attr:
        attrs.update(function_def.arg_attr[place].attr)
    if arg.type_attr:
        attrs["T"] = tf.compat.v1.AttrValue(placeholder=arg.type_attr)
    else:
        number = arg.type
        if arg.is_ref and number < op_defs.REF_OFFSET:
            number += op_defs.REF_OFFSET
        attrs["T"] = tf.compat.v1.AttrValue(type=number)
    return Node(arg.name, "_Arg", attrs=attrs)


class _BodyReader:
    """Numbers the tensors of one function's body."""

    def __init__(
        self, function_def: FunctionDef, graph: Graph, signatures: Mapping[str, Any]
    ) -> None:
        self._function_def = function_def
        self._graph = graph
        self._signatures = signatures
        self._arguments = {arg.name for arg in function_def.signature.input_arg}
        self._offsets: dict[str, dict[str, tuple[int, int]] | None] = {}
        self._unknown: dict[str, list[str]] = {}

    def tensor(self, text: str) -> TensorName:
        """The tensor called `argument` or `node:output_argument:place`."""
        if text in self._arguments:
            return TensorName(text, 0)
        node, output, place = self._split(text)
        if node in self._arguments:
            return TensorName(node, 0)
        offsets = self._node_offsets(node, text)
        if offsets is None:
            return TensorName(node, self._unknown_output(node, f"{output}:{place}"))
        if output not in offsets or place >= offsets[output][1]:
            raise self._error(text, f"the node {node!r} has no such output")
        return TensorName(node, offsets[output][0] + place)

    def result(self, name: str) -> TensorName:
        """The tensor that the function returns under an output's name."""
        if name not in self._function_def.ret:
            raise self._error(name, "the function returns nothing under this name")
        return self.tensor(self._function_def.ret[name])

    def note_unknown_outputs(self) -> None:
        """Keeps how outputs of unknown ops were written, for writing them again."""
        for name, outputs in self._unknown.items():
            value = tf.compat.v1.AttrValue()
            value.list.s.extend(output.encode() for output in outputs)
            self._graph.nodes[name].attrs[UNKNOWN_OUTPUTS] = value

    def _split(self, text: str) -> tuple[str, str, int]:
        parts = text.split(":")
        if len(parts) != 3 or not (parts[2].isdecimal() and len(parts[2]) < 10):
            raise self._error(text, "expected 'argument' or 'node:output:place'")
        return parts[0], parts[1], int(parts[2])

    def _node_offsets(self, name: str, text: str) -> dict[str, tuple[int, int]] | None:
        if name not in self._offsets:
            node = self._graph.nodes.get(name)
            if node is None:
                raise self._error(text, f"there is no node or argument {name!r}")
            definition = self._signatures.get(node.op) or op_defs.op_def(node.op)
            self._offsets[name] = (
                None
                if definition is None
                else op_defs.output_offsets(definition, node.attrs)
            )
        return self._offsets[name]

    def _unknown_output(self, node: str, output: str) -> int:
        outputs = self._unknown.setdefault(node, [])
        if output not in outputs:
            outputs.append(output)
        return outputs.index(output)

    def _error(self, text: str, why: str) -> FormatError:
        name = self._function_def.signature.name
        return FormatError(
            f"The function {name!r} refers to {text!r}, which cannot be read: {why}.",
            fix="export the model again; the graph is damaged.",
        )


def _check_unique(names: Iterable[str], what: str) -> None:
    repeated = [name for name, count in Counter(names).items() if count > 1]
    if repeated:
        raise FormatError(
            f"{what} share a name; expected every name once.",
            findings=[repr(name) for name in repeated],
            fix="export the model again; the graph is damaged.",
        )
