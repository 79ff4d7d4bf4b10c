"""What a signature is made of: a model, one of its methods, or a function."""

import dataclasses
import inspect
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import keras
import tensorflow as tf

from keras_metagraph.errors import SignatureError
from keras_metagraph.export.outputs import output_keys
from keras_metagraph.export.placeholders import named_leaves
from keras_metagraph.export.specs import input_specs, structure_paths, to_spec
from keras_metagraph.export.trace import inference_call
from keras_metagraph.export.tracing import check_model

# Methods of Keras that run a graph from Python, batch by batch.
_LOOPS = (
    "evaluate",
    "fit",
    "predict",
    "predict_on_batch",
    "test_on_batch",
    "train_on_batch",
)
_VARIABLE_KINDS = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)


@dataclasses.dataclass(frozen=True)
class Target:
    """A function by the keys of what it takes and gives.

    Attributes:
        name: What errors call it.
        inputs: Specs by input key.
        call: From tensors by input key to whatever the function returns.
        output_names: Names of the outputs, if they have any.
        model: The Keras model that it is, or is a method of.
    """

    name: str
    inputs: dict[str, Any]
    call: Callable[[Mapping[str, Any]], Any]
    output_names: tuple[str, ...] = ()
    model: Any = None

    def outputs(self, tensors: Mapping[str, Any]) -> dict[str, Any]:
        """Calls it.

        Args:
            tensors: Tensors by input key.

        Returns:
            Tensors by output key.

        Raises:
            SignatureError: If two outputs have one key.
        """
        structure = self.call(tensors)
        leaves = {
            path: value if _is_composite(value) else tf.convert_to_tensor(value)
            for path, value in zip(
                structure_paths(structure), tf.nest.flatten(structure), strict=True
            )
            if value is not None
        }
        keys = output_keys(list(leaves), self.output_names)
        twice = sorted({key for key in keys if keys.count(key) > 1})
        if twice:
            raise SignatureError(
                f"Outputs of {self.name!r} have the same key: "
                f"{', '.join(map(repr, twice))}.",
                fix="return a dict with other keys.",
            )
        return dict(zip(keys, leaves.values(), strict=True))


def as_target(target: Any, inputs: Any = None) -> Target:
    """Reads what a signature is to be made of.

    Args:
        target: A Keras model, or a function on tensors: a method, a `tf.function`, a
            layer.
        inputs: What it takes. For a model the structure of its inputs, or new keys
            for them, `{"x": model.input}`. For a function one spec, a list of one
            entry an argument, or a dict by argument; entries may be nested. None for
            a model or `tf.function` that knows.

    Returns:
        The function by the keys of its inputs and outputs.

    Raises:
        SignatureError: If it is no function, or does not say what it takes.
        ExportError: If a model has never seen data.
    """
    if isinstance(target, keras.Model):
        return _of_model(target, inputs)
    if not callable(target):
        raise SignatureError(
            f"A signature is made of a keras.Model or a function. Received: {target!r}",
            fix="pass the model, one of its methods, or a function on tensors.",
        )
    _refuse_loop(target)
    return _of_function(target, inputs)


def _refuse_loop(function: Any) -> None:
    """Refuses what takes arrays, and is in no graph."""
    method = getattr(function, "__func__", None)
    loops = [getattr(keras.Model, name) for name in _LOOPS]
    if method is not None and method in loops:
        raise SignatureError(
            f"Keras runs {function.__name__!r} in Python, and it has no graph.",
            fix="pass the model itself, or its predict_step with specs.",
        )


def _of_model(model: Any, inputs: Any) -> Target:
    check_model(model)
    call = inference_call(model)
    names = tuple(getattr(model, "output_names", ()))
    renamed = _new_keys(model, inputs)
    structure = input_specs(model, None if renamed else inputs)
    keys = {leaf.name: leaf.name for leaf in named_leaves(structure)}
    if renamed:
        keys = dict(zip(keys, renamed, strict=True))
    specs = {keys[leaf.name]: leaf.spec for leaf in named_leaves(structure)}

    def by_key(tensors: Mapping[str, Any]) -> Any:
        return call(
            tf.nest.map_structure(
                lambda leaf: None if leaf is None else tensors[keys[leaf.name]],
                structure,
            )
        )

    return Target(model.name, specs, by_key, names, model)


def _new_keys(model: Any, inputs: Any) -> list[str] | None:
    """New keys for a functional model's inputs, in the order of its own, if given."""
    if not isinstance(inputs, Mapping) or not getattr(model, "inputs", None):
        return None
    keys = {id(tensor): key for key, tensor in inputs.items()}
    own = tf.nest.flatten(model.input) if len(model.inputs) > 1 else model.inputs
    if set(keys) == {id(tensor) for tensor in own}:
        return [keys[id(tensor)] for tensor in own]
    names = [tensor.name for tensor in own]
    by_key = not isinstance(model, keras.Sequential) and isinstance(
        model.input, Mapping
    )
    if not by_key and set(inputs) != set(names):
        raise SignatureError(
            f"The model {model.name!r} has the inputs {names}. Received: "
            f"inputs={dict(inputs)}",
            fix="for new keys pass its own tensors, {'x': model.inputs[0]}.",
        )
    return None


def _of_function(function: Any, inputs: Any) -> Target:
    name = getattr(function, "name", None) or getattr(function, "__name__", None)
    name = str(name or type(function).__name__)
    arguments = list(_arguments(function, name, inputs))
    leaves = [
        (key, spec)
        for argument in arguments
        for key, spec in zip(_keys(argument), argument.specs, strict=True)
    ]
    specs = dict(leaves)
    if len(specs) < len(leaves):
        twice = sorted({key for key in specs if [k for k, _ in leaves].count(key) > 1})
        raise SignatureError(
            f"Inputs of {name!r} have the same name: {', '.join(map(repr, twice))}.",
            fix='name the specs: tf.TensorSpec([None, 3], tf.float32, name="x").',
        )
    off = {"training": False} if _takes_training(function, arguments) else {}

    def by_key(tensors: Mapping[str, Any]) -> Any:
        positional, keyed = [], dict[str, Any](off)
        for argument in arguments:
            flat = [tensors[key] for key in _keys(argument)]
            value = tf.nest.pack_sequence_as(argument.structure, flat)
            if argument.keyword:
                keyed[argument.name] = value
            else:
                positional.append(value)
        return function(*positional, **keyed)

    owner = getattr(function, "__self__", None)
    owner = owner if isinstance(owner, keras.Model) else None
    return Target(name, specs, by_key, model=owner)


@dataclasses.dataclass(frozen=True)
class _Argument:
    """One argument of a function: its name and the structure of specs it takes."""

    name: str
    structure: Any
    keyword: bool

    @property
    def specs(self) -> list[Any]:
        return list(tf.nest.flatten(self.structure))


def _keys(argument: _Argument) -> list[str]:
    """Input keys of an argument: names of the specs, dict keys, its own name."""
    keys = []
    paths = structure_paths(argument.structure)
    for place, (path, spec) in enumerate(zip(paths, argument.specs, strict=True)):
        if getattr(spec, "name", None):
            keys.append(spec.name)
        elif any(isinstance(part, str) for part in path):
            keys.append("_".join(str(part) for part in path))
        else:
            keys.append(
                argument.name if len(paths) == 1 else f"{argument.name}_{place}"
            )
    return keys


def _arguments(function: Any, name: str, inputs: Any) -> Iterator[_Argument]:
    """The arguments of a function, with what they take."""
    if inputs is None:
        inputs = getattr(function, "input_signature", None)
    if inputs is None and hasattr(function, "structured_input_signature"):
        inputs = function.structured_input_signature[0]
    if inputs is None:
        raise SignatureError(
            f"The function {name!r} does not say what it takes.",
            fix="pass inputs=[tf.TensorSpec([None, 3], tf.float32)], one entry an "
            "argument.",
        )
    if any(isinstance(leaf, str) for leaf in tf.nest.flatten(inputs)):
        raise SignatureError(
            f"What {name!r} takes are specs, and no texts. Received: inputs={inputs!r}",
            fix="pass tf.TensorSpec([None], tf.string) for texts.",
        )
    parameters = _parameters(function)
    if isinstance(inputs, Mapping) and set(inputs) <= set(parameters):
        for key, structure in inputs.items():
            yield _Argument(key, tf.nest.map_structure(to_spec, structure), True)
        return
    entries = list(inputs) if isinstance(inputs, list | tuple) else [inputs]
    for place, structure in enumerate(entries):
        if place < len(parameters):
            called = parameters[place]
        else:
            called = "input" if len(entries) == 1 else f"input_{place}"
        yield _Argument(called, tf.nest.map_structure(to_spec, structure), False)


def _parameters(function: Any) -> list[str]:
    """Names of the parameters that a function lists."""
    if isinstance(function, keras.layers.Layer):
        function = function.call  # it lists none itself
    python = getattr(function, "python_function", None)
    try:
        found = inspect.signature(function if python is None else python).parameters
    except (TypeError, ValueError):  # some builtins have none
        return []
    return [
        name
        for name, parameter in found.items()
        if parameter.kind not in _VARIABLE_KINDS and name != "self"
    ]


def _takes_training(function: Any, arguments: list[_Argument]) -> bool:
    """Whether a function would have to be told that it is not training."""
    place = _parameters(function)
    taken = {argument.name for argument in arguments}
    return "training" in place and "training" not in taken


def _is_composite(value: Any) -> bool:
    return isinstance(value, tf.SparseTensor | tf.RaggedTensor)
