"""`load_from_meta_graph`: a Keras model from a MetaGraph."""

import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import keras

from keras_metagraph.errors import (
    CustomObjectError,
    FormatError,
    MetaGraphError,
    UntrustedContentError,
)
from keras_metagraph.formats.keras_h5 import is_hdf5
from keras_metagraph.formats.registry import open_export
from keras_metagraph.loading.legacy import KERAS, LegacyOptions, load_legacy
from keras_metagraph.loading.legacy_keras.api import load_legacy_keras
from keras_metagraph.loading.legacy_keras.saved_model import (
    keras2_objects,
    load_keras2_saved_model,
)
from keras_metagraph.loading.own import is_own, load_own
from keras_metagraph.loading.variable_map import VariableMap

_REBUILDS = ("auto", "config", "graph")
Names = str | Sequence[str] | Mapping[str, str]


def load_from_meta_graph(
    filepath: Any,
    custom_objects: Mapping[str, Any] | None = None,
    *,
    compile: bool | str = True,
    safe_mode: bool = True,
    rebuild: str = "auto",
    inputs: Names | None = None,
    outputs: Names | None = None,
    labels: Names | None = None,
    loss: str | None = None,
    train_op: str | Sequence[str] | None = None,
    training_flag: str | None = None,
    feeds: Mapping[str, Any] | None = None,
    tags: Sequence[str] | None = None,
    signature: str | None = None,
    variable_map: VariableMap | None = None,
    ema: bool = False,
) -> Any:
    r"""Loads a Keras model from a MetaGraph and its checkpoint.

    Files that this package wrote become the model that was saved: class, config,
    weights, optimizer. Files that TensorFlow 0.12 to 1.15 wrote become a functional
    model around their graph. After a plain load `fit` goes on with the graph's own
    train op; after `model.compile(...)` Keras trains.

    Nothing of the file is run before it was checked (`docs/security`).

    Args:
        filepath: A checkpoint prefix, a `.meta` or `.pbtxt` file, a directory with a
            `checkpoint` state file (its newest complete checkpoint is taken), a
            SavedModel directory, or an H5 file of Keras 1 or 2 (`docs/legacy-keras`),
            of which only the next three arguments matter.
        custom_objects: Classes and functions by the name that the file has for them.
        compile: Whether to compile the model as it was: own files with their
            optimizer, others with the train op of their graph. `"keras"` compiles
            others with a Keras optimizer that is read off the graph, slots and
            schedule included, and that minimizes the graph's own loss.
        safe_mode: Whether to refuse ops that touch files, network or Python, and
            Python code in configs.
        rebuild: `"config"` (own files, and SavedModels of Keras 2: from the Keras
            config), `"graph"` (from the graph), or `"auto"`: the first of the two that
            fits. Where a caller names parts of the graph, it is `"graph"`.
        inputs: Tensor names by input name, or a list of tensor names; inferred from
            signatures, collections and placeholders by default.
        outputs: The same for outputs.
        labels: The same for the placeholders that take the `y` of `fit`.
        loss: Name of the loss tensor.
        train_op: Names of the operations that one training step runs.
        training_flag: Name of the placeholder that says whether the model trains.
        feeds: Constants to bake in, by tensor name: `{"keep_prob:0": 1.0}`.
        tags: Which MetaGraph of a SavedModel, by its set of tags.
        signature: Which signature gives inputs and outputs.
        variable_map: Keys of the checkpoint by variable name, where they differ. A name
            with `^` or `$` is a regular expression (a compiled one is, too), of which
            the first match is replaced: `{r"^tower/(.*)": r"model/\1"}`. Or a function
            that returns the key for a name, or None to leave it as it is.
        ema: Whether the trainable variables get their moving averages
            (`tf.train.ExponentialMovingAverage`; of own files Keras's `use_ema`), as
            TensorFlow 1 evaluates with `ema.variables_to_restore()`.

    Returns:
        A `keras.Model`. `model.meta_graph` has the graph behind it: collections,
        signatures, `fetch` and `run`.

    Raises:
        FormatError: If the file is missing, damaged, or no MetaGraph.
        CheckpointError: If the checkpoint is missing, damaged, or of another model.
        SignatureError: If a named tensor does not exist, inputs or outputs were not
            found, or `variable_map` does not fit.
        UntrustedContentError: If the model needs what `safe_mode` refuses.
        UnsupportedOpError: If the model needs ops that TensorFlow does not know.
        CustomObjectError: If classes are missing; names all of them.
        MetaGraphError: With `rebuild="config"`, if Keras 3 cannot make the model of a
            SavedModel of Keras 2; lists why.
        LoweringError: If `compile="keras"` and the graph's optimizer is none of the
            known ones.

    Example:
        ```python
        model = keras_metagraph.load_from_meta_graph("exports/model-20")
        model.evaluate(x, y)
        model.fit(x, y)
        ```
    """
    _require_tensorflow_backend()
    if rebuild not in _REBUILDS:
        raise FormatError(
            f"rebuild is one of {_REBUILDS}. Received: rebuild={rebuild!r}.",
            fix='leave it at "auto".',
        )
    if compile not in (True, False, KERAS):
        raise FormatError(
            f"compile is True, False or {KERAS!r}. Received: compile={compile!r}.",
            fix="leave it at True.",
        )
    if is_hdf5(filepath):
        return load_legacy_keras(
            filepath, custom_objects, compile=bool(compile), safe_mode=safe_mode
        )
    export = open_export(filepath)
    meta_graph_def = export.select(tags)
    options = LegacyOptions(
        compile=compile,
        safe_mode=safe_mode,
        inputs=inputs,
        outputs=outputs,
        labels=labels,
        loss=loss,
        train_op=train_op,
        training_flag=training_flag,
        feeds=feeds,
        signature=signature,
        variable_map=variable_map,
        ema=ema,
    )
    own = is_own(meta_graph_def)
    if rebuild == "graph" or (own and rebuild == "auto" and options.names_tensors):
        return load_legacy(export, meta_graph_def, options)
    keras2 = {} if own else keras2_objects(export, meta_graph_def)
    if keras2 and (rebuild == "config" or not options.names_parts):
        try:
            return load_keras2_saved_model(
                export,
                meta_graph_def,
                keras2,
                custom_objects,
                compile=bool(compile),
                safe_mode=safe_mode,
            )
        except MetaGraphError as error:
            if rebuild == "config":
                raise
            warnings.warn(
                "The functions of the SavedModel are loaded, and not the Keras model "
                f"that it was: {error}",
                stacklevel=2,
            )
    if rebuild == "config" and not own:
        raise FormatError(
            f"{export.path} was not written by keras_metagraph or by model.save of "
            'Keras 2, so it has no Keras config. Received: rebuild="config".',
            fix='pass rebuild="auto" or rebuild="graph".',
        )
    if not own:
        return load_legacy(export, meta_graph_def, options)
    try:
        return load_own(
            export,
            meta_graph_def,
            custom_objects=custom_objects,
            compile=bool(compile),
            safe_mode=safe_mode,
            variable_map=variable_map,
            ema=ema,
        )
    except (CustomObjectError, UntrustedContentError) as error:
        if rebuild == "config" or isinstance(error, UntrustedContentError):
            raise
        warnings.warn(
            "The model is loaded as its graph, since its classes are not known here: "
            f"{error}",
            stacklevel=2,
        )
        return load_legacy(export, meta_graph_def, options)


def _require_tensorflow_backend() -> None:
    if keras.config.backend() != "tensorflow":
        raise MetaGraphError(
            "A graph is run by TensorFlow, so that Keras must use its TensorFlow "
            f"backend. Received: the backend {keras.config.backend()!r}.",
            fix='set the environment variable KERAS_BACKEND="tensorflow" before keras '
            "is imported.",
        )
