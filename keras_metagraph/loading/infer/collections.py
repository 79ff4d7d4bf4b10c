"""Reads the collections of a MetaGraph that name nodes."""

import dataclasses
from typing import Any

from keras_metagraph.graph.ir import Graph, TensorName

# Collections that TensorFlow and its layers libraries keep for themselves
# (`tf.GraphKeys`, tf.estimator, tf.contrib, TFLearn, SavedModel). What stands in any
# other was put there by a user, to be found again.
# fmt: off
_FRAMEWORK = frozenset({
    "activations", "asset_filepaths", "biases", "concatenated_variables",
    "cond_context", "data_augmentation", "data_preprocessing", "end_points",
    "endpoints", "eval_step", "global_step", "global_step_read_op_cache", "init",
    "init_op", "inputs", "is_training", "is_training_ops", "iterators",
    "keras_metagraph", "layer_scope", "legacy_init_op", "local_init_op",
    "local_variables", "losses", "metric_variables", "model_variables",
    "moving_average_variables", "queue_runners", "ready_for_local_init_op",
    "ready_op", "regularization_losses", "resources", "restorer",
    "saved_model_assets", "saved_model_initializers", "saved_model_main_op",
    "saved_model_train_op", "saver", "savers", "serving_assets", "serving_graph",
    "serving_init_op", "serving_signatures", "streaming_state", "summaries",
    "summary_op", "summary_tags", "summary_writer", "table_initializer", "targets",
    "total_loss", "train_op", "train_ops", "trainable_resource_variables",
    "trainable_variables", "trainops", "unbound_inputs", "update_ops",
    "validation_ops", "variables", "weights", "while_context",
})
# fmt: on
_FRAMEWORK_PREFIXES = ("layer_tensor/", "layer_variables/", "tft_", "_", "variable")


@dataclasses.dataclass(frozen=True)
class NodeCollections:
    """The collections that name nodes.

    Attributes:
        members: Names that are in the graph, by collection: `node:index` for tensors,
            `node` for operations; each once.
        dangling: What collections name and the graph does not have, one line each.
    """

    members: dict[str, list[str]]
    dangling: list[str]

    def get(self, name: str) -> list[str]:
        """The members of a collection; none if there is no such collection."""
        return self.members.get(name, [])

    def of_users(self) -> dict[str, list[str]]:
        """The collections that are none of TensorFlow's own."""
        return {
            name: members
            for name, members in self.members.items()
            if members
            and name.lower() not in _FRAMEWORK
            and not name.startswith(_FRAMEWORK_PREFIXES)
        }


def read_collections(meta_graph_def: Any, graph: Graph) -> NodeCollections:
    """Reads the collections that hold node names (`CollectionDef.NodeList`).

    Args:
        meta_graph_def: The MetaGraph.
        graph: Its graph.

    Returns:
        The names that exist, and a line for each that does not.
    """
    members: dict[str, list[str]] = {}
    dangling = []
    for collection, definition in sorted(meta_graph_def.collection_def.items()):
        found: dict[str, None] = {}
        for text in definition.node_list.value:
            name = text.removeprefix("^")
            if TensorName.parse(name).node in graph.nodes:
                found.setdefault(name)
            else:
                dangling.append(
                    f"collection {collection!r} names {text!r}, which is not in the "
                    "graph"
                )
        members[collection] = list(found)
    return NodeCollections(members, dangling)
