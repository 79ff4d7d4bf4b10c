"""What the attributes of allowed ops must be like."""

import math
from collections.abc import Iterator
from typing import Any

from keras_metagraph.audit.limits import Limits
from keras_metagraph.audit.tensors import (
    DT_RESOURCE,
    DT_VARIANT,
    decode_tensor,
    tensor_problem,
)
from keras_metagraph.errors import MetaGraphError
from keras_metagraph.graph.ir import Graph, Node, TensorName

# Values that string attributes must have, where others reach beyond the graph.
_STRINGS: dict[str, tuple[str, frozenset[str], str]] = {
    # TensorFlow 2 names the default container "localhost".
    "container": (
        "cross_process_state",
        frozenset({"", "localhost"}),
        "a container is shared by all graphs of the process",
    ),
    "executor_type": (
        "runtime_internal",
        frozenset({"", "DEFAULT", "SINGLE_THREADED_EXECUTOR"}),
        "only TensorFlow's own executors are used",
    ),
    "output_stream": (
        "file_write",
        frozenset({"", "stderr", "stdout", "log(info)", "log(warning)", "log(error)"}),
        "it prints to a file",
    ),
    "vocab_file": ("file_read", frozenset({""}), "it reads a vocabulary"),
}

# Which input of an op says the shape of what it makes from nothing.
_SHAPE_INPUTS = {
    "BroadcastTo": 1,
    "Empty": 0,
    "Fill": 0,
    "ParameterizedTruncatedNormal": 0,
    "RandomGamma": 0,
    "RandomStandardNormal": 0,
    "RandomUniform": 0,
    "RandomUniformInt": 0,
    "StatelessRandomNormal": 0,
    "StatelessRandomNormalV2": 0,
    "StatelessRandomUniform": 0,
    "StatelessRandomUniformInt": 0,
    "StatelessRandomUniformIntV2": 0,
    "StatelessRandomUniformV2": 0,
    "StatelessTruncatedNormal": 0,
    "StatelessTruncatedNormalV2": 0,
    "Tile": 1,
    "TruncatedNormal": 0,
}
_COUNT_INPUTS = {"LinSpace": 2, "OneHot": 1, "Range": 1}


def broken_rules(node: Node, graph: Graph, limits: Limits) -> Iterator[tuple[str, str]]:
    """Looks at the attributes of a node whose op is allowed.

    Args:
        node: The node.
        graph: The graph around it.
        limits: How large tensors may become.

    Yields:
        The category of each rule that it breaks, and how.
    """
    for key, (category, allowed, why) in _STRINGS.items():
        if key in node.attrs and node.attrs[key].WhichOneof("value") == "s":
            text = node.attrs[key].s.decode(errors="replace")
            if text not in allowed:
                yield category, f"{key}={text[:200]!r}: {why}"
    for key, attr in node.attrs.items():
        kind = attr.WhichOneof("value")
        tensors = [attr.tensor] if kind == "tensor" else attr.list.tensor
        for tensor in tensors if kind in ("tensor", "list") else ():
            if tensor.dtype in (DT_RESOURCE, DT_VARIANT):
                yield "encoded_object", f"attribute {key!r}"
            elif problem := tensor_problem(tensor, limits):
                yield "resource_exhaustion", f"attribute {key!r}: {problem}"
    elements = _made_elements(node, graph)
    if elements > limits.filled_elements:
        yield "resource_exhaustion", f"{elements:,} elements from a constant shape"


def bound_functions(node: Node) -> Iterator[str]:
    """Names of the functions in a node's attributes, also those bound to functions."""
    stack = list(node.attrs.values())
    while stack:
        value = stack.pop()
        kind = value.WhichOneof("value")
        if kind not in ("func", "list"):
            continue
        for func in [value.func] if kind == "func" else value.list.func:
            yield func.name
            stack.extend(func.attr.values())


def _made_elements(node: Node, graph: Graph) -> int:
    """How many elements a node makes, as far as a constant says so."""
    if node.op in _SHAPE_INPUTS:
        values = _constant(graph, node, _SHAPE_INPUTS[node.op])
        return math.prod(abs(int(value)) for value in values)
    if node.op in _COUNT_INPUTS:
        values = _constant(graph, node, _COUNT_INPUTS[node.op])
        return abs(int(values[0])) if len(values) else 0
    return 0


def _constant(graph: Graph, node: Node, index: int) -> Any:
    """The flat values of a constant input; empty where it is computed."""
    tensor = node.inputs[index] if index < len(node.inputs) else TensorName("")
    source = graph.nodes.get(tensor.node)
    if source is None or source.op != "Const" or "value" not in source.attrs:
        return ()
    try:
        values = decode_tensor(source.attrs["value"].tensor)
    except MetaGraphError:
        return ()
    return values.ravel() if values.dtype.kind in "iuf" else ()
