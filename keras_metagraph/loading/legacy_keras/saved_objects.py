"""The objects of a Keras 2 SavedModel, and where the checkpoint has their variables.

A SavedModel and its checkpoint each have a graph of the objects that were saved. They
number them differently, and name the edges alike: a variable is found by walking both
from the root (`saved_object_graph.proto`, `trackable_object_graph.proto`).
"""

import collections
import functools
import re
from collections.abc import Iterator, Mapping
from typing import Any

import tensorflow as tf
from google.protobuf.message import DecodeError
from tensorflow.core.protobuf.trackable_object_graph_pb2 import TrackableObjectGraph

from keras_metagraph.checkpoint.reader import TensorReader
from keras_metagraph.errors import CheckpointError, FormatError
from keras_metagraph.formats.keras_metadata import KerasObject

ROOT = 0
_GRAPH_KEY = "_CHECKPOINTABLE_OBJECT_GRAPH"
_VALUE = "VARIABLE_VALUE"
_LAYER = re.compile(r"layer-(\d+)")
# What saving added to an object: functions, and lists of what it has anyway.
_ADDED = frozenset(
    {
        "__call__",
        "_default_save_signature",
        "call_and_return_all_conditional_losses",
        "call_and_return_conditional_losses",
        "keras_api",
        "optimizer",
        "regularization_losses",
        "signatures",
        "trainable_variables",
        "variables",
    }
)


class SavedObjects:
    """The object graph of a SavedModel, with the values of its variables.

    Args:
        meta_graph_def: The MetaGraphDef of the SavedModel.
        keras_objects: What Keras noted of them, by number.
        reader: The checkpoint.

    Raises:
        CheckpointError: If the checkpoint does not say what its keys belong to.
    """

    def __init__(
        self,
        meta_graph_def: Any,
        keras_objects: Mapping[int, KerasObject],
        reader: TensorReader,
    ) -> None:
        self.meta_graph_def = meta_graph_def
        self.keras = keras_objects
        self.reader = reader
        self._nodes = meta_graph_def.object_graph_def.nodes
        self._saved = _checkpoint_graph(reader)
        self._twins = self._walk()

    @property
    def root(self) -> KerasObject:
        """The model itself."""
        return self.keras[ROOT]

    def children(self, node: int) -> dict[str, int]:
        """The objects that an object holds, by the name of the attribute."""
        return {edge.local_name: edge.node_id for edge in self._nodes[node].children}

    def attributes(self, node: int) -> dict[str, int]:
        """The same without what saving added, and without a model's layers."""
        children = self.children(node)
        found = {
            name: child
            for name, child in children.items()
            if name not in _ADDED and not name.startswith(("layer-", "layer_with_"))
        }
        # The states of a stateful recurrent layer stand among what saving added.
        states = self.children(children.get("keras_api", node)).get("states")
        return found if states is None else {**found, "states": states}

    def layers(self, node: int) -> list[int]:
        """The layers of a sequential or functional model, in its order."""
        found = {
            int(match[1]): child
            for name, child in self.children(node).items()
            if (match := _LAYER.fullmatch(name))
        }
        return [found[place] for place in sorted(found) if found[place] in self.keras]

    def is_input(self, node: int) -> bool:
        """Whether an object is the input of a model."""
        return self.keras[node].identifier == "_tf_keras_input_layer"

    def elements(self, node: int) -> list[int]:
        """The members of a list."""
        numbered = {
            int(name): child
            for name, child in self.children(node).items()
            if name.isdecimal()
        }
        return [numbered[place] for place in sorted(numbered)]

    def listed(self, node: int, name: str) -> list[int]:
        """The variables in one of the lists of a layer: `"trainable_variables"`."""
        child = self.children(node).get(name)
        return [] if child is None else self.elements(child)

    def is_variable(self, node: int) -> bool:
        """Whether an object is a variable."""
        return bool(self._nodes[node].WhichOneof("kind") == "variable")

    def variable_name(self, node: int) -> str:
        """The name of a variable, which need not be unique."""
        return str(self._nodes[node].variable.name)

    def proto(self, node: int) -> Any:
        """The `SavedObject`."""
        return self._nodes[node]

    def key(self, node: int, attribute: str = _VALUE) -> str | None:
        """The key under which the checkpoint has the value of an object."""
        twin = self._twins.get(node)
        if twin is None:
            return None
        for found in self._saved.nodes[twin].attributes:
            if found.name == attribute:
                return str(found.checkpoint_key)
        return None

    def value(self, node: int) -> Any:
        """The value of a variable; None if the checkpoint has none."""
        key = self.key(node)
        return None if key is None or key not in self.reader else self.reader.read(key)

    def slots(self, optimizer: int) -> Iterator[tuple[int, str, int]]:
        """The slots of an `OptimizerV2`: variable, name of the slot, its variable."""
        for slot in self._nodes[optimizer].slot_variables:
            yield (
                slot.original_variable_node_id,
                slot.slot_name,
                slot.slot_variable_node_id,
            )

    @functools.cached_property
    def functions(self) -> Mapping[str, Any]:
        """The functions of the graph by name."""
        library = self.meta_graph_def.graph_def.library.function
        return {function.signature.name: function for function in library}

    def _walk(self) -> dict[int, int]:
        """The number in the checkpoint of each object that it has."""
        count = len(self._nodes)
        for node in self._nodes:
            edges = [edge.node_id for edge in node.children]
            edges += [slot.slot_variable_node_id for slot in node.slot_variables]
            if any(not 0 <= edge < count for edge in edges):
                raise FormatError(
                    "The object graph of the SavedModel is damaged: it refers to "
                    "objects that it does not have.",
                    fix="get the directory once more.",
                )
        twins, queue = {ROOT: 0}, collections.deque([ROOT])
        saved = self._saved.nodes
        while queue:
            node = queue.popleft()
            names = {
                edge.local_name: edge.node_id for edge in saved[twins[node]].children
            }
            for name, child in self.children(node).items():
                if name in names and child not in twins:
                    twins[child] = names[name]
                    queue.append(child)
        for node, twin in list(twins.items()):
            slots = {
                (slot.original_variable_node_id, slot.slot_name): slot
                for slot in saved[twin].slot_variables
            }
            for original, name, slot_node in self.slots(node):
                found = slots.get((twins.get(original), name))
                if found is not None:
                    twins.setdefault(slot_node, found.slot_variable_node_id)
        return twins


def _checkpoint_graph(reader: TensorReader) -> Any:
    problem = "it has no graph of objects"
    if _GRAPH_KEY in reader and reader.dtype(_GRAPH_KEY) == tf.string:
        try:
            graph = TrackableObjectGraph.FromString(reader.read(_GRAPH_KEY).item())
        except (DecodeError, TypeError, ValueError) as error:
            problem = f"its graph of objects is damaged: {error}"
        else:
            if graph.nodes and _is_closed(graph):
                return graph
            problem = "its graph of objects is damaged"
    raise CheckpointError(
        f"The checkpoint {reader.prefix!r} does not say which value is whose: "
        f"{problem}.",
        fix="get the directory once more.",
    )


def _is_closed(graph: Any) -> bool:
    """Whether the objects refer to objects of the graph only."""
    count = len(graph.nodes)
    return all(
        0 <= number < count
        for node in graph.nodes
        for number in (
            *(edge.node_id for edge in node.children),
            *(slot.slot_variable_node_id for slot in node.slot_variables),
        )
    )
