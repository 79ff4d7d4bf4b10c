"""Loads files that TensorFlow wrote: the graph becomes an island in a Keras model."""

import dataclasses
import warnings
from collections.abc import Mapping
from typing import Any

import tensorflow as tf

from keras_metagraph.audit.policy import require_safe
from keras_metagraph.audit.structure import check_structure
from keras_metagraph.errors import MetaGraphError, SignatureError
from keras_metagraph.formats.layout import Export
from keras_metagraph.graph.from_proto import graph_from_proto
from keras_metagraph.graph.ir import Graph
from keras_metagraph.graph.passes import repair
from keras_metagraph.graph.variables import GraphVariable, graph_variables
from keras_metagraph.layers.island import Island
from keras_metagraph.loading.infer import Interface, infer_interface
from keras_metagraph.loading.infer.signatures import signature_defs
from keras_metagraph.loading.initializers import main_ops, self_contained
from keras_metagraph.loading.meta_graph import LoadedMetaGraph, symbolic_inputs
from keras_metagraph.loading.model import MetaGraphModel
from keras_metagraph.loading.report import LoadReport
from keras_metagraph.loading.restoration import (
    LOCAL_COLLECTIONS,
    Needs,
    Restoration,
    restore,
)
from keras_metagraph.loading.variable_map import VariableMap
from keras_metagraph.loading.vocabularies import require_filled
from keras_metagraph.training.train_op import TrainOp

KERAS = "keras"
"""Says that a Keras optimizer goes on, in the place of the graph's train op."""
_UNUSED_INPUT = "unused_input"


@dataclasses.dataclass(frozen=True)
class LegacyOptions:
    """What the caller of `load_from_meta_graph` said about a legacy file."""

    compile: bool | str = True
    safe_mode: bool = True
    inputs: Any = None
    outputs: Any = None
    labels: Any = None
    loss: str | None = None
    train_op: Any = None
    training_flag: Any = None
    feeds: Mapping[str, Any] | None = None
    signature: str | None = None
    variable_map: VariableMap | None = None
    ema: bool = False

    @property
    def names_parts(self) -> bool:
        """Whether the caller chose parts of the graph, which no Keras config has."""
        return self.names_tensors or bool(self.variable_map or self.ema)

    @property
    def names_tensors(self) -> bool:
        """Whether the caller chose tensors, operations or a signature of the graph."""
        others = {"compile", "safe_mode", "variable_map", "ema"}
        return any(
            getattr(self, field.name)
            for field in dataclasses.fields(self)
            if field.name not in others
        )


def load_legacy(
    export: Export, meta_graph_def: Any, options: LegacyOptions
) -> MetaGraphModel:
    """Rebuilds a model around the graph of a file.

    Args:
        export: Where the file lies, with its checkpoint and assets.
        meta_graph_def: The MetaGraphDef to load.
        options: What the caller said about the graph.

    Returns:
        A model with the values of the checkpoint, compiled with the graph's own train
        op where it has one.

    Raises:
        CheckpointError: If there is no checkpoint, or it does not fit.
        SignatureError: If inputs or outputs were not found, or do not exist.
        UntrustedContentError: If the model needs ops that are not run.
    """
    check_structure(meta_graph_def)
    meta_graph_def = self_contained(meta_graph_def, export, options.safe_mode)
    source = graph_from_proto(meta_graph_def.graph_def)
    variables = graph_variables(meta_graph_def, source)
    interface = _interface(meta_graph_def, source, variables, options)
    if not interface.inputs:
        meta_graph_def = _with_unused_input(meta_graph_def)
        source = graph_from_proto(meta_graph_def.graph_def)
        interface.inputs = {_UNUSED_INPUT: f"{_UNUSED_INPUT}:0"}
    graph = repair(source)
    signatures = signature_defs(meta_graph_def)
    needs = Needs.of(graph, interface, [*signatures.values()])
    if options.safe_mode:
        require_safe(graph.subgraph(needs.forward))
    require_filled(graph, needs.forward, options.safe_mode)
    restored = restore(
        export, graph, variables, needs, options.variable_map, options.ema
    )
    model = _build(graph, interface, restored, options)
    handle = LoadedMetaGraph(
        meta_graph_def,
        model.island.variable_map,
        interface,
        LoadReport.of(interface, restored),
        graph,
        options.safe_mode,
    )
    model.attach(handle)
    _fill(model, restored)
    if options.compile == KERAS or (options.compile and interface.train_op):
        _compile(model, restored, options)
    return model


def _interface(
    meta_graph_def: Any,
    graph: Graph,
    variables: Mapping[str, GraphVariable],
    options: LegacyOptions,
) -> Interface:
    """What the caller named, and the rest inferred; inputs and outputs at least."""
    interface = infer_interface(
        meta_graph_def,
        graph,
        variables,
        inputs=options.inputs,
        outputs=options.outputs,
        labels=options.labels,
        loss=options.loss,
        train_op=options.train_op,
        training_flag=options.training_flag,
        feeds=options.feeds,
        signature=options.signature,
    )
    if not interface.outputs:
        raise SignatureError(
            "No output was found in the graph.",
            fix="name them: load_from_meta_graph(..., outputs={'y': 'tensor:0'}); "
            "inspect_meta_graph lists the tensors.",
        )
    return interface


def _with_unused_input(meta_graph_def: Any) -> Any:
    """Adds a placeholder that nothing takes: Keras has no model without an input."""
    result = type(meta_graph_def)()
    result.CopyFrom(meta_graph_def)
    node = result.graph_def.node.add(op="Placeholder", name=_UNUSED_INPUT)
    node.attr["dtype"].type = tf.float32.as_datatype_enum
    node.attr["shape"].shape.dim.add(size=-1)
    return result


def _build(
    graph: Graph, interface: Interface, restored: Restoration, options: LegacyOptions
) -> MetaGraphModel:
    """The functional model: inputs, one island, outputs."""
    island = Island(
        graph,
        inputs=interface.inputs,
        outputs=interface.outputs,
        variables=list(restored.variables.values()),
        updates=interface.updates,
        losses=interface.losses,
        training_values=interface.training_values,
        name="graph",
    )
    symbols = symbolic_inputs(graph, interface.inputs)
    outputs = island(symbols)
    single_input = options.inputs is None and len(symbols) == 1
    single_output = options.outputs is None and len(outputs) == 1
    return MetaGraphModel(
        inputs=next(iter(symbols.values())) if single_input else symbols,
        outputs=next(iter(outputs.values())) if single_output else outputs,
    )


def _fill(model: MetaGraphModel, restored: Restoration) -> None:
    """Gives the variables their values, and runs what the file runs after that."""
    island = model.island
    island.assign(restored.values)
    for turn in restored.turns:
        starts = {name: str(restored.variables[name].initial_value) for name in turn}
        island.assign(model.meta_graph.executor.run(starts))
    for operation in main_ops(model.meta_graph.meta_graph_def):
        _run_main_op(model, operation)


def _run_main_op(model: MetaGraphModel, operation: str) -> None:
    """Runs the main op of a SavedModel where it changes variables.

    What it does to tables is done when a table is first used.
    """
    if not model.meta_graph.executor.reads([operation]):
        return
    try:
        model.meta_graph.executor.run(operation)
    except MetaGraphError as error:
        warnings.warn(
            f"The main op {operation!r} of the SavedModel was not run: {error}",
            stacklevel=2,
        )


def _compile(
    model: MetaGraphModel, restored: Restoration, options: LegacyOptions
) -> None:
    """Compiles with what trains the graph, or says why it cannot go on."""
    if restored.untrainable and options.compile != KERAS:
        warnings.warn(
            "The graph's train op is not used: the checkpoint lacks variables that it "
            f"needs, and they have no fixed initial value: {restored.untrainable}.",
            stacklevel=2,
        )
        return
    slots = [
        name
        for name in restored.initialized
        if not restored.variables[name].collections & LOCAL_COLLECTIONS
    ]
    if slots:
        warnings.warn(
            "The checkpoint lacks variables of the training step; they start from the "
            f"graph's initial values: {slots}.",
            stacklevel=2,
        )
    if options.compile == KERAS:
        meta_graph = model.meta_graph
        model.compile(meta_graph.optimizer(), meta_graph.loss(), jit_compile=False)
        return
    runs = model.meta_graph.training_runs
    train_op = TrainOp([r.operations for r in runs], [r.loss or None for r in runs])
    model.compile(train_op, jit_compile=False)
