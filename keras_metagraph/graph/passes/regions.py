"""Cuts a region out of a graph: the body of a function."""

import dataclasses
from collections.abc import Callable, Iterable
from typing import Protocol

from keras_metagraph.graph.ir import Function, Graph, Node, TensorName
from keras_metagraph.graph.passes import build


class Boundary(Protocol):
    """Where a region ends."""

    def argument(self, tensor: TensorName) -> TensorName | None:
        """What stands for `tensor` in the body, if it comes from outside."""

    def inside(self, name: str) -> bool:
        """Whether a node that is waited for belongs to the region."""


@dataclasses.dataclass(slots=True)
class Region:
    """A region of a graph, as the body of a function has it.

    Attributes:
        body: Copies of its nodes, with arguments in the place of outer tensors.
        results: The tensors asked for, as the body calls them.
        controls: The nodes asked for that are inside.
        outer_controls: Nodes outside that nodes of the region wait for.
    """

    body: dict[str, Node]
    results: list[TensorName]
    controls: list[str]
    outer_controls: list[str]


def cut_region(
    graph: Graph,
    results: Iterable[TensorName],
    controls: Iterable[str],
    boundary: Boundary,
) -> Region:
    """Copies what `results` and `controls` need, up to the boundary.

    Takes as long as the region is large, whatever the size of the graph.

    Args:
        graph: The graph.
        results: Tensors that the body shall compute.
        controls: Nodes that the body shall run.
        boundary: Where to stop.

    Returns:
        The region.
    """
    found: dict[str, Node] = {}
    outer: dict[str, None] = {}
    stack: list[str] = []

    def inner(tensor: TensorName) -> TensorName:
        argument = boundary.argument(tensor)
        if argument is not None:
            return argument
        stack.append(tensor.node)
        return tensor

    def waited(names: Iterable[str]) -> list[str]:
        kept = []
        for name in names:
            if boundary.inside(name):
                stack.append(name)
                kept.append(name)
            else:
                outer[name] = None
        return kept

    inner_results = [inner(tensor) for tensor in results]
    inner_controls = waited(controls)
    while stack:
        name = stack.pop()
        if name in found:
            continue
        node = graph.nodes[name]
        found[name] = dataclasses.replace(
            node,
            inputs=[inner(tensor) for tensor in node.inputs],
            control_inputs=waited(node.control_inputs),
        )
    body = dict(reversed(found.items()))  # what is needed first, mostly
    return Region(body, inner_results, inner_controls, list(outer))


def make_function(
    name: str,
    arguments: Iterable[tuple[str, int]],
    constants: Iterable[Node],
    region: Region,
    library: dict[str, Function],
) -> Function:
    """Makes a function of a region and puts it into a library.

    Args:
        name: The wanted name; it is made unique and legal.
        arguments: Name and `DataType` of each argument.
        constants: Nodes that the body needs besides those of the region.
        region: The body.
        library: Where the function goes.

    Returns:
        The function.
    """
    nodes: dict[str, Node] = {}
    names = []
    for place, (argument, dtype) in enumerate(arguments):
        attrs = {"T": build.type_attr(dtype), "index": build.int_attr(place)}
        nodes[argument] = Node(argument, "_Arg", attrs=attrs)
        names.append(argument)
    nodes.update({constant.name: constant for constant in constants})
    nodes.update(region.body)
    function = Function(
        _function_name(name, library.__contains__),
        names,
        region.results,
        Graph(nodes, library),
        region.controls,
    )
    library[function.name] = function
    return function


def _function_name(name: str, taken: Callable[[str], bool]) -> str:
    base = "".join(c if c.isalnum() else "_" for c in name).strip("_") or "function"
    candidate, count = base, 0
    while taken(candidate):
        count += 1
        candidate = f"{base}_{count}"
    return candidate
