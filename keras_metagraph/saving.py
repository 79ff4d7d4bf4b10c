"""Writes Keras models as TensorFlow 1 MetaGraphs."""

import dataclasses
import os
import warnings
from collections.abc import Mapping, Sequence
from typing import Any

from google.protobuf import text_format

from keras_metagraph.checkpoint.durable import replaced_file, write_bytes
from keras_metagraph.checkpoint.names import STATE_FILE, meta_path, step_prefix
from keras_metagraph.checkpoint.snapshot import read_value, take_snapshot
from keras_metagraph.checkpoint.write import write_checkpoint
from keras_metagraph.export.assemble import Exported, finish
from keras_metagraph.export.cache import cached_meta_graph, last_export
from keras_metagraph.export.checkpoint_values import checkpoint_values
from keras_metagraph.export.names import named_variables
from keras_metagraph.export.options import GRAPHS, ExportOptions
from keras_metagraph.export.original import export_original, original_values
from keras_metagraph.export.scoped import in_scope, without_scope
from keras_metagraph.export.tracing import check_model
from keras_metagraph.signatures.declared import declared_signatures
from keras_metagraph.signatures.validation import check_keys, check_signatures

_TEXT_ENDINGS = (".pbtxt", ".txt")


def export_meta_graph(
    model: Any,
    filename: str | os.PathLike[str] | None = None,
    *,
    collection_list: Sequence[str] | None = None,
    as_text: bool = False,
    clear_devices: bool = False,
    strip_default_attrs: bool = False,
    export_scope: str | None = None,
    graphs: Sequence[str] = GRAPHS,
    signatures: Mapping[str, Any] | None = None,
    collections: Mapping[str, Any] | None = None,
    meta_info: Mapping[str, Any] | None = None,
    checkpoint: str | os.PathLike[str] | None = None,
    inputs: Any = None,
    labels: Any = None,
    sample_weight: Any = None,
    target: str | None = "1.15",
) -> Any:
    """Exports a Keras model as a TensorFlow 1 MetaGraph.

    The graph holds the model's own `call`, `test_step` and `train_step`, flat, in the
    ops of TensorFlow 1.15, with placeholders for inputs, labels and sample weights.
    Values of variables are not in it: `save_meta_graph` writes them too.

    Args:
        model: A built `keras.Model`. One that is not compiled gives the predict graph.
        filename: Where to write it; None only returns it.
        collection_list: The only collections to write; None writes all of them.
        as_text: Whether to write text.
        clear_devices: Whether to remove devices from the nodes.
        strip_default_attrs: Whether to leave attributes with default values out.
        export_scope: The only scope to write, such as the name of a nested model; its
            nodes are named without it.
        graphs: Which graphs to write: `"predict"`, `"eval"`, `"train"`.
        signatures: Further signatures by key: what `predict_signature`,
            `classify_signature` and `regress_signature` make, a `tf.function` with an
            input signature, a `SignatureDef`, or with names of tensors
            `{"inputs": {key: tensor}, "outputs": {key: tensor}}`.
        collections: Further collections by name: lists of tensor names, numbers,
            bytes, texts, messages, or objects with `to_proto`.
        meta_info: `tags`, `meta_graph_version`, `any_info`, or fields of your own.
        checkpoint: A checkpoint of the model, object-based or name-based, `.keras`,
            `.weights.h5` or older `.h5`. Its values are written beside `filename`;
            the model keeps its own.
        inputs: Specs of the inputs, for a model that has never seen data.
        labels: Specs of the labels; by default what `fit` saw, or what follows from
            the loss.
        sample_weight: Specs of the sample weights, or True for one weight a sample.
        target: `"1.15"`, or None for the ops of the TensorFlow that is installed.

    Returns:
        The `MetaGraphDef`.

    Raises:
        ExportError: If the model or an argument cannot be exported.
        SignatureError: If a signature or scope names what is not in the graph.
        CheckpointError: If `checkpoint` does not fit the model, or files cannot be
            written.

    Example:
        ```python
        meta_graph_def = export_meta_graph(model, "run/model.meta", graphs=["predict"])
        ```
    """
    options = ExportOptions(
        graphs=tuple(graphs),
        signatures=signatures,
        collections=collections,
        collection_list=collection_list,
        inputs=inputs,
        labels=labels,
        sample_weight=sample_weight,
        meta_info=meta_info,
        export_scope=export_scope,
        clear_devices=clear_devices,
        strip_default_attrs=strip_default_attrs,
        target=target,
    )
    exported, meta_graph_def = export_with(model, options)
    values = None
    if checkpoint is not None:
        values = values_for(model, exported, export_scope, checkpoint)
    if filename is not None:
        path = os.fspath(filename)
        content = _encode(meta_graph_def, as_text or path.endswith(_TEXT_ENDINGS))
        _write_graph(path, content, values)
    return meta_graph_def


def save_meta_graph(
    model: Any,
    filepath: str | os.PathLike[str],
    global_step: Any = None,
    *,
    as_text: bool = False,
    checkpoint: str | os.PathLike[str] | None = None,
    write_state: bool = True,
    latest_filename: str = STATE_FILE,
    **export_arguments: Any,
) -> str:
    """Saves a Keras model as a MetaGraph with a name-based V2 checkpoint.

    What `tf.train.Saver.save` did: `<filepath>-<step>` with the endings `.meta`,
    `.index` and `.data-00000-of-00001`, and the file `checkpoint` beside them. The
    graph of a model that has not changed since its last save is not traced again.

    Where TensorFlow 1 has the optimizer, its slots and powers have their TensorFlow 1
    names, so that a program without the `.meta` restores them with its own `Saver`.
    Without the train graph the checkpoint holds no state of the optimizer.

    Args:
        model: A built `keras.Model`.
        filepath: Directory and base name of the checkpoint: `"run/model"`.
        global_step: The step to append to the name: a number, or a variable such as
            `model.optimizer.iterations`.
        as_text: Whether `.meta` is text.
        checkpoint: A checkpoint to take the values from; the model keeps its own.
        write_state: Whether the state file names this checkpoint as the newest.
        latest_filename: Name of the state file.
        **export_arguments: Further arguments of `export_meta_graph`.

    Returns:
        The prefix of the checkpoint.

    Raises:
        ExportError: If the model or an argument cannot be exported.
        SignatureError: If a signature or scope names what is not in the graph.
        CheckpointError: If `checkpoint` does not fit the model, if the prefix is taken,
            or if files cannot be written.

    Example:
        ```python
        prefix = save_meta_graph(model, "run/model", model.optimizer.iterations)
        ```
    """
    step = None if global_step is None else int(read_value(global_step))
    prefix = step_prefix(filepath, step)
    options = ExportOptions(**export_arguments)
    exported, meta_graph_def = export_with(model, options)
    commit = write_checkpoint(
        prefix,
        values_for(model, exported, options.export_scope, checkpoint),
        _encode(meta_graph_def, as_text),
        write_state=write_state,
        latest_filename=latest_filename,
    )
    return commit.prefix


def variable_values(model: Any) -> dict[str, Any]:
    """The values that a checkpoint of a model holds, by name, in order.

    Those of weights, random seeds and optimizer, with the powers that TensorFlow 1
    keeps of Adam's decay rates, and of what else the last exported graph uses; metrics
    start anew after a load.

    Args:
        model: A built `keras.Model`.

    Returns:
        Tensors; they do not change when training goes on.

    Example:
        ```python
        kernel = variable_values(model)["dense/kernel"]
        ```
    """
    return take_snapshot(checkpoint_variables(model))


def checkpoint_variables(model: Any) -> dict[str, Any]:
    """The variables that a checkpoint of a model holds, by name, in order.

    Args:
        model: A built `keras.Model`.

    Returns:
        Those of `variable_values`, as they are: variables, not tensors.
    """
    original = original_values(model)
    if original is not None:
        return original
    last = last_export(model)
    variables = named_variables(model, [] if last is None else last.others)
    return {v.name: v.variable for v in variables if v.role != "metric"}


def export_with(model: Any, options: ExportOptions) -> tuple[Exported, Any]:
    """Exports with what the model itself adds, and says what 1.15 cannot run.

    Args:
        model: A built `keras.Model`.
        options: What to export.

    Returns:
        The export, and the MetaGraphDef with the user's signatures and collections.

    Raises:
        ExportError: If the model or an option cannot be exported.
        SignatureError: If a signature names what is not in the graph.
    """
    check_model(model)
    check_keys(options.signatures)
    signatures = dict(options.signatures or {})
    # In a SavedModel the steps are graphs of their own, for training programs.
    if options.saved_model is None or "predict" in options.graphs:
        own = _with_own(model, "meta_graph_signatures", signatures)
        signatures = {**declared_signatures(model), **own}
    options = dataclasses.replace(
        options,
        signatures=signatures,
        collections=_with_own(model, "meta_graph_collections", options.collections),
    )
    original = export_original(model, options)
    if original is not None:
        return original, _finished(original, options)
    exported, is_new = cached_meta_graph(model, options)
    if exported.unsupported and is_new:
        warnings.warn(
            "TensorFlow 1.15 cannot import this graph. It lacks what these need:\n  - "
            + "\n  - ".join(exported.unsupported)
            + "\nTo fix: use other layers there, leave their graph out, or pass "
            "target=None if TensorFlow 2 is to read the file.",
            stacklevel=3,
        )
    return exported, _finished(exported, options)


def _finished(exported: Exported, options: ExportOptions) -> Any:
    """Finishes an export, and refuses signatures that no server would take."""
    meta_graph_def = finish(exported, options)
    signature_defs = meta_graph_def.signature_def
    written = [key for key in options.signatures or () if key in signature_defs]
    check_signatures(signature_defs, written)
    return meta_graph_def


def _with_own(
    model: Any, method: str, given: Mapping[str, Any] | None
) -> dict[str, Any]:
    """What a model with the mixin says, and over it what the caller says."""
    own = getattr(model, method, None)
    return {**(own() if callable(own) else {}), **(given or {})}


def values_for(
    model: Any,
    exported: Exported,
    scope: str | None,
    checkpoint: str | os.PathLike[str] | None,
) -> dict[str, Any]:
    """The values for the checkpoint, by their names in the exported graph.

    Args:
        model: The model.
        exported: Its export.
        scope: The only scope that was exported, if so.
        checkpoint: A checkpoint to take the values from, if not from the model.

    Returns:
        Tensors and arrays.

    Raises:
        CheckpointError: If the checkpoint does not fit the model.
    """
    if checkpoint is None:
        values = take_snapshot({v.name: v.variable for v in exported.variables})
    else:
        values = checkpoint_values(model, exported.variables, checkpoint)
    if not scope:
        return values
    return {
        without_scope(name, scope): value
        for name, value in values.items()
        if in_scope(name, scope)
    }


def _encode(meta_graph_def: Any, as_text: bool) -> bytes:
    """The bytes of the file."""
    if as_text:
        return bytes(text_format.MessageToString(meta_graph_def).encode("utf-8"))
    return bytes(meta_graph_def.SerializeToString(deterministic=True))


def _write_graph(path: str, content: bytes, values: Mapping[str, Any] | None) -> None:
    """Writes a graph, and the checkpoint beside it if there are values for one."""
    if values is None:
        _write_file(path, content)
        return
    prefix = os.path.splitext(path)[0]
    if meta_path(prefix) == path:
        write_checkpoint(prefix, values, content, write_state=False)
        return
    write_checkpoint(prefix, values, None, write_state=False)
    _write_file(path, content)


def _write_file(path: str, content: bytes) -> None:
    """Writes a file at once; one that was there is replaced."""
    with replaced_file(path) as temporary:
        os.makedirs(os.path.dirname(temporary), exist_ok=True)
        write_bytes(temporary, content)
