"""Writes the package's own graph as a `GraphDef`.

The reverse of `from_proto`: what was read comes back as it was, but for the order of
control inputs among data inputs and for functions that no node calls.
"""

from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import tensorflow as tf

from keras_metagraph.errors import FormatError
from keras_metagraph.graph import op_defs
from keras_metagraph.graph.from_proto import UNKNOWN_OUTPUTS
from keras_metagraph.graph.ir import AttrValue, Function, Graph, Node, TensorName

GraphDef = Any
FunctionDef = Any
NodeDef = Any


def graph_to_proto(graph: Graph) -> GraphDef:
    """Writes a graph and the functions that its nodes can reach.

    Args:
        graph: The graph; its protos are copied.

    Returns:
        A `GraphDef`.

    Raises:
        FormatError: If a function's body cannot be written: an output of an op that
            this TensorFlow does not know, or a result whose type nothing tells.

    Example:
        >>> tf.graph_util.import_graph_def(graph_to_proto(graph), name="")
    """
    graph_def = tf.compat.v1.GraphDef()
    graph_def.versions.producer = graph.producer
    for node in graph.nodes.values():
        _write_node(graph_def.node.add(), node, (_flat(i) for i in node.inputs))
    for name in reachable_functions(graph):
        function = graph.functions[name]
        written = graph_def.library.function.add()
        written.CopyFrom(function_to_proto(function, graph.functions))
        if function.gradient:
            graph_def.library.gradient.add(
                function_name=name, gradient_func=function.gradient
            )
    return graph_def


def reachable_functions(graph: Graph) -> list[str]:
    """Names of the functions that nodes of `graph` can call, in library order."""
    seen: set[str] = set()
    queue = deque(called_functions(graph.nodes.values(), graph.functions))
    while queue:
        name = queue.popleft()
        if name in seen:
            continue
        seen.add(name)
        function = graph.functions[name]
        queue.extend(called_functions(function.graph.nodes.values(), graph.functions))
        if function.gradient in graph.functions:
            queue.append(function.gradient)
    return [name for name in graph.functions if name in seen]


def called_functions(
    nodes: Iterable[Node], functions: Mapping[str, Function]
) -> Iterator[str]:
    """Names of the functions that nodes call or hand on; may repeat."""
    for node in nodes:
        if node.op in functions:
            yield node.op
        for value in node.attrs.values():
            for name in attr_functions(value):
                if name in functions:
                    yield name


def attr_functions(value: AttrValue) -> Iterator[str]:
    """Names of the functions in an attribute, also those bound to functions."""
    stack = [value]
    while stack:
        attr = stack.pop()
        kind = attr.WhichOneof("value")
        if kind == "func":
            bound = [attr.func]
        elif kind == "list":
            bound = list(attr.list.func)
        else:
            continue
        for func in bound:
            yield func.name
            stack.extend(func.attr.values())


def function_to_proto(
    function: Function, functions: Mapping[str, Function]
) -> FunctionDef:
    """Writes one function; `functions` are those that its body may call."""
    body = function.graph
    writer = _BodyWriter(function, functions)
    function_def = _header(function)
    signature = function_def.signature
    for place, name in enumerate(function.arguments):
        _write_argument(function_def, place, body.nodes[name])
    for place, tensor in enumerate(function.results):
        arg = signature.output_arg[place]
        function_def.ret[arg.name] = writer.text(tensor)
        writer.write_type(arg, tensor)
    for place, name in enumerate(function.control_results):
        function_def.control_ret[signature.control_output[place]] = name
    arguments = set(function.arguments)
    for node in body.nodes.values():
        if node.name not in arguments:
            inputs = (writer.text(tensor) for tensor in node.inputs)
            _write_node(function_def.node_def.add(), node, inputs)
    for name, value in function.attrs.items():
        function_def.attr[name].CopyFrom(value)
    return function_def


def _header(function: Function) -> FunctionDef:
    """A `FunctionDef` with as many arguments and results as the function has.

    What the file said of them is kept where the numbers still agree.
    """
    library = tf.compat.v1.GraphDef().library
    function_def = library.function.add()
    if function.header is not None:
        function_def.CopyFrom(function.header)
    signature = function_def.signature
    signature.name = function.name
    if [arg.name for arg in signature.input_arg] != function.arguments:
        del signature.input_arg[:]
        function_def.resource_arg_unique_id.clear()
        for name in function.arguments:
            signature.input_arg.add(name=name)
    if len(signature.output_arg) != len(function.results):
        del signature.output_arg[:]
        for place in range(len(function.results)):
            signature.output_arg.add(name=f"output_{place}")
    if len(signature.control_output) != len(function.control_results):
        signature.control_output[:] = function.control_results
        signature.is_stateful = bool(function.control_results) or signature.is_stateful
    return function_def


def _write_argument(function_def: FunctionDef, place: int, node: Node) -> None:
    arg = function_def.signature.input_arg[place]
    kind = node.attrs["T"]
    if kind.WhichOneof("value") == "placeholder":
        arg.type_attr = kind.placeholder
    else:
        number = kind.type
        if arg.is_ref and number > op_defs.REF_OFFSET:
            number -= op_defs.REF_OFFSET
        arg.type = number
    for name, value in node.attrs.items():
        if name != "T":
            function_def.arg_attr[place].attr[name].CopyFrom(value)


def _write_node(node_def: NodeDef, node: Node, inputs: Iterable[str]) -> None:
    node_def.name, node_def.op, node_def.device = node.name, node.op, node.device
    node_def.input.extend(inputs)
    node_def.input.extend(f"^{name}" for name in node.control_inputs)
    for name, value in node.attrs.items():
        if name != UNKNOWN_OUTPUTS:
            node_def.attr[name].CopyFrom(value)


def _flat(tensor: TensorName) -> str:
    return tensor.node if tensor.index == 0 else str(tensor)


class _BodyWriter:
    """Names the tensors of one function's body as a `FunctionDef` does."""

    def __init__(self, function: Function, functions: Mapping[str, Function]) -> None:
        self._function = function
        self._functions = functions
        self._arguments = set(function.arguments)
        self._signatures: dict[str, Any] = {}

    def text(self, tensor: TensorName) -> str:
        """`argument` or `node:output_argument:place`."""
        if tensor.node in self._arguments:
            return tensor.node
        node = self._function.graph.node(tensor.node)
        definition = self._definition(node)
        if definition is None:
            return f"{tensor.node}:{self._unknown_output(node, tensor.index)}"
        position = op_defs.output_position(definition, node.attrs, tensor.index)
        if position is None:
            raise self._error(tensor, f"the op {node.op!r} has no such output")
        return f"{tensor.node}:{position[0].name}:{position[1]}"

    def write_type(self, arg: Any, tensor: TensorName) -> None:
        """Gives a result the type of its tensor; keeps the file's if none is known."""
        node = self._function.graph.node(tensor.node)
        if tensor.node in self._arguments:
            kind = node.attrs["T"]
            if kind.WhichOneof("value") == "type":
                _set_type(arg, kind.type)
            return
        definition = self._definition(node)
        dtype = definition and op_defs.output_type(definition, node.attrs, tensor.index)
        if dtype:
            _set_type(arg, dtype.as_datatype_enum)
        elif not (arg.type or arg.type_attr):
            raise self._error(tensor, f"the op {node.op!r} does not tell its type")

    def _definition(self, node: Node) -> Any:
        """The op's definition; for a call, the signature of the called function."""
        if node.op not in self._signatures:
            called = self._functions.get(node.op)
            self._signatures[node.op] = (
                op_defs.op_def(node.op) if called is None else _signature(called)
            )
        return self._signatures[node.op]

    def _unknown_output(self, node: Node, index: int) -> str:
        outputs = node.attrs.get(UNKNOWN_OUTPUTS)
        if outputs is None or index >= len(outputs.list.s):
            raise self._error(
                TensorName(node.name, index), f"the op {node.op!r} is not known"
            )
        return str(outputs.list.s[index].decode())

    def _error(self, tensor: TensorName, why: str) -> FormatError:
        return FormatError(
            f"The function {self._function.name!r} cannot be written: it uses the "
            f"tensor {str(tensor)!r}, but {why}.",
            fix="load the library that defines the op (tf.load_op_library).",
        )


def _set_type(arg: Any, number: int) -> None:
    if arg.type_attr:
        return
    is_ref = number > op_defs.REF_OFFSET
    arg.is_ref = arg.is_ref and is_ref
    arg.type = number - op_defs.REF_OFFSET if arg.is_ref else number


def _signature(function: Function) -> Any:
    """The names of a called function's results; their types are not needed."""
    return _header(function).signature
