"""Binds what traces captured from outside to nodes of the flat graph.

Handles of variables are the variables' nodes. Lookup tables are made again. Other
tensors become constants, and large ones variables, for which a graph has no room.
"""

import dataclasses
import re
from collections.abc import Iterable, Sequence
from typing import Any

import tensorflow as tf

from keras_metagraph.errors import ExportError
from keras_metagraph.export.names import NamedVariable, handles_of, node_name
from keras_metagraph.export.nodes import const_node
from keras_metagraph.export.scopes import layer_of
from keras_metagraph.export.tables import AddedTable, add_table, table_type
from keras_metagraph.export.trace import Trace
from keras_metagraph.graph.ir import Graph, TensorName

_LARGEST_CONSTANT = 1 << 20  # bytes
_LOOKUPS = re.compile("Lookup|HashTable|_lookup_table_")


@dataclasses.dataclass(frozen=True)
class LargeTensor:
    """A tensor that a model uses without owning it, kept as variables are."""

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


def copies_of(variables: Iterable[Any]) -> set[int]:
    """Ids of the handles of variables on other replicas than the first.

    Those of metrics are left out: there each replica has a part of the value. A trace
    adds the parts when it reads and divides by their number when it writes, so that
    one variable in the place of all parts gives the same metric.
    """
    return {
        id(handle)
        for variable in variables
        if not _is_in_parts(variable)
        for handle in list(handles_of(variable))[1:]
    }


def _is_in_parts(variable: Any) -> bool:
    held = getattr(variable, "value", variable)
    on_read = tf.VariableSynchronization.ON_READ
    return bool(getattr(held, "synchronization", None) == on_read)


@dataclasses.dataclass(frozen=True, slots=True)
class Bound:
    """What the captures of traces are in the flat graph.

    Attributes:
        tensors: The tensor to take, by the id of what was captured.
        tables: The lookup tables.
    """

    tensors: dict[int, TensorName]
    tables: list[AddedTable]

    def of(self, trace: Trace) -> dict[str, TensorName]:
        """The tensors to take for the placeholders of one trace."""
        return {name: self.tensors[id(external)] for name, external in trace.captures}


def further_variables(
    traces: Sequence[Trace], known: Sequence[NamedVariable]
) -> list[Any]:
    """Variables that traces use and the model does not list, in order of their use.

    Args:
        traces: The traced graphs.
        known: The model's own variables.

    Returns:
        `tf.Variable`s, and `LargeTensor`s.
    """
    seen = {id(handle) for v in known for handle in handles_of(v.variable)}
    found: list[Any] = []
    for trace in traces:
        owners = {id(handle): v for v in trace.variables for handle in handles_of(v)}
        for _, external in trace.captures:
            owner = owners.get(id(external))
            if owner is None and _is_large(external):
                owner = LargeTensor(external, f"captured/tensor_{len(found)}")
            if owner is not None and id(external) not in seen:
                seen.update(id(handle) for handle in handles_of(owner))
                found.append(owner)
    return found


def bind_captures(
    graph: Graph,
    traces: Sequence[Trace],
    variables: Sequence[NamedVariable],
    model_name: str,
    *,
    tables_in_files: bool = False,
) -> Bound:
    """Adds tables and constants to a graph, and says what each capture becomes.

    Args:
        graph: The flat graph, with the nodes of the variables in it.
        traces: The traced graphs.
        variables: All variables, those that the traces found included.
        model_name: Name of the model; its scope is left out.
        tables_in_files: Whether lookup tables read files, which lie beside the graph.

    Returns:
        The tensor for every capture.

    Raises:
        ExportError: If something is neither variable nor table nor plain tensor.
    """
    bound = Bound({}, [])
    for variable in variables:
        for handle in handles_of(variable.variable):
            bound.tensors[id(handle)] = TensorName(variable.name)
    unknown: list[str] = []
    for trace in traces:
        for placeholder, external in trace.captures:
            if id(external) in bound.tensors:
                continue
            layer = layer_of(placeholder, model_name)
            if external.dtype not in (tf.resource, tf.variant):
                name = _new_name(graph, layer, "Const")
                graph.add(const_node(name, external.numpy(), external.dtype))
            elif kind := table_type(trace.graph, placeholder):
                name = _new_name(graph, layer, "table")
                table = add_table(graph, name, external, kind, in_files=tables_in_files)
                bound.tables.append(table)
            else:
                unknown.append(f"in {layer or 'the model'}: {external!r}")
                continue
            bound.tensors[id(external)] = TensorName(name)
    if unknown:
        raise ExportError(
            "The model uses resources that are neither variables nor lookup tables, "
            "so a graph cannot hold them:",
            findings=unknown,
            fix="keep datasets and iterators out of the model, or leave the graph that "
            'uses them out: graphs=("predict",).',
        )
    return bound


def _is_large(external: Any) -> bool:
    if external.dtype in (tf.resource, tf.variant, tf.string):
        return False
    size = external.shape.num_elements() or 0
    return bool(size * external.dtype.size > _LARGEST_CONSTANT)


def _new_name(graph: Graph, layer: str, kind: str) -> str:
    """A name in the layer's scope; scopes that only a lookup opens are left out."""
    parts = [part for part in layer.split("/") if part and not _LOOKUPS.search(part)]
    return graph.unique_name(node_name("/".join([*parts, kind])))
