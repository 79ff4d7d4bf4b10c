"""What a SavedModel of TensorFlow 2 says of its variables (`saved_object_graph.proto`).

Keys of its checkpoint are paths through the graph of Python objects; a variable stands
at the end of one, with what `tf.Variable` knew of itself.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from keras_metagraph.graph.ir import Graph, TensorName

MetaGraphDef = Any

_VALUE = "/.ATTRIBUTES/VARIABLE_VALUE"


def trainable_variables(
    meta_graph_def: MetaGraphDef, graph: Graph, keys: Mapping[str, str]
) -> set[str]:
    """Finds the variables that the program which saved them trained.

    Copies of variables, and others that no signature reads, are not among them: nothing
    of the file could train those.

    Args:
        meta_graph_def: The MetaGraph.
        graph: Its graph.
        keys: Keys of the checkpoint by the name of the variable's node.

    Returns:
        Names of nodes; none if the file has no object graph.
    """
    objects = meta_graph_def.object_graph_def.nodes
    if not objects:
        return set()
    used = graph.ancestors(_fetched(meta_graph_def, graph))
    found = {name: object_at(objects, key) for name, key in keys.items()}
    return {
        name
        for name, number in found.items()
        if number is not None and objects[number].variable.trainable and name in used
    }


def _fetched(meta_graph_def: MetaGraphDef, graph: Graph) -> Iterable[str]:
    """The nodes that signatures name as outputs."""
    names = {
        TensorName.parse(info.name).node
        for signature in meta_graph_def.signature_def.values()
        for info in signature.outputs.values()
    }
    return names & graph.nodes.keys()


def object_at(objects: Sequence[Any], key: str) -> int | None:
    """Follows a key of the checkpoint through the objects.

    Args:
        objects: The nodes of a `SavedObjectGraph`.
        key: The key of a variable: `"layers/0/kernel/.ATTRIBUTES/VARIABLE_VALUE"`.

    Returns:
        The number of the object at the end; None where there is no such path.
    """
    if not key.endswith(_VALUE):
        return None
    place = 0
    for part in key.removesuffix(_VALUE).split("/"):
        name = part.replace(".S", "/").replace("..", ".")
        children = {c.local_name: c.node_id for c in objects[place].children}
        if name not in children or not 0 <= children[name] < len(objects):
            return None
        place = children[name]
    return place
