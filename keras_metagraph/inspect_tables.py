"""The tables that `inspect_meta_graph` prints."""

import itertools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from rich import box
from rich.console import RenderableType
from rich.table import Table
from rich.text import Text

from keras_metagraph.loading.infer import Interface
from keras_metagraph.loading.summary import (
    GraphSummary,
    RefusedOp,
    SignatureSummary,
    TensorSummary,
    VariableSummary,
)

_ROWS = 20  # of a table; the rest is counted
_OPS = 24


def head(path: str, kind: str, checkpoint: str | None, note: str) -> RenderableType:
    """The first lines: which files.

    Args:
        path: The file that holds the graphs.
        kind: `"meta_graph"` or `"saved_model"`.
        checkpoint: Prefix of the checkpoint, if there is one.
        note: What is wrong with it.

    Returns:
        A table.
    """
    table = _fields()
    table.add_row("file", path)
    table.add_row("format", {"saved_model": "SavedModel"}.get(kind, "MetaGraph"))
    table.add_row("checkpoint", checkpoint or "none")
    if note:
        table.add_row("", Text(note, style="red"))
    return table


def graph_tables(graph: GraphSummary) -> Iterator[RenderableType]:
    """All tables of one graph.

    Args:
        graph: Its summary.

    Yields:
        Tables and texts, in reading order.
    """
    yield _facts(graph)
    for problem in graph.problems:
        yield Text(problem, style="red")
    if not graph.problems:
        yield _interface(graph.interface, graph.tensors)
        yield from _notes(graph.interface)
        yield from _refused(graph.refused)
    if graph.signatures:
        yield signatures_table(graph.signatures, "Signatures", _ROWS)
    if graph.variables:
        yield _variables(graph.variables)
    if graph.unused:
        yield _line("In the checkpoint, not in the graph", graph.unused)
    if graph.collections:
        members = [f"{c.name} ({c.count} {c.kind})" for c in graph.collections]
        yield _line("Collections", members)
    ops = [f"{op} {count}" for op, count in graph.ops.items()]
    yield _line(f"Ops ({len(ops)} types)", ops, _OPS)


def _facts(graph: GraphSummary) -> RenderableType:
    table = _fields(title=f"Graph {' + '.join(graph.tags)}" if graph.tags else "Graph")
    table.add_row("written by", graph.written_by)
    functions = f", {graph.functions} functions" if graph.functions else ""
    table.add_row(
        "nodes", f"{graph.nodes}{functions} (GraphDef version {graph.producer})"
    )
    trained = sum(variable.trainable for variable in graph.variables)
    stored = sum(variable.stored is True for variable in graph.variables)
    table.add_row(
        "variables",
        f"{len(graph.variables)}, {trained} trainable, {stored} in the checkpoint",
    )
    for optimizer in graph.optimizers:
        about = f", {len(optimizer.variables)} variables"
        table.add_row("optimizer", "; ".join([f"{optimizer}{about}", *optimizer.notes]))
    return table


def _interface(
    interface: Interface, tensors: Mapping[str, TensorSummary]
) -> RenderableType:
    table = _table("Interface", "part", "name", "tensor", "why")

    def add(part: str, key: str, name: str) -> None:
        spec = tensors.get(name)
        what = f"{name}\n{spec}" if spec else name
        table.add_row(part, key, what, interface.reasons.get(name, ""))

    for part, names in (
        ("input", interface.inputs),
        ("output", interface.outputs),
        ("label", interface.labels),
    ):
        for key, name in list(names.items())[:_ROWS]:
            add(part, key, name)
        if len(names) > _ROWS:
            table.add_row(part, f"and {len(names) - _ROWS} more", "", "")
    if interface.loss:
        add("loss", "", interface.loss)
    for name in interface.train_op[:_ROWS]:
        add("train op", "", name)
    for name, (training, otherwise) in interface.training_values.items():
        add("fed", f"{training} / {otherwise}", name)
    for name in interface.unfed:
        add("not fed", "", name)
    return table


def _notes(interface: Interface) -> Iterator[RenderableType]:
    for part, names in (
        ("Update ops", interface.updates),
        ("Regularization losses", interface.losses),
    ):
        if names:
            yield _line(part, names, 6)
    for part, names in interface.alternatives.items():
        yield _line(f"Not taken as {part.replace('_', ' ')}", names, 6)
    for text in interface.warnings:
        yield Text(f"! {text}", style="yellow")
    if interface.dropped:
        yield _line("Ignored", interface.dropped, 6)


def _refused(refused: Sequence[RefusedOp]) -> Iterator[RenderableType]:
    needed = [each for each in refused if each.needed_by]
    if needed:
        table = _table("Not run unless you trust the file", "op", "why", "nodes", "for")
        for each in needed:
            table.add_row(each.op, each.reason, _short(each.nodes, 3), each.needed_by)
        yield table
    rest = dict.fromkeys(each.op for each in refused if not each.needed_by)
    if rest:
        yield _line("Refused, but not needed", list(rest), 12)
    if not needed:
        yield Text("Nothing that the model needs is refused.", style="green")


def signatures_table(
    signatures: Sequence[SignatureSummary], title: str, most: int | None = None
) -> RenderableType:
    """The signatures with their method names, inputs and outputs.

    Args:
        signatures: The signatures.
        title: What stands above them.
        most: How many inputs and outputs of each are shown; `None` for all.

    Returns:
        A table.
    """
    table = _table(title, "signature", "key", "tensor", "type")
    for signature in signatures:
        # The method name stands below the key: "serving/predict".
        names = [signature.name]
        if signature.method:
            names.append(f"  {signature.method.removeprefix('tensorflow/')}")
        rows = []
        for arrow, side in (("in ", signature.inputs), ("out", signature.outputs)):
            for key, tensor in list(side.items())[:most]:
                named = tensor.tensor.replace(" ", "\n")
                rows.append((f"{arrow} {key}", named, str(tensor)))
            if most is not None and len(side) > most:
                rows.append((f"{arrow} and {len(side) - most} more", "", ""))
        for name, row in itertools.zip_longest(names, rows):
            table.add_row(name or "", *(row or ()))
    return table


def _variables(variables: Sequence[VariableSummary]) -> RenderableType:
    table = _table("Variables", "name", "type", "trained", "checkpoint")
    for variable in variables[:_ROWS]:
        shape = "unknown shape" if variable.shape is None else str(variable.shape)
        table.add_row(
            variable.name,
            f"{variable.dtype} {shape}",
            "yes" if variable.trainable else "",
            _stored(variable),
        )
    if len(variables) > _ROWS:
        table.add_row(f"and {len(variables) - _ROWS} more", "", "", "")
    return table


def _stored(variable: VariableSummary) -> str:
    if variable.stored is None:
        return ""
    if not variable.stored:
        return "missing"
    return "yes" if variable.key == variable.name else f"as {variable.key}"


def _fields(**kwargs: Any) -> Table:
    """A table of names and values, without lines."""
    table = Table(box=None, show_header=False, title_justify="left", **kwargs)
    table.add_column(style="bold", no_wrap=True)
    table.add_column(overflow="fold")
    return table


def _table(title: str, *columns: str) -> Table:
    table = Table(
        title=title, box=box.SIMPLE_HEAD, title_justify="left", pad_edge=False
    )
    for column in columns:
        table.add_column(column, overflow="fold")
    return table


def _line(title: str, names: Sequence[str], count: int = _ROWS) -> RenderableType:
    return Text.assemble((f"{title}: ", "bold"), _short(names, count))


def _short(names: Iterable[str], count: int) -> str:
    names = list(names)
    more = f" and {len(names) - count} more" if len(names) > count else ""
    return f"{', '.join(names[:count])}{more}"
