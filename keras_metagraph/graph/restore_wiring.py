"""Follows the nodes of a Saver from the checkpoint's keys to the variables."""

import dataclasses
import re
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from keras_metagraph.graph.ir import Graph, Node, TensorName
from keras_metagraph.graph.passes.inline_calls import inline_calls

MetaGraphDef = Any

_RESTORE_OPS = frozenset({"RestoreV2", "Restore", "RestoreSlice"})
_ASSIGN_OPS = frozenset({"Assign", "AssignVariableOp"})
TABLE_IMPORTS = frozenset({"LookupTableImport", "LookupTableImportV2"})
"""Ops that put contents into a mutable table."""
_PASSED = frozenset({"Identity", "IdentityN", "RefIdentity", "Reshape"})
_RESTORE_ALL = re.compile(r"(?:^|/)save(?:_\d+)?/restore_all$")


@dataclasses.dataclass(frozen=True, slots=True)
class Slice:
    """A part of a tensor of the checkpoint.

    Attributes:
        full_name: Name of the partitioned variable.
        full_shape: Shape of the whole tensor.
        offset: Where the part begins, by dimension.
        shape: Shape of the part.
    """

    full_name: str
    full_shape: tuple[int, ...]
    offset: tuple[int, ...]
    shape: tuple[int, ...]


@dataclasses.dataclass(frozen=True, slots=True)
class Restored:
    """What a variable is restored from.

    Attributes:
        key: The tensor of the checkpoint.
        slice: The part of that tensor, if not all of it.
        reshape: Whether the tensor is reshaped before it is assigned.
    """

    key: str
    slice: Slice | None = None
    reshape: bool = False


def restored_variables(
    meta_graph_def: MetaGraphDef, graph: Graph
) -> dict[str, Restored]:
    """Reads the saver of a graph.

    Args:
        meta_graph_def: The MetaGraph: `saver_def` names the operation that restores.
        graph: Its graph.

    Returns:
        What each variable that the saver knows is restored from, by node name; empty
        if the graph has no saver.
    """
    found: dict[str, Restored] = {}
    roots = _restore_operations(meta_graph_def, graph)
    # TensorFlow 2 restores in a function.
    graph = inline_calls(graph, roots).graph
    for root in roots:
        for node in _restoring_assigns(graph, root):
            source = _source(graph, node.inputs[1])
            if source is None:
                continue
            reader, index, reshape = source
            key = _key(graph, reader, index)
            if not key:
                continue
            part = parse_slice(key, _string_at(graph, _input(reader, 2), index))
            variable = _through(graph, node.inputs[0])
            found[variable] = Restored(key, part, reshape)
        if found:
            break
    return found


def keys_read(meta_graph_def: MetaGraphDef, graph: Graph) -> set[str]:
    """The keys of the checkpoint that the saver of a graph asks for.

    Args:
        meta_graph_def: The MetaGraph: `saver_def` names the operation that restores.
        graph: Its graph.

    Returns:
        The keys, of variables or not; a checkpoint without one of them is refused.
    """
    roots = _restore_operations(meta_graph_def, graph)[:1]
    nodes = (graph.nodes[name] for name in graph.ancestors(roots))
    return {
        key.decode(errors="replace")
        for node in nodes
        if node.op in _RESTORE_OPS
        for key in _strings(graph, _input(node, 1))
    }


def saver_fills(meta_graph_def: MetaGraphDef, graph: Graph) -> list[str]:
    """Nodes by which the saver of a graph fills tables, and not from the checkpoint.

    Args:
        meta_graph_def: The MetaGraph: `saver_def` names the operation that restores.
        graph: Its graph.

    Returns:
        Their names; mutable tables whose contents are in the graph are filled so.
    """
    roots = _restore_operations(meta_graph_def, graph)[:1]
    return [
        name
        for root in roots
        for name in _control_cone(graph, root)
        if graph.nodes[name].op in TABLE_IMPORTS
        and not any(restored_key(graph, t) for t in graph.nodes[name].inputs[1:])
    ]


def restored_key(graph: Graph, tensor: TensorName) -> str:
    """The key of the checkpoint that a tensor is read from.

    Args:
        graph: The graph.
        tensor: A tensor.

    Returns:
        The key; empty if the tensor is something else, or a slice.
    """
    source = _source(graph, tensor)
    if source is None:
        return ""
    reader, index, _ = source
    part = _string_at(graph, _input(reader, 2), index)
    return "" if part else _key(graph, reader, index)


def parse_slice(name: str, text: str) -> Slice | None:
    """Reads a slice as savers write it.

    Args:
        name: The name of the whole tensor.
        text: Its shape and the part, each dimension `start,length` or `-` for all:
            `"10 4 0,5:-"`. Empty for the whole tensor.

    Returns:
        The slice; None for the whole tensor, or a text that is none.

    Example:
        >>> parse_slice("emb", "10 4 0,5:-").shape
        (5, 4)
    """
    *dims, spec = text.split(" ")
    if not dims:
        return None
    try:
        full = tuple(int(dim) for dim in dims)
        spans = [
            (0, size) if span == "-" else tuple(int(part) for part in span.split(","))
            for size, span in zip(full, spec.split(":"), strict=True)
        ]
        offset, shape = zip(*spans, strict=True)
    except ValueError:
        return None
    return Slice(name, full, offset, shape)


def _restore_operations(meta_graph_def: MetaGraphDef, graph: Graph) -> Sequence[str]:
    """The operations that may restore the checkpoint; the first that does counts."""
    name = meta_graph_def.saver_def.restore_op_name.removeprefix("^")
    if name in graph.nodes:
        return [name]
    named = (n for n in graph.nodes if _RESTORE_ALL.search(n))
    return sorted(named, key=lambda n: (n.count("/"), len(n), n))


def _restoring_assigns(graph: Graph, root: str) -> Iterator[Node]:
    for name in _control_cone(graph, root):
        node = graph.nodes[name]
        if node.op in _ASSIGN_OPS and len(node.inputs) > 1:
            yield node


def _control_cone(graph: Graph, root: str) -> Iterable[str]:
    """Nodes that run for `root`, through groups of operations but not into values."""
    seen, queue = {root: None}, [root]
    for name in queue:
        for before in graph.nodes[name].control_inputs:
            if before in graph.nodes and before not in seen:
                seen[before] = None
                queue.append(before)
    return seen


def _source(graph: Graph, tensor: TensorName) -> tuple[Node, int, bool] | None:
    """The node that reads the checkpoint for a tensor, its output, and any reshape."""
    reshape = False
    for _ in range(len(graph.nodes)):
        node = graph.nodes.get(tensor.node)
        if node is None:
            return None
        if node.op in _RESTORE_OPS:
            return node, tensor.index, reshape
        if node.op not in _PASSED or not node.inputs:
            return None
        reshape = reshape or node.op == "Reshape"
        passed = _passed(node, tensor.index)
        if passed is None:
            return None
        tensor = passed
    return None


def _passed(node: Node, index: int) -> TensorName | None:
    """The input that a node passes on as one of its outputs."""
    return _input(node, index if node.op == "IdentityN" else 0)


def _key(graph: Graph, reader: Node, index: int) -> str:
    """The key that a node reads for one of its outputs."""
    return _string_at(graph, _input(reader, 1), index)


def _through(graph: Graph, tensor: TensorName) -> str:
    """The node that a tensor comes from, identities left aside."""
    for _ in range(len(graph.nodes)):
        node = graph.nodes.get(tensor.node)
        if node is None or node.op not in _PASSED or not node.inputs:
            break
        tensor = _passed(node, tensor.index) or node.inputs[0]
    return tensor.node


def _input(node: Node, index: int) -> TensorName | None:
    return node.inputs[index] if index < len(node.inputs) else None


def _string_at(graph: Graph, tensor: TensorName | None, index: int) -> str:
    """One string of a constant vector; its last value stands for those left out."""
    values = _strings(graph, tensor)
    return (
        values[min(index, len(values) - 1)].decode(errors="replace") if values else ""
    )


def _strings(graph: Graph, tensor: TensorName | None) -> Sequence[bytes]:
    """The strings of a constant vector."""
    node = None if tensor is None else graph.nodes.get(_through(graph, tensor))
    if node is None or node.op != "Const" or "value" not in node.attrs:
        return ()
    values: Sequence[bytes] = node.attrs["value"].tensor.string_val
    return values
