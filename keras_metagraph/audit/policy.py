"""Which ops may run, and with which attributes.

An allow-list: `allowed_ops.json` names the ops that compute on their inputs, hold a
model's own state, or steer the graph. What touches files, sockets, other programs or
the process is refused by category; what no list names is unknown.
"""

import dataclasses
import functools
import importlib.resources
import json
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from keras_metagraph.audit import rules
from keras_metagraph.audit.limits import DEFAULT_LIMITS, Limits
from keras_metagraph.errors import UnsupportedOpError, UntrustedContentError
from keras_metagraph.graph.ir import Graph, Node

UNKNOWN = "unknown_op"

REASONS: Mapping[str, str] = {
    "checkpoint_io": "reads or writes checkpoints of any path",
    "collective_comm": "talks to other devices and processes",
    "cross_process_state": "reaches objects outside the graph",
    "encoded_object": "holds an encoded object instead of numbers",
    "experimental": "is experimental and has no meaning outside a compiler",
    "file_read": "reads files",
    "file_write": "writes files",
    "filesystem_config": "changes how files are reached",
    "input_pipeline": "belongs to an input pipeline, not to a model",
    "native_decoder": "unpacks data whose size nothing bounds",
    "nested_program": "holds another program, which cannot be looked at",
    "network": "opens network connections",
    "process_abort_or_hang": "can wait forever or end the process",
    "python_callback": "calls Python functions of the running process",
    "resource_exhaustion": "makes a tensor that is larger than any model needs",
    "runtime_internal": "is internal to TensorFlow's runtime",
    "test_only_op": "is there for TensorFlow's own tests",
    "tpu_system": "controls TPUs",
    "unbounded_loop_or_call": "runs functions in a way that cannot be checked",
    UNKNOWN: "is known neither to TensorFlow nor to this package",
}


@dataclasses.dataclass(frozen=True, slots=True)
class Finding:
    """A node that is not to be run.

    Attributes:
        node: Its name; `function/node` inside a function.
        op: Its op type.
        category: Why, in a word; a key of `REASONS`.
        reason: Why, as the end of a sentence that begins with the op.
    """

    node: str
    op: str
    category: str
    reason: str


def audit_ops(
    graph: Graph,
    *,
    names: Iterable[str] | None = None,
    limits: Limits = DEFAULT_LIMITS,
) -> list[Finding]:
    """Looks at every node that would run, also inside functions.

    Args:
        graph: The graph.
        names: The nodes that would run; None for all.
        limits: How large tensors may become.

    Returns:
        The nodes that are not to be run, in the graph's order.

    Example:
        >>> audit_ops(graph, names=graph.ancestors(["logits"]))
        []
    """
    wanted = graph.nodes if names is None else set(names)
    nodes = [node for name, node in graph.nodes.items() if name in wanted]
    findings = list(_audit_nodes(nodes, graph, "", limits))
    seen: set[str] = set()
    waiting = list(_called(nodes, graph))
    for name in waiting:
        if name in seen:
            continue
        seen.add(name)
        body = graph.functions[name].graph
        inside = list(body.nodes.values())
        findings.extend(
            _audit_nodes(
                inside,
                dataclasses.replace(body, functions=graph.functions),
                f"{name}/",
                limits,
            )
        )
        waiting.extend(_called(inside, graph))
        if graph.functions[name].gradient in graph.functions:
            waiting.append(graph.functions[name].gradient)
    return findings


def require_safe(graph: Graph, limits: Limits = DEFAULT_LIMITS) -> None:
    """Refuses a graph with ops that are not to be run.

    Args:
        graph: Just what would run: `graph.subgraph(graph.ancestors(outputs))`.
        limits: How large tensors may become.

    Raises:
        UntrustedContentError: If ops reach beyond the graph; lists all of them.
        UnsupportedOpError: If there are only ops that nobody knows; lists all of them.
    """
    findings = audit_ops(graph, limits=limits)
    refused = [finding for finding in findings if finding.category != UNKNOWN]
    unknown = [finding for finding in findings if finding.category == UNKNOWN]
    if refused:
        raise UntrustedContentError(
            "The graph has ops that are not run without your consent:",
            findings=[*_by_op(refused), *_by_op(unknown)],
            fix="name inputs and outputs between which these ops do not lie "
            "(inspect_meta_graph lists the tensors); or, for a file that you trust "
            "as you would trust a program, pass safe_mode=False.",
        )
    if unknown:
        raise UnsupportedOpError(
            "The graph has ops that this TensorFlow does not have (of contrib, of a "
            "custom library, or removed since):",
            findings=_by_op(unknown),
            fix="name inputs and outputs between which these ops do not lie; or load "
            "the library that has them (tf.load_op_library) and pass "
            "safe_mode=False.",
        )


def known_ops() -> frozenset[str]:
    """All ops that the lists name, allowed or refused."""
    return frozenset(_categories())


def category(op: str) -> str | None:
    """The category for which an op is refused; None if it is allowed."""
    return _categories().get(op, UNKNOWN)


@functools.cache
def _categories() -> Mapping[str, str | None]:
    """The category of every listed op; None for those that are allowed."""
    text = (importlib.resources.files(__package__) / "allowed_ops.json").read_text()
    lists: dict[str, Any] = json.loads(text)
    categories: dict[str, str | None] = dict.fromkeys(lists["allowed"])
    for name, ops in lists["refused"].items():
        categories.update(dict.fromkeys(ops, name))
    return categories


def _audit_nodes(
    nodes: Iterable[Node], graph: Graph, where: str, limits: Limits
) -> Iterator[Finding]:
    for node in nodes:
        # A function may be called by its name, but does not hide an op.
        called = node.op in graph.functions and category(node.op) == UNKNOWN
        found = None if called else category(node.op)
        if found is not None:
            yield Finding(where + node.name, node.op, found, REASONS[found])
            continue
        for name, detail in rules.broken_rules(node, graph, limits):
            reason = f"{REASONS[name]} ({detail})"
            yield Finding(where + node.name, node.op, name, reason)


def _called(nodes: Iterable[Node], graph: Graph) -> Iterator[str]:
    for node in nodes:
        for name in (node.op, *rules.bound_functions(node)):
            if name in graph.functions:
                yield name


def _by_op(findings: Iterable[Finding]) -> list[str]:
    """One line for all nodes of an op that are refused for the same reason."""
    groups: dict[tuple[str, str], list[str]] = {}
    for finding in findings:
        groups.setdefault((finding.op, finding.reason), []).append(finding.node)
    return [
        f"{op} {reason}: {', '.join(nodes[:5])}"
        + (f" and {len(nodes) - 5} more" if len(nodes) > 5 else "")
        for (op, reason), nodes in groups.items()
    ]
