"""Infers the interface of a graph: what the caller named, and the rest."""

from collections.abc import Mapping, Sequence
from typing import Any

from keras_metagraph.graph.ir import Graph
from keras_metagraph.graph.passes.repair_attributes import repair_attributes
from keras_metagraph.graph.variables import GraphVariable
from keras_metagraph.loading.infer import beside, data
from keras_metagraph.loading.infer.analysis import GraphAnalysis
from keras_metagraph.loading.infer.arguments import Names, check_arguments
from keras_metagraph.loading.infer.interface import Interface
from keras_metagraph.loading.infer.own_file import own_interface
from keras_metagraph.loading.infer.signatures import (
    choose_signature,
    read_signatures,
)
from keras_metagraph.loading.infer.state import State
from keras_metagraph.loading.infer.training_step import find_training_step

# Each step relies on what the ones before it found.
_STEPS = (
    find_training_step,
    data.find_training_flags,
    data.find_roles,  # needs the losses, and which feeds are no data
    data.find_outputs,  # must not depend on labels
    data.find_inputs,  # what the outputs need
    data.find_labels,  # what the loss needs beside the inputs
    beside.find_updates,
    beside.find_regularization,
    beside.find_unfed,
    beside.drop_unneeded,
)


def infer_interface(
    meta_graph_def: Any,
    graph: Graph,
    variables: Mapping[str, GraphVariable],
    *,
    inputs: Names | None = None,
    outputs: Names | None = None,
    labels: Names | None = None,
    loss: str | None = None,
    train_op: str | Sequence[str] | None = None,
    training_flag: str | Sequence[str] | Mapping[str, Any] | None = None,
    feeds: Mapping[str, Any] | None = None,
    signature: str | None = None,
) -> Interface:
    """Finds what a user of a graph would have named.

    What the caller names wins. The rest comes, in this order of trust, from a
    signature, from collections, from the structure of the training step, and from how
    placeholders are used. Nothing is run.

    Args:
        meta_graph_def: The MetaGraph.
        graph: Its graph.
        variables: Its variables by node name.
        inputs: Tensor names by input name, or a list of tensor names.
        outputs: The same for outputs.
        labels: The same for what is fed with the labels.
        loss: Name of the loss tensor.
        train_op: Names of the operations that one training step runs.
        training_flag: The placeholder that says whether the graph trains, several of
            them, or a pair of values (when training, otherwise) by placeholder.
        feeds: Constants to feed always, by tensor name.
        signature: Name of the signature to take inputs and outputs from.

    Returns:
        The interface, with a reason for everything that was chosen.

    Raises:
        SignatureError: If names of the caller are not in the graph; lists all of them.

    Example:
        ```python
        interface = infer_interface(meta_graph_def, graph, variables)
        interface.inputs, interface.outputs  # {"x": "x:0"}, {"logits": "logits:0"}
        ```
    """
    graph = repair_attributes(graph).graph
    given = check_arguments(
        graph,
        inputs=inputs,
        outputs=outputs,
        labels=labels,
        loss=loss,
        train_op=train_op,
        training_flag=training_flag,
        feeds=feeds,
    )
    signatures = read_signatures(meta_graph_def, graph)
    chosen = choose_signature(signatures, signature)
    own = own_interface(meta_graph_def)
    if own is not None and signature is None:
        given.fill(own, graph, "the file says it")
        chosen = None
    elif chosen is not None and chosen.loss is not None and given.loss is None:
        given.loss = chosen.loss
        given.reasons["loss"] = f"the loss of signature {chosen.name!r}"
    state = State(meta_graph_def, GraphAnalysis(graph, variables), given, chosen)
    for entry in signatures.values():
        state.result.dropped.extend(entry.missing)
    for step in _STEPS:
        step(state)
    return state.result
