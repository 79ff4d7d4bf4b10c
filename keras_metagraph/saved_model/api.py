"""`save_saved_model` and `simple_save`."""

import os
from collections.abc import Mapping, Sequence
from typing import Any

import keras
import tensorflow as tf

from keras_metagraph.errors import ExportError
from keras_metagraph.saved_model.directory import next_version, refuse_taken
from keras_metagraph.saved_model.prepared import prepare_saved_model

Path = str | os.PathLike[str]


def save_saved_model(
    path: Path,
    graphs: Any,
    *,
    signatures: Mapping[str, Any] | None = None,
    assets: Mapping[str, Path] | Sequence[Path] | None = None,
    assets_extra: Mapping[str, Path] | None = None,
    main_op: Any = None,
    collections: Mapping[str, Any] | None = None,
    clear_devices: bool = False,
    strip_default_attrs: bool = False,
    as_text: bool = False,
    timestamped: bool = False,
    layout: str | None = None,
    checkpoint: Path | None = None,
    target: str | None = "1.15",
) -> str:
    """Writes a SavedModel of one or more graphs over one set of variables.

    What `tf.compat.v1.saved_model.Builder` wrote: TensorFlow 1.15 and 2, TensorFlow
    Serving and `saved_model_cli` read it. A variable has the same name in all graphs,
    those of different models included, and its value is written once.

    Args:
        path: The directory, which must not be there yet.
        graphs: A model, for one graph tagged `serve`; or by tags - a text, or a tuple
            of texts, `()` for none - models or dicts. A model under `train` gives the
            graph of its training step, under `eval` that of its evaluation, and under
            other tags that of predicting. A dict has `model` and perhaps `graphs`,
            `signatures`, `collections`, `assets`, `main_op`, and what else
            `export_meta_graph` takes.
        signatures: Further signatures of the graphs that predict, by key.
        assets: Files for `assets/`: paths by name, or a list of paths. Vocabularies of
            the models' lookup tables go there by themselves.
        assets_extra: Files for `assets.extra/`, which nothing in the graphs names:
            paths by name, directories allowed.
        main_op: What a loader runs, besides the initializers of tables and metrics: a
            function without arguments, or the name of an operation.
        collections: Further collections of all graphs, by name.
        clear_devices: Whether to remove devices from the nodes.
        strip_default_attrs: Whether to leave attributes with default values out.
        as_text: Whether to write `saved_model.pbtxt`.
        timestamped: Whether `path` is the directory of the versions, each in a
            directory called after the time, as servers watch it.
        layout: `"estimator"` gives signatures the keys of
            `Estimator.export_all_saved_models`: `predict` beside `serving_default`;
            `loss`, `metrics/<name>/value`, `metrics/<name>/update_op` and
            `predictions/<name>` in those of training and evaluation.
        checkpoint: A checkpoint to take the values from; the models keep their own.
        target: `"1.15"`, or None for the ops of the TensorFlow that is installed.

    Returns:
        The directory.

    Raises:
        ExportError: If a model or argument cannot be exported, or the directory is
            there already; nothing is written then.
        SignatureError: If a signature does not fit its graph.
        CheckpointError: If `checkpoint` does not fit.

    Example:
        ```python
        save_saved_model("export/1", {"serve": model, "train": model, "eval": model})
        ```
    """
    directory = os.fspath(path)
    if timestamped:
        directory = next_version(directory)
    refuse_taken(directory)
    prepared = prepare_saved_model(
        graphs,
        signatures=signatures,
        assets=assets,
        assets_extra=assets_extra,
        main_op=main_op,
        collections=collections,
        clear_devices=clear_devices,
        strip_default_attrs=strip_default_attrs,
        as_text=as_text,
        layout=layout,
        checkpoint=checkpoint,
        target=target,
    )
    prepared.write(directory)
    return directory


def simple_save(
    model: Any,
    export_dir: Path,
    inputs: Mapping[str, Any] | None = None,
    outputs: Mapping[str, Any] | None = None,
    legacy_init_op: Any = None,
) -> str:
    """Writes a SavedModel for serving, as `tf.compat.v1.saved_model.simple_save` did.

    Its one graph is tagged `serve`, has the signature `serving_default` and no devices.

    Args:
        model: A built `keras.Model`.
        export_dir: The directory, which must not be there yet.
        inputs: Symbolic tensors of a functional model, or names of tensors, by the key
            that the signature has for them; by default the model's inputs.
        outputs: The same for outputs; hidden layers are allowed.
        legacy_init_op: What a loader runs: a function without arguments, or the name
            of an operation.

    Returns:
        The directory.

    Raises:
        ExportError: If the model cannot be exported, only one of `inputs` and
            `outputs` is given, or the directory is there already.
        SignatureError: If a tensor is not in the graph.

    Example:
        ```python
        simple_save(model, "export/1", {"x": model.inputs[0]}, {"y": model.outputs[0]})
        ```
    """
    if (inputs is None) != (outputs is None):
        raise ExportError(
            "A signature has inputs and outputs. Received: "
            f"inputs={inputs!r}, outputs={outputs!r}",
            fix="pass both, or neither for those of the model.",
        )
    signatures = None
    if inputs is not None and outputs is not None:
        signatures = {"serving_default": _simple_signature(model, inputs, outputs)}
    return save_saved_model(
        export_dir,
        {
            "serve": {
                "model": model,
                "signatures": signatures,
                "main_op": legacy_init_op,
            }
        },
        clear_devices=True,
    )


def _simple_signature(
    model: Any, inputs: Mapping[str, Any], outputs: Mapping[str, Any]
) -> Any:
    """A signature between names of tensors, or between symbolic tensors of Keras."""
    tensors = [*inputs.values(), *outputs.values()]
    if not any(keras.utils.is_keras_tensor(tensor) for tensor in tensors):
        return {"inputs": dict(inputs), "outputs": dict(outputs)}
    try:
        # Of the same name, so that nodes are called as in the graph of the model.
        part = keras.Model(list(inputs.values()), dict(outputs), name=model.name)
    except (TypeError, ValueError) as error:
        raise ExportError(
            f"No model leads from the given inputs to the outputs: {error}",
            fix="pass symbolic tensors of a functional model for all of them, or names "
            "of tensors for all of them.",
        ) from error
    specs = [
        tf.TensorSpec(tensor.shape, tensor.dtype, name=key)
        for key, tensor in inputs.items()
    ]

    def call(*values: Any) -> Any:
        return part(list(values), training=False)

    return tf.function(call, input_signature=specs, autograph=False)
