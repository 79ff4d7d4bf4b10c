"""Binds what traces captured from outside to nodes of the flat graph.

Handles of variables are the variables' nodes. A lookup table is made again with its
contents, which the table initializer imports. Other tensors are constants, and large
ones variables, for a graph has no room for them.
"""

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import tensorflow as tf

from keras_metagraph.errors import ExportError
from keras_metagraph.export.names import NamedVariable
from keras_metagraph.export.scopes import layer_of
from keras_metagraph.export.trace import Trace
from keras_metagraph.graph.ir import Node

_LARGEST_CONSTANT = 1 << 20  # bytes
_CHANGES_TABLE = ("LookupTableInsert", "LookupTableRemove", "LookupTableImport")


@dataclasses.dataclass(frozen=True, slots=True)
class Table:
    """A lookup table that a model uses.

    Attributes:
        name: Name of its node.
        handle: The table's resource; its contents are read when the graph is made.
        key_dtype: Type of its keys.
        value_dtype: Type of its values.
        mutable: Whether the graph changes it.
    """

    name: str
    handle: Any
    key_dtype: tf.DType
    value_dtype: tf.DType
    mutable: bool


@dataclasses.dataclass(frozen=True, slots=True)
class Captured:
    """What traces captured, sorted.

    Attributes:
        variables: Names of variables, by the id of a captured handle or tensor.
        others: Variables, and large tensors, that the model does not list.
        tables: Lookup tables, by the id of the captured handle.
        constants: Small tensors, by their id.
    """

    variables: dict[int, str]
    others: list[Any]
    tables: dict[int, Table]
    constants: dict[int, Any]


def further_variables(
    traces: Sequence[Trace], known: Sequence[NamedVariable]
) -> list[Any]:
    """Variables that the traces use and the model does not list, in order of use."""
    handles = {id(h) for v in known for h in handles_of(v.variable)}
    found: list[Any] = []
    for trace in traces:
        by_handle = {id(h): v for v in trace.variables for h in handles_of(v)}
        for _, external in trace.captures:
            if id(external) in handles:
                continue
            if id(external) in by_handle:
                found.append(by_handle[id(external)])
            elif _is_large(external):
                found.append(LargeTensor(external, f"captured/tensor_{len(found)}"))
            else:
                continue
            handles.add(id(external))
    return found


@dataclasses.dataclass(frozen=True)
class LargeTensor:
    """A tensor that a model uses without owning it, treated as a variable."""

    tensor: Any
    name: str
    trainable: bool = False

    @property
    def dtype(self) -> tf.DType:
        """Type of its elements."""
        return self.tensor.dtype

    @property
    def shape(self) -> tf.TensorShape:
        """Its shape."""
        return self.tensor.shape

    @property
    def handle(self) -> Any:
        """What a trace captures of it: itself."""
        return self.tensor

    def read_value(self) -> Any:
        """The tensor."""
        return self.tensor

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> Any:
        """Its elements."""
        return self.tensor.numpy()


def handles_of(variable: Any) -> Iterator[Any]:
    """The resource handles of a Keras or TensorFlow variable.

    A mirrored variable has one a replica; a trace captures the first.
    """
    held = getattr(variable, "value", variable)
    held = variable if callable(held) else held
    components = getattr(held, "values", None)
    for component in components if isinstance(components, tuple | list) else [held]:
        yield component.handle


def sort_captures(
    traces: Sequence[Trace], variables: Sequence[NamedVariable]
) -> Captured:
    """Says for everything that traces captured what it becomes.

    Raises:
        ExportError: If something is neither variable nor table nor plain tensor.
    """
    names = {id(h): v.name for v in variables for h in handles_of(v.variable)}
    captured = Captured(names, [], {}, {})
    unknown: list[str] = []
    for trace in traces:
        for placeholder, external in trace.captures:
            key = id(external)
            if key in names or key in captured.tables or key in captured.constants:
                continue
            if external.dtype not in (tf.resource, tf.variant):
                captured.constants[key] = external
                continue
            table = _table(trace, placeholder, external)
            if table is not None:
                captured.tables[key] = table
            else:
                unknown.append(f"{layer_of(placeholder)}: {external!r}")
    if unknown:
        raise ExportError(
            "The model uses resources that are neither variables nor lookup tables, "
            "and cannot be written to a graph:",
            findings=unknown,
            fix="keep datasets and iterators out of the model, or leave the graph that "
            'uses them out: graphs=("predict",).',
        )
    return captured


def _is_large(external: Any) -> bool:
    if external.dtype in (tf.resource, tf.variant, tf.string):
        return False
    size = external.shape.num_elements() or 0
    return bool(size * external.dtype.size > _LARGEST_CONSTANT)


def _table(trace: Trace, placeholder: str, handle: Any) -> Table | None:
    """The table behind a captured handle, if it is one."""
    users = [n for n in trace.graph.nodes.values() if _uses(n, placeholder)]
    inner = [
        node
        for function in trace.graph.functions.values()
        for node in function.graph.nodes.values()
    ]
    lookups = [n for n in users if "Tout" in n.attrs and _is_table_op(n)] or [
        n for n in inner if "Tout" in n.attrs and _is_table_op(n)
    ]
    if not lookups:
        return None
    scope = [part for part in layer_of(placeholder).split("/") if "Lookup" not in part]
    return Table(
        name="/".join([*scope, "table"]),
        handle=handle,
        key_dtype=tf.as_dtype(lookups[0].attrs["Tin"].type),
        value_dtype=tf.as_dtype(lookups[0].attrs["Tout"].type),
        mutable=any(n.op.startswith(_CHANGES_TABLE) for n in [*users, *inner]),
    )


def _uses(node: Node, placeholder: str) -> bool:
    return any(tensor.node == placeholder for tensor in node.inputs)


def _is_table_op(node: Node) -> bool:
    return node.op.startswith("LookupTable")


def constants_and_tables(captured: Captured) -> Mapping[int, Any]:
    """Placeholder."""
    return {}
