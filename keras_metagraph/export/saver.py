"""The saver of an exported graph, as `tf.train.Saver` builds it."""

from collections.abc import Iterable, Sequence
from typing import Any, Protocol

import tensorflow as tf

from keras_metagraph.export.nodes import const_node, make_node
from keras_metagraph.graph.ir import Graph, Node


class Saveable(Protocol):
    """A variable for the saver."""

    @property
    def dtype(self) -> tf.DType:
        """Type of its value."""

    @property
    def read(self) -> str:
        """Name of the node that reads it."""

    @property
    def key(self) -> str:
        """Its name in the checkpoint."""

    @property
    def slice_spec(self) -> str:
        """Which part of the tensor of that name it is; empty for all of it."""

    def assign_node(self, scope: str, suffix: str, value: str) -> Node:
        """A node that gives it a value, in a scope and named with a suffix."""


def add_group(graph: Graph, name: str, members: Iterable[str]) -> str:
    """Adds a node that does nothing but wait for others; returns its name."""
    name = graph.unique_name(name)
    graph.add(make_node(name, "NoOp", control=list(dict.fromkeys(members))))
    return name


def add_saver(
    graph: Graph, variables: Sequence[Saveable], also: Iterable[str] = ()
) -> Any:
    """Adds the nodes that save and restore variables.

    Args:
        graph: The graph, with the variables in it.
        variables: What is saved and restored.
        also: Nodes to run with each restore: initializers of what is not saved, so
            that everything can be run after it.

    Returns:
        The `SaverDef` for them.
    """
    scope = _free_scope(graph, "save")
    filename = _add_filename(graph, scope)
    names = [variable.key for variable in variables]
    dtypes = [variable.dtype for variable in variables]
    slices = [variable.slice_spec for variable in variables]
    for op in ("SaveV2", "RestoreV2"):
        inside = f"{scope}/{op}"
        graph.add(const_node(f"{inside}/tensor_names", names, tf.string))
        graph.add(const_node(f"{inside}/shape_and_slices", slices, tf.string))
        inputs = [filename, f"{inside}/tensor_names", f"{inside}/shape_and_slices"]
        if op == "SaveV2":
            inputs += [variable.read for variable in variables]
        graph.add(make_node(inside, op, inputs, dtypes=dtypes))
    saved = make_node(
        f"{scope}/control_dependency",
        "Identity",
        [filename],
        [f"{scope}/SaveV2"],
        T=tf.string,
    )
    graph.add(saved)
    restores = _add_restores(graph, scope, variables)
    restore_op = add_group(graph, f"{scope}/restore_all", [*restores, *also])
    return tf.compat.v1.train.SaverDef(
        filename_tensor_name=f"{filename}:0",
        save_tensor_name=f"{saved.name}:0",
        restore_op_name=restore_op,
        max_to_keep=5,
        keep_checkpoint_every_n_hours=10000.0,
        version=tf.compat.v1.train.SaverDef.V2,
    )


def _free_scope(graph: Graph, name: str) -> str:
    """The name, or the next `name_1`, in which there is no node."""
    taken = {node.partition("/")[0] for node in graph.nodes}
    candidate, count = name, 0
    while candidate in taken:
        count += 1
        candidate = f"{name}_{count}"
    return candidate


def _add_filename(graph: Graph, scope: str) -> str:
    """Adds what the checkpoint's prefix is fed to."""
    graph.add(const_node(f"{scope}/filename/input", "model"))
    scalar = tf.TensorShape([])
    for name, default in (("filename", "filename/input"), ("Const", "filename")):
        graph.add(
            make_node(
                f"{scope}/{name}",
                "PlaceholderWithDefault",
                [f"{scope}/{default}"],
                dtype=tf.string,
                shape=scalar,
            )
        )
    return f"{scope}/Const"


def _add_restores(graph: Graph, scope: str, variables: Sequence[Saveable]) -> list[str]:
    """Adds what assigns each restored tensor to its variable."""
    assigns = []
    for index, variable in enumerate(variables):
        suffix = f"_{index}" if index else ""
        restored = make_node(
            f"{scope}/Identity{suffix}",
            "Identity",
            [f"{scope}/RestoreV2:{index}"],
            T=variable.dtype,
        )
        graph.add(restored)
        assign = variable.assign_node(scope, suffix, restored.name)
        assigns.append(graph.add(assign).name)
    return assigns
