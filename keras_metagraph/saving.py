"""Writes Keras models as TensorFlow 1 MetaGraphs."""

import dataclasses
import os
import secrets
import warnings
from collections.abc import Mapping, Sequence
from typing import Any

from google.protobuf import text_format

from keras_metagraph.checkpoint.durable import write_bytes
from keras_metagraph.checkpoint.names import STATE_FILE, meta_path, step_prefix
from keras_metagraph.checkpoint.snapshot import read_value, take_snapshot
from keras_metagraph.checkpoint.write import write_checkpoint
from keras_metagraph.errors import ExportError
from keras_metagraph.export.assemble import Exported, finish
from keras_metagraph.export.cache import cached_meta_graph, last_export
from keras_metagraph.export.checkpoint_values import checkpoint_values
from keras_metagraph.export.names import NamedVariable, named_variables
from keras_metagraph.export.options import GRAPHS, ExportOptions
from keras_metagraph.export.scoped import in_scope, without_scope

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
        signatures: Further signatures by key: a `tf.function` with an input signature,
            a `SignatureDef`, or `{"inputs": {key: tensor}, "outputs": {key: tensor}}`
            with names of tensors.
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
    exported, meta_graph_def = _export(model, options)
    values = _values(model, exported, export_scope, checkpoint)
    if filename is not None:
        path = os.fspath(filename)
        content = _encode(meta_graph_def, as_text or path.endswith(_TEXT_ENDINGS))
        if checkpoint is None:
            _write_file(path, content)
        else:
            _write_with_values(path, content, values)
    return meta_graph_def


def save_meta_graph(
    model: Any,
    filepath: str | os.PathLike[str],
    global_step: Any = None,
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
    write_state: bool = True,
    latest_filename: str = STATE_FILE,
) -> str:
    """Saves a Keras model as a MetaGraph with a name-based V2 checkpoint.

    What `tf.train.Saver.save` did: `<filepath>-<step>` with the endings `.meta`,
    `.index` and `.data-00000-of-00001`, and the file `checkpoint` beside them. The
    graph of a model that has not changed since its last save is not traced again.

    Args:
        model: A built `keras.Model`.
        filepath: Directory and base name of the checkpoint: `"run/model"`.
        global_step: The step to append to the name: a number, or a variable such as
            `model.optimizer.iterations`.
        collection_list: As for `export_meta_graph`, and so are those that follow.
        as_text: Whether `.meta` is text.
        clear_devices: Whether to remove devices from the nodes.
        strip_default_attrs: Whether to leave attributes with default values out.
        export_scope: The only scope to write.
        graphs: Which graphs to write.
        signatures: Further signatures.
        collections: Further collections.
        meta_info: Tags, version, fields of your own.
        checkpoint: A checkpoint to take the values from.
        inputs: Specs of the inputs.
        labels: Specs of the labels.
        sample_weight: Specs of the sample weights.
        target: `"1.15"`, or None for the ops of the TensorFlow that is installed.
        write_state: Whether the state file names this checkpoint as the newest.
        latest_filename: Name of the state file.

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
    prefix = step_prefix(filepath, _step(global_step))
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
    exported, meta_graph_def = _export(model, options)
    commit = write_checkpoint(
        prefix,
        _values(model, exported, export_scope, checkpoint),
        _encode(meta_graph_def, as_text),
        write_state=write_state,
        latest_filename=latest_filename,
    )
    return commit.prefix


def variable_values(model: Any) -> dict[str, Any]:
    """The values that a checkpoint of a model holds, by name, in order.

    Those of weights, random seeds and optimizer, and of what else the last exported
    graph uses; metrics start anew after a load.

    Args:
        model: A built `keras.Model`.

    Returns:
        Tensors; they do not change when training goes on.

    Example:
        ```python
        values = variable_values(model)
        values["dense/kernel"]
        ```
    """
    variables = {
        v.name: v.variable for v in named_variables(model) if v.role != "metric"
    }
    last = last_export(model)
    if last is not None:
        held = {id(variable) for variable in variables.values()}
        variables |= {n: v for n, v in last.others.items() if id(v) not in held}
    return take_snapshot(variables)


def _export(model: Any, options: ExportOptions) -> tuple[Exported, Any]:
    """Exports with what the model itself adds, and says what 1.15 cannot run."""
    options = dataclasses.replace(
        options,
        signatures={**_of_model(model, "meta_graph_signatures"), **_dict(options.signatures)},
        collections={
            **_of_model(model, "meta_graph_collections"),
            **_dict(options.collections),
        },
    )
    exported, is_new = cached_meta_graph(model, options)
    if exported.unsupported and is_new:
        warnings.warn(
            "TensorFlow 1.15 cannot import this graph. It lacks what these need:\n  - "
            + "\n  - ".join(exported.unsupported)
            + "\nTo fix: use other layers there, leave their graph out, or pass "
            "target=None if TensorFlow 2 is to read the file.",
            stacklevel=3,
        )
    return exported, finish(exported, options)
