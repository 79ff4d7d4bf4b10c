"""Small models to write SavedModels of, and what lies in the directory of one."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import keras
import tensorflow as tf
from keras import layers
from tensorflow.core.protobuf.saved_model_pb2 import SavedModel

_RESTORED = "save/RestoreV2/tensor_names"


def mlp(compiled: bool = True, **arguments: Any) -> keras.Model:
    """A perceptron, with its optimizer built if it is compiled."""
    model = keras.Sequential(
        [
            keras.Input((3,), name="x"),
            layers.Dense(4, activation="relu"),
            layers.Dense(2),
        ],
        **arguments,
    )
    if compiled:
        model.compile("adam", "mse", metrics=["mae"])
        model.optimizer.build(model.trainable_variables)
    return model


def words(vocabulary: Sequence[str] = ("red", "blue"), **arguments: Any) -> keras.Model:
    """A model that looks words up."""
    word = keras.Input((), dtype="string", name="word")
    ids = layers.StringLookup(vocabulary=list(vocabulary), **arguments)(word)
    return keras.Model(word, layers.Embedding(5, 2)(ids))


def read(path: str | Path) -> dict[tuple[str, ...], Any]:
    """The MetaGraphDefs, by their tags."""
    saved_model = SavedModel()
    saved_model.ParseFromString(Path(path, "saved_model.pb").read_bytes())
    return {tuple(m.meta_info_def.tags): m for m in saved_model.meta_graphs}


def keys(path: str | Path) -> set[str]:
    """Names of the tensors in the checkpoint."""
    listed = tf.train.list_variables(f"{path}/variables/variables")
    return {name for name, _ in listed}


def saved(meta_graph_def: Any) -> set[str]:
    """Names of the tensors that a graph's saver restores."""
    (node,) = [n for n in meta_graph_def.graph_def.node if n.name == _RESTORED]
    return {name.decode() for name in node.attr["value"].tensor.string_val}


def files(path: str | Path) -> dict[str, bytes]:
    """Contents of all files, by their paths."""
    return {
        str(file.relative_to(path)): file.read_bytes()
        for file in Path(path).rglob("*")
        if file.is_file()
    }


def collection(meta_graph_def: Any, name: str) -> list[str]:
    """A collection of names."""
    return list(meta_graph_def.collection_def[name].node_list.value)
