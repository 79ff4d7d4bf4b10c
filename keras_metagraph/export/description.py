"""What an exported file says of its Keras model, as JSON in a collection.

The protocol number is raised when an older version of this package would misread what
a new one writes; additions that it may ignore leave the number as it is.
"""

import importlib.metadata
import json
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import keras
import tensorflow as tf

from keras_metagraph.export.names import NamedVariable
from keras_metagraph.export.specs import NamedSpec
from keras_metagraph.export.vocabularies import vocabularies

PROTOCOL = 1


def describe(
    model: Any,
    inputs: Any,
    variables: Iterable[NamedVariable],
    graphs: Mapping[str, Any],
) -> bytes:
    """Writes the description of a model.

    Args:
        model: The model.
        inputs: The structure of named specs that its call takes.
        variables: Its variables. The checkpoint has those that its graphs need.
        graphs: What each exported graph takes and gives, by graph.

    Returns:
        JSON, in UTF-8.
    """
    config, error = _config(lambda: keras.saving.serialize_keras_object(model))
    compiled, compile_error = _config(lambda: _compile_config(model))
    fields = {
        "protocol": PROTOCOL,
        "versions": _versions(),
        "model": config,
        "build_config": _config(model.get_build_config)[0],
        "compile_config": compiled if model.compiled else None,
        "dtype_policy": model.dtype_policy.name,
        "input_structure": _spec_structure(inputs),
        "variables": [_variable(variable) for variable in variables],
        "graphs": graphs,
        "vocabularies": vocabularies(model),
    }
    if error is not None:
        fields["model_error"] = error
    if model.compiled and compile_error is not None:
        fields["compile_error"] = compile_error
    return json.dumps(fields, sort_keys=True).encode("utf-8")


def _compile_config(model: Any) -> Any:
    """How the model is compiled; the optimizer, too, where Keras has lost it.

    `model.save` to H5 takes it out of the config that the model keeps.
    """
    config = model.get_compile_config()
    optimizer = getattr(model, "optimizer", None)
    if config is None or optimizer is None or "optimizer" in config:
        return config
    return {**config, "optimizer": keras.saving.serialize_keras_object(optimizer)}


def _config(get: Callable[[], Any]) -> tuple[Any, str | None]:
    """What a config method gives, as JSON has it; or None and why it gives none."""
    try:
        return json.loads(json.dumps(get())), None
    except Exception as error:  # Config methods are the user's code.
        return None, f"{type(error).__name__}: {error}"


def _spec_structure(structure: Any) -> Any:
    if isinstance(structure, NamedSpec):
        shape = tf.TensorShape(structure.spec.shape)
        return {
            "name": f"{structure.name}:0",
            "shape": None if shape.rank is None else shape.as_list(),
            "dtype": tf.as_dtype(structure.spec.dtype).name,
        }
    if isinstance(structure, Mapping):
        return {key: _spec_structure(value) for key, value in structure.items()}
    return [_spec_structure(value) for value in structure]


def _variable(variable: NamedVariable) -> dict[str, Any]:
    held = variable.variable
    return {
        "name": variable.name,
        "role": variable.role,
        "index": variable.index,
        "path": variable.path,
        "shape": list(held.shape),
        "dtype": tf.as_dtype(held.dtype).name,
        "trainable": variable.trainable,
    }


def _versions() -> dict[str, str]:
    versions = {"keras": keras.__version__, "tensorflow": tf.__version__}
    try:
        versions["keras_metagraph"] = importlib.metadata.version("keras_metagraph")
    except importlib.metadata.PackageNotFoundError:
        versions["keras_metagraph"] = "unknown"
    return versions
