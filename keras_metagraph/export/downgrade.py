"""Says a graph in the ops and attributes that TensorFlow 1.15 knows."""

import dataclasses
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping

from keras_metagraph.export.op_table import known_ops
from keras_metagraph.export.rewrites import REWRITES
from keras_metagraph.export.rewrites.rewriter import Rewriter
from keras_metagraph.graph.ir import AttrValue, Graph, Node
from keras_metagraph.graph.op_defs import op_def

PRODUCER = 134
"""`VersionDef.producer` of TensorFlow 1.15.5."""

# Attributes that begin with an underscore are notes of the runtime; these two tell
# 1.15 how to run loops, and how to take their gradient.
_LOWERING = "_lower_using_switch_merge"
_KEPT_NOTES = frozenset({_LOWERING, "_num_original_outputs"})
# Whatever their values, these change neither what an op computes nor when it runs.
_HARMLESS = frozenset(
    {
        "bad_indices_policy",
        "debug_name",
        "grad_a",
        "grad_b",
        "grad_x",
        "grad_y",
        "metadata",
        "validate_shape",
    }
)


@dataclasses.dataclass(frozen=True, slots=True)
class Unsupported:
    """A node that TensorFlow 1.15 cannot run.

    Attributes:
        node: Its name.
        op: Its op.
        reason: What 1.15 lacks.
    """

    node: str
    op: str
    reason: str


def downgrade(graph: Graph) -> list[Unsupported]:
    """Rewrites a graph and its functions for TensorFlow 1.15, in place.

    Args:
        graph: The flat graph.

    Returns:
        The nodes for which there is no way.
    """
    graph.producer = PRODUCER
    unsupported = _downgrade_nodes(graph)
    for function in graph.functions.values():
        unsupported += [
            dataclasses.replace(found, node=f"{function.name}/{found.node}")
            for found in _downgrade_nodes(function.graph)
        ]
    return unsupported


def strip_notes(graph: Graph) -> None:
    """Removes the runtime's notes from the nodes of a graph and its functions."""
    for node in _all_nodes(graph):
        node.attrs = {
            name: value
            for name, value in node.attrs.items()
            if not name.startswith("_") or name in _KEPT_NOTES
        }


def keep_functional(graph: Graph) -> None:
    """Removes the note that control flow is lowered to `Switch` and `Merge`.

    Converters heed it too, and then find loops that they cannot read.
    """
    for node in _all_nodes(graph):
        node.attrs.pop(_LOWERING, None)


def _all_nodes(graph: Graph) -> Iterator[Node]:
    for body in (graph, *(function.graph for function in graph.functions.values())):
        yield from body.nodes.values()


def explain(unsupported: Iterable[Unsupported], layers: Mapping[str, str]) -> list[str]:
    """One line for each op and layer: what it is, why not, how many nodes."""
    counts = Counter(
        (found.op, layers.get(found.node, found.node), found.reason)
        for found in unsupported
    )
    return [
        f"{op} in {layer or 'the model'}: {reason}"
        + (f" ({count} nodes)" if count > 1 else "")
        for (op, layer, reason), count in counts.items()
    ]


def _downgrade_nodes(graph: Graph) -> list[Unsupported]:
    """Rewrites the nodes of one body, then strips their attributes."""
    refused: dict[str, Unsupported] = {}
    for node in list(graph.nodes.values()):
        if node.op in REWRITES:
            op = node.op
            reason = REWRITES[op](Rewriter(graph, node))
            if reason is not None:
                refused[node.name] = Unsupported(node.name, op, reason)
    _drop_unused(graph)
    for node in graph.nodes.values():
        if node.op != "_Arg" and node.name not in refused:
            reason = _strip(node)
            if reason is not None:
                refused[node.name] = Unsupported(node.name, node.op, reason)
    return list(refused.values())


def _strip(node: Node) -> str | None:
    """Removes attributes that 1.15 does not know; says what cannot be removed."""
    known = known_ops().get(node.op)
    if known is None:
        return "TensorFlow 1.15 has no such op"
    definition = op_def(node.op)
    defaults = (
        {}
        if definition is None
        else {
            each.name: each.default_value
            for each in definition.attr
            if each.HasField("default_value")
        }
    )
    for name in list(node.attrs):
        if name in known or name.startswith("_"):
            continue
        value = node.attrs[name]
        if name not in _HARMLESS and value != defaults.get(name):
            return f"TensorFlow 1.15 has no {name}={_shown(value)}"
        del node.attrs[name]
    return None


def _shown(value: AttrValue) -> str:
    return " ".join(str(value).split())


def _drop_unused(graph: Graph) -> None:
    """Removes key-and-counter nodes, whose users now take the seed itself."""
    used = {tensor.node for node in graph.nodes.values() for tensor in node.inputs}
    for name, node in list(graph.nodes.items()):
        if node.op.startswith("StatelessRandomGet") and name not in used:
            del graph.nodes[name]
