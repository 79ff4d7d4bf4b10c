"""Decides what every variable of a legacy graph gets its value from."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from keras_metagraph.checkpoint.restore import open_checkpoint, read_variables
from keras_metagraph.errors import CheckpointError, MissingVariableError, nearest
from keras_metagraph.formats.layout import Export
from keras_metagraph.graph.ir import Graph, TensorName
from keras_metagraph.graph.variables import GraphVariable
from keras_metagraph.loading.infer import Interface
from keras_metagraph.loading.initial_values import has_fixed_initial_value, in_turns
from keras_metagraph.loading.moving_averages import take_shadows
from keras_metagraph.loading.variable_map import VariableMap, map_variables
from keras_metagraph.session.executor import cone

LOCAL_COLLECTIONS = frozenset({"local_variables", "metric_variables"})
"""Variables in these are initialized at the start of each run, and never saved."""


@dataclasses.dataclass(frozen=True)
class Needs:
    """Names of the nodes that the outputs need, the training step, and signatures."""

    forward: frozenset[str]
    training: frozenset[str]
    signatures: frozenset[str] = frozenset()

    @classmethod
    def of(
        cls, graph: Graph, interface: Interface, signatures: Sequence[Any] = ()
    ) -> "Needs":
        """Finds them in a graph.

        Args:
            graph: The graph.
            interface: Which tensors play which part.
            signatures: The `SignatureDef`s of the file.

        Returns:
            The names.
        """
        fed = {*interface.inputs.values(), *interface.training_values}
        forward = [*interface.outputs.values(), *interface.updates, *interface.losses]
        training = [*interface.train_op, *([interface.loss] if interface.loss else [])]
        infos = [info for each in signatures for info in each.outputs.values()]
        named = [n for n in (info.name for info in infos) if _node(n) in graph.nodes]
        return cls(
            _cone(graph, forward, fed),
            _cone(graph, training, fed | set(interface.labels.values())),
            frozenset(graph.ancestors(map(_node, named))),
        )


@dataclasses.dataclass(frozen=True)
class Restoration:
    """What became of the variables of a graph.

    Attributes:
        variables: Those that the model gets, with full shapes.
        values: Arrays from the checkpoint, by variable name.
        initialized: Not in the checkpoint: they get the graph's initial value.
        turns: The same, in the order in which that is computed: each turn reads only
            variables that have values, or got them in an earlier turn.
        dropped: Not in the checkpoint, and nothing needs them.
        untrainable: Not in the checkpoint, needed by the train op only, and without
            an initial value that is the same at every run.
        unused: Keys of the checkpoint that no variable of the graph takes.
    """

    variables: dict[str, GraphVariable]
    values: dict[str, Any]
    initialized: tuple[str, ...] = ()
    turns: tuple[tuple[str, ...], ...] = ()
    dropped: tuple[str, ...] = ()
    untrainable: tuple[str, ...] = ()
    unused: tuple[str, ...] = ()


def restore(
    export: Export,
    graph: Graph,
    variables: Mapping[str, GraphVariable],
    needs: Needs,
    variable_map: VariableMap | None = None,
    ema: bool = False,
) -> Restoration:
    """Reads the checkpoint and decides about the variables that it lacks.

    Args:
        export: Where the checkpoint is.
        graph: The graph of the variables.
        variables: The variables by name.
        needs: Which of them the model needs, and what for.
        variable_map: Under which keys the checkpoint has some of them.
        ema: Whether the model gets the moving averages of its trainable variables.

    Returns:
        The values, and what became of each variable.

    Raises:
        CheckpointError: If there is no checkpoint but variables are needed.
        MissingVariableError: If the outputs need variables that have no value, or
            trainable ones that have no moving average.
        ShapeMismatchError: If values do not fit their variables.
        SignatureError: If the map does not fit graph and checkpoint.
    """
    if export.checkpoint is None:
        _require_no_variables(export, variables.keys() & needs.forward)
        return Restoration({}, {}, dropped=tuple(sorted(variables)))
    reader = open_checkpoint(export.checkpoint)
    variables = map_variables(variables, variable_map, reader)
    if ema:
        variables = take_shadows(graph, variables, needs.forward, reader)
    read = read_variables(reader, variables.values())
    lacking = {variable.name: variable for variable in read.missing}
    refused = [
        variable
        for name, variable in lacking.items()
        if name in needs.forward and not _starts_afresh(variable, graph)
    ]
    if refused:
        raise MissingVariableError(
            f"The checkpoint {export.checkpoint} lacks variables that the outputs of "
            "the model need:",
            findings=[_describe(variable, reader.keys()) for variable in refused],
            fix="load the checkpoint that belongs to this graph, map names with "
            "variable_map={'name in the graph': 'key in the checkpoint'}, or name "
            "outputs that do not need these variables.",
        )
    needed = needs.forward | needs.training
    wanted = lacking.keys() & (needed | needs.signatures)
    turns = in_turns(wanted, lacking, graph)
    started = {name for turn in turns for name in turn}
    initialized = [name for name in lacking if name in started]
    others = [name for name in lacking if name not in started]
    untrainable = [name for name in others if name in needed]
    dropped = [name for name in others if name not in needed]
    kept = {
        name: _with_shape(variable, read.values.get(name))
        for name, variable in variables.items()
        if name in read.values or name in started
    }
    used = {variable.checkpoint_key for variable in variables.values()}
    return Restoration(
        kept,
        dict(read.values),
        tuple(initialized),
        tuple(map(tuple, turns)),
        tuple(dropped),
        tuple(untrainable),
        tuple(sorted(set(reader.keys()) - used)),
    )


def _starts_afresh(variable: GraphVariable, graph: Graph) -> bool:
    """Whether the graph's saver leaves a variable out, so that each run starts it."""
    unsaved = variable.checkpoint_key is None and not variable.trainable
    local = bool(variable.collections & LOCAL_COLLECTIONS)
    return (unsaved or local) and has_fixed_initial_value(variable, graph)


def _require_no_variables(export: Export, needed: set[str]) -> None:
    if needed:
        raise CheckpointError(
            f"{export.path} has a graph, but no checkpoint with the values of its "
            f"variables lies beside it{': ' + export.note if export.note else ''}. The "
            "model needs:",
            findings=sorted(needed),
            fix="put the checkpoint files (.index and .data-*) beside the .meta, or "
            "pass the prefix of the checkpoint that is its own as the path.",
        )


def _describe(variable: GraphVariable, keys: Sequence[str]) -> str:
    key = variable.checkpoint_key or variable.name
    near = nearest(key, keys)
    return f"{variable.name} {variable.shape}, looked for as {key!r}{near}"


def _with_shape(variable: GraphVariable, value: Any) -> GraphVariable:
    """Takes the shape of the value where the graph leaves it open."""
    known = variable.shape is not None and None not in variable.shape
    if known or value is None:
        return variable
    return dataclasses.replace(variable, shape=tuple(value.shape))


def merge_slices(
    variables: Mapping[str, GraphVariable], values: Mapping[str, Any]
) -> dict[str, Any]:
    """The tensors of a checkpoint, from the values of a graph's variables.

    The parts of a partitioned variable become the one tensor that TF1's Saver writes
    (`VariableDef.save_slice_info_def`).

    Args:
        variables: Variables by name.
        values: Arrays by variable name.

    Returns:
        Arrays by checkpoint key.
    """
    merged: dict[str, Any] = {}
    for name, variable in variables.items():
        value = np.asarray(values[name])
        key = variable.checkpoint_key or name
        part = variable.slice
        if part is None:
            merged[key] = value
            continue
        if key not in merged:
            merged[key] = np.zeros(part.full_shape, value.dtype)
        where = tuple(
            slice(offset, offset + size)
            for offset, size in zip(part.offset, part.shape, strict=True)
        )
        merged[key][where] = value
    return merged


def _node(tensor: str) -> str:
    return TensorName.parse(tensor).node


def _cone(graph: Graph, fetches: Sequence[str], fed: set[str]) -> frozenset[str]:
    roots = [TensorName.parse(name) for name in fetches]
    names, _ = cone(graph, roots, {TensorName.parse(name) for name in fed})
    return frozenset(names)
