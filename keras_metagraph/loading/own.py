"""Loads the files that this package wrote: the same Keras model, and where it stood."""

import contextlib
import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import keras
import tensorflow as tf

from keras_metagraph.audit.structure import check_structure
from keras_metagraph.checkpoint.restore import TensorReader, open_checkpoint
from keras_metagraph.errors import (
    CheckpointError,
    CustomObjectError,
    FormatError,
    MetaGraphError,
    ProtocolVersionError,
)
from keras_metagraph.export.vocabularies import restore_vocabularies
from keras_metagraph.formats.layout import Export
from keras_metagraph.loading.assignment import restore_trainable, restore_variables
from keras_metagraph.loading.building import build_by_call
from keras_metagraph.loading.infer import Interface
from keras_metagraph.loading.moving_averages import shadow_keys
from keras_metagraph.loading.objects import resolve_objects
from keras_metagraph.loading.own_graph import OwnMetaGraph, derived_variables
from keras_metagraph.loading.variable_map import VariableMap, mapped_keys
from keras_metagraph.loading.vocabularies import inline_vocabularies

COLLECTION = "keras_metagraph"
# The newest protocol of the collection that this version reads. Raise it when an older
# version would misread what a new one writes; the readers of older numbers stay.
PROTOCOL = 1
_ALWAYS_SAVED = ("weight", "seed")


def is_own(meta_graph_def: Any) -> bool:
    """Says whether this package wrote a MetaGraphDef.

    Args:
        meta_graph_def: A MetaGraphDef.

    Returns:
        Whether it has the collection that says what Keras model it is.
    """
    return COLLECTION in meta_graph_def.collection_def


def load_own(
    export: Export,
    meta_graph_def: Any,
    custom_objects: Mapping[str, Any] | None = None,
    *,
    compile: bool = True,
    safe_mode: bool = True,
    variable_map: VariableMap | None = None,
    ema: bool = False,
) -> Any:
    """Loads the Keras model that a MetaGraph was made from.

    Args:
        export: Where the checkpoint is.
        meta_graph_def: The MetaGraphDef.
        custom_objects: Classes and functions by name, as the file has them.
        compile: Whether to compile the model as it was, and to restore the optimizer.
        safe_mode: Whether to refuse Python code and file paths in the config.
        variable_map: Keys of the checkpoint by the names in the file, where they
            differ.
        ema: Whether the weights get the moving averages that the optimizer keeps.

    Returns:
        The model: class, config, weights, random seeds; optimizer and its state. Its
        attribute `meta_graph` has the graph.

    Raises:
        FormatError: If the file's description of the model is damaged.
        ProtocolVersionError: If a newer version of this package wrote the file.
        CheckpointError: If there is no checkpoint.
        MissingVariableError: If the checkpoint lacks variables; lists all of them.
        ShapeMismatchError: If variables do not fit; lists all of them.
        SignatureError: If `variable_map` does not fit; lists all that is wrong.
        CustomObjectError: If classes are missing, or do not take their configs.
        UntrustedContentError: If `safe_mode` refuses what the config holds.
    """
    fields = read_description(meta_graph_def)
    if fields["model"] is None:
        raise CustomObjectError(
            "The class of the model gave no config when it was saved: "
            f"{fields.get('model_error') or 'reason unknown'}",
            fix="define get_config() on the class, and save again.",
        )
    records = fields["variables"]
    stored = any(record["role"] in _ALWAYS_SAVED for record in records)
    if export.checkpoint is None and stored:
        raise CheckpointError(
            f"{export.path} has a model, but no complete checkpoint with its values "
            f"lies beside it{': ' + export.note if export.note else ''}.",
            fix="put the checkpoint files (.index and .data-*) beside the .meta, or "
            "pass the checkpoint prefix as the path.",
        )
    check_structure(meta_graph_def)
    reader = open_checkpoint(export.checkpoint) if export.checkpoint else None
    model = _rebuild(fields, dict(custom_objects or {}), compile, safe_mode)
    variables = {}
    if reader is not None:
        variables = restore_variables(
            model,
            records,
            reader,
            keys=_keys(records, reader, variable_map, ema),
            optimizer=compile,
            trains="train" in (fields.get("graphs") or {}),
        )
    if getattr(model, "meta_graph", None) is None:  # else it runs a graph of its own
        # A .meta that TensorFlow 1 wrote of a SavedModel has no files beside it; the
        # model has its vocabularies from its description all the same.
        if export.assets_directory is not None:
            meta_graph_def = inline_vocabularies(
                meta_graph_def, export.assets_directory
            )
        # Not setattr: Keras would track what it holds.
        vars(model)["meta_graph"] = OwnMetaGraph(
            meta_graph_def,
            variables,
            _interface(fields.get("graphs") or {}),
            derived_variables(model, records),
        )
    return model


def read_description(meta_graph_def: Any) -> dict[str, Any]:
    """Reads what an own file says of its Keras model.

    Args:
        meta_graph_def: A MetaGraphDef of ours.

    Returns:
        The JSON of its collection.

    Raises:
        FormatError: If it is damaged.
        ProtocolVersionError: If a newer version of this package wrote it.
    """
    values = meta_graph_def.collection_def[COLLECTION].bytes_list.value
    try:
        return _parse_description(values)
    except ProtocolVersionError:
        raise
    except (IndexError, KeyError, TypeError, ValueError, RecursionError) as error:
        problem = f"The collection {COLLECTION!r} of the file is damaged: {error!r}"
        raise FormatError(
            problem, fix='load its graph with rebuild="graph", or use another file.'
        ) from error


def _parse_description(values: Sequence[bytes]) -> dict[str, Any]:
    """Parses the JSON; of a protocol that this version does not know nothing else."""
    fields = json.loads(values[0])
    protocol = fields["protocol"]
    if type(protocol) is not int or protocol < 1:
        raise ValueError(f"protocol {protocol!r}")
    if protocol > PROTOCOL:
        raise ProtocolVersionError(
            f"The file has protocol {protocol}, and this version of keras_metagraph "
            f"reads protocols up to {PROTOCOL}. It was written by: "
            f"{fields.get('versions')}",
            fix="install a newer keras_metagraph.",
        )
    _check_description(fields)
    return dict(fields)


def _check_description(fields: dict[str, Any]) -> None:
    """Checks the types of the fields that are used."""
    for key in ("model", "compile_config"):
        if not isinstance(fields[key], dict | None):
            raise TypeError(key)
    if fields.get("dtype_policy") is not None:
        keras.dtype_policies.get(fields["dtype_policy"])  # a ValueError, if unknown
    for record in fields["variables"]:
        if not isinstance(record["name"], str) or not isinstance(record["role"], str):
            raise TypeError(f"variable {record!r}")
        if type(record["index"]) is not int:
            raise TypeError(f"variable {record!r}")
        tuple(int(size) for size in record["shape"])


def _keys(
    records: Sequence[Mapping[str, Any]],
    reader: TensorReader,
    variable_map: VariableMap | None,
    ema: bool,
) -> dict[str, str]:
    """The keys of the checkpoint by name of variable, where they differ."""
    names = {record["name"]: record["name"] for record in records}
    keys = mapped_keys(names, variable_map, reader.keys()) if variable_map else {}
    if ema:
        weights = {
            record["name"]: keys.get(record["name"], record["name"])
            for record in records
            if record["role"] == "weight" and record["trainable"]
        }
        keys |= shadow_keys(weights, reader)
    return keys


def _interface(graphs: Mapping[str, Any]) -> Interface:
    """Which tensors of the graph play which part; the file says it."""
    steps = [graphs.get(name) or {} for name in ("predict", "eval", "train")]
    inputs: dict[str, str] = {}
    labels: dict[str, str] = {}
    for step in steps:
        inputs = inputs or dict(step.get("inputs") or {})
        labels = dict(step.get("labels") or {}) or labels
    train_op = steps[2].get("train_op")
    return Interface(
        inputs=inputs,
        outputs=dict(steps[0].get("outputs") or steps[1].get("outputs") or {}),
        labels=labels,
        loss=steps[2].get("loss") or steps[1].get("loss"),
        train_op=[train_op] if train_op else [],
    )


def _rebuild(
    fields: dict[str, Any],
    custom_objects: dict[str, Any],
    compile: bool,
    safe_mode: bool,
) -> Any:
    """Makes the model, its variables and its optimizer, all with initial values."""
    own = ("build_config", "compile_config")
    config = {"model": {k: v for k, v in fields["model"].items() if k not in own}}
    if compile and fields["compile_config"]:
        config["compile_config"] = fields["compile_config"]
    config = resolve_objects(config, custom_objects, safe_mode=safe_mode)
    with (
        keras.saving.custom_object_scope(custom_objects),
        _dtype_policy(fields.get("dtype_policy")),
    ):
        try:
            model = _construct(config["model"], safe_mode)
            _build(model, fields)
            restore_vocabularies(model, fields.get("vocabularies") or [])
            restore_trainable(model, fields["variables"])
            if "compile_config" in config:
                _compile(model, config["compile_config"], safe_mode)
        except MetaGraphError:
            raise
        except Exception as error:  # Constructors of any class, with values of a file.
            reason = f"{type(error).__name__}: {error}"
            problem = f"The model could not be made from its config: {reason}"
            raise CustomObjectError(
                problem,
                fix="see that the classes are those that the model was saved with, and "
                'that get_config() has what __init__ takes; or pass rebuild="graph".',
            ) from error
    return model


@contextlib.contextmanager
def _dtype_policy(name: str | None) -> Iterator[None]:
    """Gives the process the policy that the saved model has.

    Models do not take it from their configs, and scale losses by it.
    """
    before = keras.config.dtype_policy()
    if name is not None:
        keras.config.set_dtype_policy(name)
    try:
        yield
    finally:
        keras.config.set_dtype_policy(before)


def _construct(config: dict[str, Any], safe_mode: bool) -> Any:
    """Makes the model; compiling and building it follow, in their own order."""
    _strip_build_configs(config)
    model = keras.saving.deserialize_keras_object(config, safe_mode=safe_mode)
    if not isinstance(model, keras.Model):
        raise TypeError(f"the config is that of a {type(model).__name__}, not a model")
    return model


def _strip_build_configs(config: dict[str, Any]) -> None:
    """Lets the layers of sequential and functional models be built as at first.

    Keras would build each of them alone, before the model calls it, and the paths of
    their variables would lack the model. What a class of the user does with the
    layers in its config is not known, so those are left.
    """
    stack: list[Any] = [config]
    while stack:
        value = stack.pop()
        if isinstance(value, list | tuple):
            stack.extend(value)
        elif isinstance(value, dict):
            is_object = "class_name" in value and "config" in value
            if is_object and _is_built_as_usual(value):
                value.pop("build_config", None)
            if not is_object or _calls_its_layers(value):
                stack.extend(value.values())


def _calls_its_layers(node: dict[str, Any]) -> bool:
    """Whether a class builds the layers in its config by calling them."""
    # `resolve_objects` leaves the module of Keras's own classes only.
    config = node["config"]
    functional = {"layers", "input_layers", "output_layers"}
    return bool(node.get("module")) or functional <= set(config)


def _is_built_as_usual(node: dict[str, Any]) -> bool:
    """Whether a class leaves it to Keras how it is built."""
    if node.get("module"):
        return True
    found = keras.saving.get_registered_object(node.get("registered_name"))
    usual = (keras.layers.Layer.build_from_config, keras.Model.build_from_config)
    return getattr(found, "build_from_config", None) in usual


def _build(model: Any, fields: dict[str, Any]) -> None:
    """Creates the variables of models that only do so when they are called."""
    wanted = sum(record["role"] == "weight" for record in fields["variables"])
    if model.built and len(model.weights) >= wanted:
        return
    structure = fields.get("input_structure")
    if structure is None:
        return
    build_by_call(model, _specs(structure))


def _compile(model: Any, config: dict[str, Any], safe_mode: bool) -> None:
    """Compiles the model as it was, and creates the variables of its optimizer."""
    kind = type(model)
    usual = (
        kind.compile is keras.Model.compile
        and kind.compile_from_config is keras.Model.compile_from_config
    )
    if safe_mode or not usual:
        model.compile_from_config(config)
        return
    # That method has no word for a file that is trusted.
    model.compile(**keras.saving.deserialize_keras_object(config, safe_mode=False))
    model.optimizer.build(model.trainable_variables)


def _specs(structure: Any) -> Any:
    """The specs in the structure of a model's inputs."""
    if isinstance(structure, dict) and set(structure) >= {"name", "shape", "dtype"}:
        shape = structure["shape"]
        # Keras has no tensors of unknown rank.
        return tf.TensorSpec((None,) if shape is None else shape, structure["dtype"])
    if isinstance(structure, dict):
        return {key: _specs(part) for key, part in structure.items()}
    return [_specs(part) for part in structure]
