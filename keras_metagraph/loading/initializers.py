"""What TensorFlow does after it has read a SavedModel, as nodes of the graph itself.

A SavedModel of TensorFlow 2 restores variables and fills tables in functions
(`__saved_model_init_op`, `SaverDef.restore_op_name`), and its mutable tables have their
contents in the checkpoint. Here both become what TensorFlow 1 would have written: nodes
of the graph, and constants.
"""

import dataclasses
from typing import Any

from keras_metagraph.checkpoint.restore import TensorReader, open_checkpoint
from keras_metagraph.formats.layout import Export
from keras_metagraph.graph.from_proto import graph_from_proto
from keras_metagraph.graph.ir import Graph, Node, TensorName
from keras_metagraph.graph.passes import build
from keras_metagraph.graph.passes.inline_calls import CALLS, inline_calls
from keras_metagraph.graph.restore_wiring import TABLE_IMPORTS, restored_key
from keras_metagraph.graph.to_proto import graph_to_proto
from keras_metagraph.loading.custom_gradients import attach_gradients
from keras_metagraph.loading.functions import with_function_signatures
from keras_metagraph.loading.tree_ensembles import BOUNDARIES, PREDICT, inline_trees
from keras_metagraph.loading.vocabularies import (
    directory_of,
    inline_named_files,
    inline_vocabularies,
)

MAIN_OP_COLLECTIONS = ("saved_model_main_op", "legacy_init_op")
"""TF1 loader: what a SavedModel runs after restoring its variables."""
_INIT_OP = "__saved_model_init_op"


def main_ops(meta_graph_def: Any) -> list[str]:
    """Names of the operations that are run after the variables are restored.

    Args:
        meta_graph_def: A MetaGraphDef.

    Returns:
        The names; each once.
    """
    collections, signatures = (
        meta_graph_def.collection_def,
        meta_graph_def.signature_def,
    )
    names = [
        name
        for key in MAIN_OP_COLLECTIONS
        if key in collections
        for name in collections[key].node_list.value
    ]
    if _INIT_OP in signatures:
        names += [info.name for info in signatures[_INIT_OP].outputs.values()]
    return list(dict.fromkeys(TensorName.parse(name).node for name in names))


def self_contained(meta_graph_def: Any, export: Export, safe_mode: bool = True) -> Any:
    """Puts what TensorFlow would look up beside the graph into it.

    What initializers read from files becomes constants, what the object graph knows of
    functions and gradients becomes nodes and attributes.

    Args:
        meta_graph_def: A MetaGraphDef; not changed.
        export: Where its checkpoint and its assets lie.
        safe_mode: Whether no files but those of the export are read.

    Returns:
        The MetaGraphDef, or a changed copy.

    Raises:
        FormatError: If assets, or boosted trees, are missing or damaged.
        CheckpointError: If the checkpoint cannot be read.
        UntrustedContentError: If an asset lies outside of the directory.
    """
    meta_graph_def = attach_gradients(with_function_signatures(meta_graph_def))
    meta_graph_def = inline_initializers(meta_graph_def)
    meta_graph_def = inline_vocabularies(meta_graph_def, export.assets_directory)
    meta_graph_def = inline_named_files(meta_graph_def, directory_of(export), safe_mode)
    return inline_restored_values(meta_graph_def, export.checkpoint)


def inline_initializers(meta_graph_def: Any) -> Any:
    """Puts the functions that restore variables and fill tables into the graph.

    Args:
        meta_graph_def: A MetaGraphDef; not changed.

    Returns:
        The MetaGraphDef, or a changed copy where it calls such functions.
    """
    if all(node.op not in CALLS for node in meta_graph_def.graph_def.node):
        return meta_graph_def
    roots = [*main_ops(meta_graph_def), meta_graph_def.saver_def.restore_op_name]
    inlined = inline_calls(graph_from_proto(meta_graph_def.graph_def), roots)
    return (
        _with_nodes(meta_graph_def, inlined.graph)
        if inlined.modified
        else (meta_graph_def)
    )


def inline_restored_values(meta_graph_def: Any, checkpoint: str | None) -> Any:
    """Puts what is no variable and lies in the checkpoint into the graph.

    The contents of mutable tables, and boosted trees.

    Args:
        meta_graph_def: A MetaGraphDef whose initializers are inlined; not changed.
        checkpoint: Prefix of the checkpoint.

    Returns:
        The MetaGraphDef, or a changed copy.

    Raises:
        CheckpointError: If the checkpoint cannot be read.
        FormatError: If boosted trees are damaged.
    """
    ops = {node.op for node in meta_graph_def.graph_def.node}
    if checkpoint is None or ops.isdisjoint((*TABLE_IMPORTS, PREDICT, BOUNDARIES)):
        return meta_graph_def
    graph = graph_from_proto(meta_graph_def.graph_def)
    reader = open_checkpoint(checkpoint)
    changed = _with_restored_tables(inline_trees(graph, reader), reader)
    return meta_graph_def if changed is graph else _with_nodes(meta_graph_def, changed)


def _with_restored_tables(graph: Graph, reader: TensorReader) -> Graph:
    rewriter = build.Rewriter(graph)
    for node in graph.nodes.values():
        keys = [restored_key(graph, tensor) for tensor in node.inputs[1:]]
        if node.op in TABLE_IMPORTS and all(key in reader for key in keys):
            _import_constants(rewriter, node, reader, keys)
    return rewriter.graph()


def _import_constants(
    rewriter: build.Rewriter, node: Node, reader: TensorReader, keys: list[str]
) -> None:
    """Fills a table from constants in the place of tensors of the checkpoint."""
    inputs = node.inputs[:1]
    for key, label in zip(keys, ("keys", "values"), strict=True):
        dtype = reader.dtype(key).as_datatype_enum
        constant = build.const_node(f"{node.name}/{label}", reader.read(key), dtype)
        # Dense tables write scalars as vectors, and no op may see that they did.
        attrs = {"dtype": build.type_attr(dtype), "shape": build.shape_attr(None)}
        unshaped = Node(
            f"{node.name}/restored_{label}",
            "PlaceholderWithDefault",
            [rewriter.add(constant)],
            attrs=attrs,
        )
        inputs.append(rewriter.add(unshaped))
    rewriter.replace(dataclasses.replace(node, inputs=inputs, control_inputs=[]))


def _with_nodes(meta_graph_def: Any, graph: Graph) -> Any:
    """A copy of a MetaGraphDef with other nodes, and with all of its functions."""
    result = type(meta_graph_def)()
    result.CopyFrom(meta_graph_def)
    nodes = graph_to_proto(Graph(graph.nodes, producer=graph.producer)).node
    del result.graph_def.node[:]
    result.graph_def.node.extend(nodes)
    return result
