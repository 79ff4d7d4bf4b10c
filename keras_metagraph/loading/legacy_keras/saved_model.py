"""`load_keras2_saved_model`: a Keras 3 model from a directory that Keras 2 saved."""

import contextlib
import os
from collections.abc import Iterator, Mapping
from typing import Any

import keras

from keras_metagraph.audit.structure import check_structure
from keras_metagraph.checkpoint.restore import open_checkpoint
from keras_metagraph.errors import (
    CheckpointError,
    CustomObjectError,
    FormatError,
    MetaGraphError,
)
from keras_metagraph.formats.keras_h5 import release
from keras_metagraph.formats.keras_metadata import KerasObject, read_keras_metadata
from keras_metagraph.formats.layout import Export
from keras_metagraph.loading.building import build_by_call
from keras_metagraph.loading.legacy_keras.config import Objects
from keras_metagraph.loading.legacy_keras.layers import hard_sigmoid
from keras_metagraph.loading.legacy_keras.model import build_model
from keras_metagraph.loading.legacy_keras.saved_graph import (
    meta_graph_of,
    without_traces,
)
from keras_metagraph.loading.legacy_keras.saved_inputs import input_specs
from keras_metagraph.loading.legacy_keras.saved_objects import ROOT, SavedObjects
from keras_metagraph.loading.legacy_keras.saved_optimizer import (
    restore_saved_optimizer,
)
from keras_metagraph.loading.legacy_keras.saved_tables import with_vocabularies
from keras_metagraph.loading.legacy_keras.saved_weights import (
    assign_weights,
    pair_weights,
)
from keras_metagraph.loading.legacy_keras.training import compile_model

_MODELS = frozenset({"_tf_keras_model", "_tf_keras_network", "_tf_keras_sequential"})


def keras2_objects(export: Export, meta_graph_def: Any) -> dict[int, KerasObject]:
    """What Keras 2 noted of the objects of a SavedModel.

    Args:
        export: Where it lies.
        meta_graph_def: Its MetaGraphDef.

    Returns:
        The objects by number; none if it is not that of a Keras 2 model.

    Raises:
        FormatError: If they are damaged.
    """
    if export.kind != "saved_model" or not meta_graph_def.HasField("object_graph_def"):
        return {}
    objects = read_keras_metadata(
        os.path.dirname(export.path), meta_graph_def.object_graph_def
    )
    root = objects.get(ROOT)
    return objects if root is not None and root.identifier in _MODELS else {}


def load_keras2_saved_model(
    export: Export,
    meta_graph_def: Any,
    keras_objects: Mapping[int, KerasObject],
    custom_objects: Mapping[str, Any] | None = None,
    *,
    compile: bool = True,
    safe_mode: bool = True,
) -> Any:
    """Rebuilds the model that Keras 2 saved as a directory.

    Args:
        export: Where it lies, with its checkpoint and assets.
        meta_graph_def: The MetaGraphDef of the SavedModel.
        keras_objects: What `keras2_objects` read.
        custom_objects: Classes and functions by the name that the file has for them.
        compile: Whether to compile the model as it was, and to restore the optimizer.
        safe_mode: Whether to refuse Python code in the config.

    Returns:
        The model, with its weights and its optimizer. Its attribute `meta_graph` has
        the graph of the SavedModel, on the model's own variables.

    Raises:
        FormatError: If the config has what Keras 3 cannot compute; lists all.
        CheckpointError: If values are missing, or do not fit; lists all.
        CustomObjectError: If classes or functions are missing; lists all.
        UntrustedContentError: If Python code of the file is needed.
    """
    called = without_traces(meta_graph_def)
    check_structure(called)
    if export.checkpoint is None:
        raise CheckpointError(
            f"{export.path} has a model, but no complete checkpoint with its values "
            f"lies beside it{': ' + export.note if export.note else ''}.",
            fix="copy the directory `variables` along with it.",
        )
    reader = open_checkpoint(export.checkpoint)
    saved = SavedObjects(meta_graph_def, keras_objects, reader)
    objects = Objects(
        custom_objects or {},
        safe_mode=safe_mode,
        release=release(str(saved.root.metadata.get("keras_version", "2"))),
        is_tf_keras=True,
    )
    with _misfits_told(export.path):
        model = _make(saved, objects, export.assets_directory)
        pairs = pair_weights(model, saved)
        assign_weights(pairs, saved, model)
        training = saved.root.metadata.get("training_config")
        if compile and training:
            compile_model(model, training, objects)
            restore_saved_optimizer(model, pairs, saved)
    # Not setattr: Keras would track what it holds.
    vars(model)["meta_graph"] = meta_graph_of(export, called, pairs, saved)
    return model


@contextlib.contextmanager
def _misfits_told(path: str) -> Iterator[None]:
    """Tells of what Keras raises for configs that do not fit, or are damaged."""
    try:
        yield
    except MetaGraphError:
        raise
    except (AttributeError, IndexError, KeyError, TypeError, ValueError) as error:
        reason = str(error).strip().partition("\n")[0]
        raise FormatError(
            f"No model of Keras 3 comes of {path!r}: {type(error).__name__}: {reason}",
            fix='load its functions with rebuild="graph"; or pass compile=False, if it '
            "is the loss or the optimizer that does not fit.",
        ) from error


def _make(saved: SavedObjects, objects: Objects, assets: str | None) -> Any:
    """Makes the model, with initial weights."""
    root = saved.root
    if root.config is None:
        raise CustomObjectError(
            f"The class {root.class_name} gave no config when it was saved.",
            fix="build the model in Keras 3 and load its weights with warm_start; or "
            'take its functions with rebuild="graph".',
        )
    node: dict[str, Any] = {"class_name": root.class_name, "config": root.config}
    node = with_vocabularies(node, ROOT, saved, assets)
    config: dict[str, Any] = node["config"]
    if isinstance(root.config.get("layers"), list):
        shape = root.metadata.get("build_input_shape")
        if isinstance(shape, tuple):  # of a Sequential that was built by a call
            config.setdefault("build_input_shape", shape)
        return build_model(node, objects).layer
    scope = {**objects.custom, "hard_sigmoid": hard_sigmoid}
    with keras.saving.custom_object_scope(scope):
        model = objects.layer(root.class_name, config)
        objects.raise_findings()
        _build(model, saved)
    return model


def _build(model: Any, saved: SavedObjects) -> None:
    """Creates the variables of a model that only does so when it is called."""
    arguments, keywords = input_specs(saved)
    try:
        build_by_call(model, *arguments, **keywords)
    except MetaGraphError:
        raise
    except Exception as error:  # The user's own code runs here.
        raise FormatError(
            f"The model {type(model).__name__} cannot be called with the inputs that "
            f"it was saved with: {type(error).__name__}: {error}",
            fix="see that the class takes what the saved one took; or take its "
            'functions with rebuild="graph".',
        ) from error
