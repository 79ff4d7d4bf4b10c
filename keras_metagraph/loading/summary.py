"""Summarizes a MetaGraph without running any of it."""

import dataclasses
from collections import Counter
from collections.abc import Collection, Mapping
from typing import Any

import tensorflow as tf
from google.protobuf.message import DecodeError
from tensorflow.core.framework.variable_pb2 import VariableDef

from keras_metagraph.audit import audit_ops, check_structure
from keras_metagraph.checkpoint.restore import TensorReader
from keras_metagraph.errors import MetaGraphError, SignatureError
from keras_metagraph.graph.from_proto import graph_from_proto
from keras_metagraph.graph.ir import Graph, TensorName
from keras_metagraph.graph.passes import repair
from keras_metagraph.graph.specs import tensor_spec
from keras_metagraph.graph.tables import unread_files
from keras_metagraph.graph.variables import GraphVariable, graph_variables
from keras_metagraph.loading.infer import (
    Interface,
    OptimizerDescription,
    describe_optimizer,
    infer_interface,
)
from keras_metagraph.loading.infer.analysis import GraphAnalysis
from keras_metagraph.loading.infer.signatures import signature_defs

OWN_COLLECTION = "keras_metagraph"
_KINDS = {
    "node_list": "nodes",
    "bytes_list": "byte strings",
    "int64_list": "integers",
    "float_list": "floats",
}


@dataclasses.dataclass(frozen=True)
class TensorSummary:
    """A tensor as the file declares it.

    Attributes:
        tensor: Its name; those of the parts of a sparse or ragged one, with spaces.
        dtype: Its dtype; empty where the file does not tell.
        shape: Its shape, `None` for unknown dimensions; `None` for an unknown rank.
    """

    tensor: str
    dtype: str
    shape: tuple[int | None, ...] | None

    def __str__(self) -> str:
        shape = "of unknown shape" if self.shape is None else str(self.shape)
        return f"{self.dtype or 'unknown dtype'} {shape}"


@dataclasses.dataclass(frozen=True)
class VariableSummary:
    """A variable of a graph, and what the checkpoint has for it.

    Attributes:
        name: Name of its node.
        dtype: Its dtype.
        shape: Its shape; `None` for an unknown rank.
        trainable: Whether the graph trains it.
        key: The tensor of the checkpoint that it is restored from.
        stored: Whether the checkpoint has that tensor; `None` without a checkpoint.
    """

    name: str
    dtype: str
    shape: tuple[int | None, ...] | None
    trainable: bool
    key: str | None
    stored: bool | None


@dataclasses.dataclass(frozen=True)
class CollectionSummary:
    """A collection: how many members, and of what kind.

    Attributes:
        name: Its name.
        count: How many members it has.
        kind: `"nodes"`, `"variables"`, `"byte strings"`, `"integers"`, `"floats"`, or
            the type of its messages.
    """

    name: str
    count: int
    kind: str


@dataclasses.dataclass(frozen=True)
class SignatureSummary:
    """A signature.

    Attributes:
        name: Its name.
        method: Its method name.
        inputs: Tensors by key.
        outputs: Tensors by key.
    """

    name: str
    method: str
    inputs: dict[str, TensorSummary]
    outputs: dict[str, TensorSummary]


@dataclasses.dataclass(frozen=True)
class RefusedOp:
    """An op that is not run, with all nodes of one kind.

    Attributes:
        op: The op type.
        category: Why, in a word.
        reason: Why, as the end of a sentence that begins with the op.
        nodes: Names of the nodes.
        needed_by: `"outputs"`, `"training"` or `""`: what cannot run without them.
    """

    op: str
    category: str
    reason: str
    nodes: tuple[str, ...]
    needed_by: str


@dataclasses.dataclass(frozen=True)
class GraphSummary:
    """One MetaGraph of a file.

    Attributes:
        tags: Its tags, in a SavedModel.
        written_by: What wrote it, as far as the file tells.
        tensorflow: The TensorFlow version that wrote it; empty where unknown.
        producer: The version of the GraphDef (`VersionDef.producer`).
        own: Whether this package wrote it.
        nodes: How many nodes it has, not counting those of functions.
        functions: How many functions it has.
        ops: How often each op occurs, functions included; the commonest first.
        variables: Its variables.
        unused: Keys of the checkpoint that no variable takes.
        collections: Its collections.
        signatures: Its signatures.
        interface: What a load would take for inputs, outputs and so on.
        tensors: The tensors that the interface names.
        optimizers: The optimizers that the training step runs.
        refused: Ops that are not run.
        problems: Why parts of this summary are missing.
    """

    tags: tuple[str, ...]
    written_by: str
    tensorflow: str
    producer: int
    own: bool
    nodes: int
    functions: int
    ops: dict[str, int]
    variables: tuple[VariableSummary, ...] = ()
    unused: tuple[str, ...] = ()
    collections: tuple[CollectionSummary, ...] = ()
    signatures: tuple[SignatureSummary, ...] = ()
    interface: Interface = dataclasses.field(default_factory=Interface)
    tensors: dict[str, TensorSummary] = dataclasses.field(default_factory=dict)
    optimizers: tuple[OptimizerDescription, ...] = ()
    refused: tuple[RefusedOp, ...] = ()
    problems: tuple[str, ...] = ()

    @property
    def blocked(self) -> bool:
        """Whether the outputs need ops that are not run."""
        return any(refused.needed_by == "outputs" for refused in self.refused)


def summarize(
    meta_graph_def: Any,
    reader: TensorReader | None = None,
    readable: Collection[str] = (),
) -> GraphSummary:
    """Summarizes a MetaGraph.

    Args:
        meta_graph_def: The MetaGraph, as parsed.
        reader: Its checkpoint, if there is one; only names and shapes are read.
        readable: Operations that fill tables from files which are read unasked.

    Returns:
        The summary. A graph that does not hold together has only counts in it, and
        says why in `problems`.
    """
    summary = _counts(meta_graph_def)
    try:
        check_structure(meta_graph_def)
        graph = repair(graph_from_proto(meta_graph_def.graph_def))
    except MetaGraphError as error:
        return dataclasses.replace(summary, problems=(str(error),))
    variables = graph_variables(meta_graph_def, graph)
    summary = dataclasses.replace(
        summary,
        variables=tuple(_variable(v, reader) for v in variables.values()),
        unused=_unused(variables, reader),
        signatures=summarize_signatures(meta_graph_def, graph),
    )
    try:
        interface = infer_interface(meta_graph_def, graph, variables)
    except MetaGraphError as error:
        return dataclasses.replace(summary, problems=(str(error),))
    return dataclasses.replace(
        summary,
        interface=interface,
        tensors=_interface_tensors(graph, interface),
        optimizers=tuple(describe_optimizer(graph, variables, interface.train_op)),
        refused=tuple(_refused(graph, variables, interface, readable)),
    )


def _counts(meta_graph_def: Any) -> GraphSummary:
    """What needs no look into the graph."""
    graph_def, info = meta_graph_def.graph_def, meta_graph_def.meta_info_def
    functions = graph_def.library.function
    ops = Counter(node.op for node in graph_def.node)
    for function in functions:
        ops.update(node.op for node in function.node_def)
    own = OWN_COLLECTION in meta_graph_def.collection_def
    version = info.tensorflow_version
    writer = f"TensorFlow {version}" if version else "TensorFlow of unknown version"
    return GraphSummary(
        tags=tuple(info.tags),
        written_by=f"keras_metagraph with {writer}" if own else writer,
        tensorflow=version,
        producer=graph_def.versions.producer or graph_def.version,
        own=own,
        nodes=len(graph_def.node),
        functions=len(functions),
        ops=dict(ops.most_common()),
        collections=tuple(
            _collection(name, meta_graph_def.collection_def[name])
            for name in sorted(meta_graph_def.collection_def)
        ),
    )


def _collection(name: str, collection: Any) -> CollectionSummary:
    kind = collection.WhichOneof("kind")
    if kind is None:
        return CollectionSummary(name, 0, "nothing")
    values = getattr(collection, kind).value
    if kind == "any_list":
        types = {value.type_url.rpartition("/")[2] for value in values}
        return CollectionSummary(name, len(values), ", ".join(sorted(types)))
    if kind == "bytes_list" and _are_variables(values):
        return CollectionSummary(name, len(values), "variables")
    return CollectionSummary(name, len(values), _KINDS[kind])


def _are_variables(values: Collection[bytes]) -> bool:
    try:
        return all(
            VariableDef.FromString(value).variable_name.endswith(":0")
            for value in values
        )
    except DecodeError:
        return False


def _variable(variable: GraphVariable, reader: TensorReader | None) -> VariableSummary:
    return VariableSummary(
        variable.name,
        variable.dtype.name,
        variable.shape,
        variable.trainable,
        variable.checkpoint_key,
        None if reader is None else variable.checkpoint_key in reader,
    )


def _unused(
    variables: Mapping[str, GraphVariable], reader: TensorReader | None
) -> tuple[str, ...]:
    used = {variable.checkpoint_key for variable in variables.values()}
    return tuple(key for key in (reader.keys() if reader else ()) if key not in used)


def summarize_signatures(
    meta_graph_def: Any, graph: Graph | None = None
) -> tuple[SignatureSummary, ...]:
    """Summarizes the signatures of a MetaGraph.

    Args:
        meta_graph_def: The MetaGraph, as parsed.
        graph: Its graph, to look up what the signatures do not say.

    Returns:
        The signatures, by name in the alphabet's order; not those that TensorFlow
        reserves for itself.
    """

    def side(infos: Mapping[str, Any]) -> dict[str, TensorSummary]:
        return {key: _declared(infos[key], graph) for key in sorted(infos)}

    return tuple(
        SignatureSummary(
            name,
            definition.method_name,
            side(definition.inputs),
            side(definition.outputs),
        )
        for name, definition in signature_defs(meta_graph_def).items()
    )


def _declared(info: Any, graph: Graph | None) -> TensorSummary:
    """What a `TensorInfo` says, and of what it leaves open the graph."""
    parts = info.composite_tensor.components
    names = [part.name for part in parts] or [info.name]
    if info.HasField("coo_sparse"):
        sparse = info.coo_sparse
        names = [
            sparse.indices_tensor_name,
            sparse.values_tensor_name,
            sparse.dense_shape_tensor_name,
        ]
    number = parts[0].dtype if parts else info.dtype
    says = info.HasField("tensor_shape") or len(names) > 1
    if graph is not None and not (number and says):
        return _tensor(graph, TensorName.parse(names[0]))
    shape = tf.TensorShape(info.tensor_shape if info.HasField("tensor_shape") else None)
    return TensorSummary(
        " ".join(names),
        tf.dtypes.as_dtype(number).name if number else "",
        None if shape.rank is None else tuple(shape.as_list()),
    )


def _tensor(graph: Graph, tensor: TensorName) -> TensorSummary:
    try:
        spec = tensor_spec(graph, tensor)
    except (SignatureError, TypeError, ValueError):
        return TensorSummary(str(tensor), "", None)
    shape = None if spec.shape.rank is None else tuple(spec.shape.as_list())
    return TensorSummary(str(tensor), spec.dtype.name, shape)


def _interface_tensors(graph: Graph, interface: Interface) -> dict[str, TensorSummary]:
    names = [
        *interface.inputs.values(),
        *interface.outputs.values(),
        *interface.labels.values(),
        *interface.training_values,
        *interface.unfed,
        *([interface.loss] if interface.loss else []),
    ]
    return {
        name: _tensor(graph, TensorName.parse(name)) for name in dict.fromkeys(names)
    }


def _refused(
    graph: Graph,
    variables: Mapping[str, GraphVariable],
    interface: Interface,
    readable: Collection[str],
) -> list[RefusedOp]:
    """The ops that the audit refuses, by what needs them."""
    cones = _cones(GraphAnalysis(graph, variables), interface)
    for needed in cones.values():
        files = {node.name for node in unread_files(graph, needed)}
        needed |= files.difference(readable)
    parts: dict[str, Collection[str]] = {**cones, "": graph.nodes}
    groups: dict[tuple[str, str, str, str], list[str]] = {}
    seen: set[str] = set()
    for part, names in parts.items():
        for found in audit_ops(graph, names=names):
            if found.node not in seen:
                seen.add(found.node)
                key = (found.op, found.category, found.reason, part)
                groups.setdefault(key, []).append(found.node)
    return [
        RefusedOp(op, category, reason, tuple(nodes), part)
        for (op, category, reason, part), nodes in groups.items()
    ]


def _cones(analysis: GraphAnalysis, interface: Interface) -> dict[str, set[str]]:
    """The nodes that the outputs need, and those that a training step needs too."""

    def parsed(names: Collection[str]) -> list[TensorName]:
        return [TensorName.parse(name) for name in names]

    fed = parsed([*interface.inputs.values(), *interface.training_values])
    outputs = [*interface.outputs.values(), *interface.updates, *interface.losses]
    loss = [interface.loss] if interface.loss else []
    return {
        "outputs": analysis.ancestors(parsed(outputs), fed),
        "training": analysis.ancestors(
            parsed([*interface.train_op, *loss]),
            [*fed, *parsed(interface.labels.values())],
        ),
    }
