"""Finds a model's variables in an object-based checkpoint (`tf.train.Checkpoint`).

Such a checkpoint stores a graph of objects, and each variable under whichever path to
it is shortest. So its graph and the model's own objects are walked side by side, by the
names of attributes; the keys are not looked at.
"""

from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import tensorflow as tf
from tensorflow.core.protobuf.trackable_object_graph_pb2 import TrackableObjectGraph

OBJECT_GRAPH_KEY = "_CHECKPOINTABLE_OBJECT_GRAPH"


def find_variables(
    object_graph: TrackableObjectGraph,
    roots: Sequence[Any],
    variables: Mapping[int, str],
    names: Mapping[str, str],
) -> dict[str, str]:
    """Says under which key each variable of a model is stored.

    Args:
        object_graph: The graph of objects in the checkpoint.
        roots: The model and its optimizer; either may be the checkpoint's root, or
            hang below it under any name.
        variables: Names of the variables, by the id of the `tf.Variable`.
        names: The same names, by what TensorFlow 2 or TensorFlow 1 may call them.

    Returns:
        Keys of the checkpoint by name of the variable, for those that were found.
    """
    found: dict[str, str] = {}
    for root in roots:
        best: dict[str, str] = {}
        for node in (0, *(child.node_id for child in object_graph.nodes[0].children)):
            matched = dict(_walk(object_graph, node, root, variables))
            best = max(best, matched, key=len)
        found = {**best, **found}
    for full_name, key in _stored(object_graph):
        # Another class of model, or another Keras: by the names of the variables.
        name = names.get(full_name) or names.get(full_name.partition("/")[2])
        if name is not None:
            found.setdefault(name, key)
    return found


def _walk(
    object_graph: TrackableObjectGraph,
    node: int,
    root: Any,
    variables: Mapping[int, str],
) -> Iterator[tuple[str, str]]:
    """Walks both graphs from one pair of objects; yields variables with their keys."""
    view = tf.train.TrackableView(root)
    queue = deque([(node, root)])
    seen = {node}
    while queue:
        place, live = queue.popleft()
        held = _held(live)
        for attribute in object_graph.nodes[place].attributes:
            if id(held) in variables:
                yield variables[id(held)], attribute.checkpoint_key
        children = view.children(live)
        for child in object_graph.nodes[place].children:
            if child.local_name in children and child.node_id not in seen:
                seen.add(child.node_id)
                queue.append((child.node_id, children[child.local_name]))


def _held(live: Any) -> Any:
    """The `tf.Variable` in a `keras.Variable`; any other object itself."""
    held = getattr(live, "value", live)
    return live if callable(held) else held  # tf.Variable.value is a method


def _stored(object_graph: TrackableObjectGraph) -> Iterator[tuple[str, str]]:
    """Full names of the stored variables, with their keys."""
    for node in object_graph.nodes:
        for attribute in node.attributes:
            yield attribute.full_name.partition(":")[0], attribute.checkpoint_key
