"""What a model takes: its inputs, labels and sample weights, as named tensor specs.

What `fit`, `evaluate` and `predict` really passed is best; then what the model was
built with; labels at last follow from the loss and the outputs.
"""

import dataclasses
import inspect
import weakref
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from keras_metagraph.errors import ExportError
from keras_metagraph.export.names import node_name

LABELS = "labels"
SAMPLE_WEIGHT = "sample_weight"

STEPS = ("train_step", "test_step", "predict_step")
_SEEN: "weakref.WeakKeyDictionary[Any, dict[str, Any]]" = weakref.WeakKeyDictionary()


@dataclasses.dataclass(frozen=True, slots=True)
class NamedSpec:
    """What a placeholder takes, and what its node is called."""

    name: str
    spec: Any


def watch_data(model: Any) -> None:
    """Notes what `fit`, `evaluate` and `predict` pass to a model's steps.

    To be called before they trace the model, as `Callback.set_model` is. The next
    trace of each step is noted; nothing else about the model changes. A model whose
    train function is traced already and of which nothing is known gets it traced
    again.

    Args:
        model: A `keras.Model`.
    """
    seen = _SEEN.setdefault(model, {})
    for step in STEPS:
        if step not in seen:
            _watch_step(model, step)
    if "train_step" not in seen and getattr(model, "train_function", None) is not None:
        model.train_function = None


def seen_data(model: Any, step: str) -> tuple[Any, Any, Any] | None:
    """The specs of `(x, y, sample_weight)` that a step last saw, if it was watched."""
    data = _SEEN.get(model, {}).get(step)
    return None if data is None else keras.utils.unpack_x_y_sample_weight(data)


def sees_bare_data(model: Any, step: str) -> bool | None:
    """Whether a step takes its inputs as they are; not `(x,)`, as arrays are passed.

    So it is with a dataset that has no labels.

    Args:
        model: The model.
        step: `"train_step"` or `"test_step"`.

    Returns:
        What was seen of it, or else of the other step; None if nothing was.
    """
    seen = _SEEN.get(model, {})
    data = seen.get(step, seen.get("train_step", seen.get("test_step")))
    return None if data is None else not isinstance(data, list | tuple)


def _watch_step(model: Any, step: str) -> None:
    inner: Callable[..., Any] = getattr(model, step)
    owner = weakref.ref(model)

    def watched(data: Any, *args: Any, **kwargs: Any) -> Any:
        watched_model = owner()
        if watched_model is not None:
            _SEEN.setdefault(watched_model, {})[step] = _batch_specs(data)
            if vars(watched_model).get(step) is watched:
                del vars(watched_model)[step]
        return inner(data, *args, **kwargs)

    # Not setattr: Keras would track the attribute.
    vars(model)[step] = watched


def _batch_specs(data: Any) -> Any:
    """Specs of a batch, with any batch size; None where data is None."""
    return tf.nest.map_structure(
        lambda value: None if value is None else to_spec(value, any_batch=True), data
    )


def to_spec(value: Any, any_batch: bool = False) -> Any:
    """The spec of a tensor, array, `keras.Input`, `InputSpec` or spec.

    Args:
        value: Anything that has a shape and a dtype.
        any_batch: Whether the first dimension becomes unknown.

    Returns:
        A `tf.TensorSpec`, or the spec of a sparse or ragged tensor.

    Raises:
        ExportError: If the value tells no shape or no dtype.
    """
    if isinstance(value, tf.TypeSpec) and not isinstance(value, tf.TensorSpec):
        return value
    if isinstance(value, tf.SparseTensor | tf.RaggedTensor):
        return _composite_spec(value)
    if isinstance(value, int | float | list | tuple | bool | str):
        value = np.asarray(value)
    shape, dtype = getattr(value, "shape", None), getattr(value, "dtype", None)
    if shape is None or dtype is None:
        raise ExportError(
            "Expected tensor specs: objects with a shape and a dtype. "
            f"Received: {value!r}",
            fix="pass tf.TensorSpec([None, 3], tf.float32), a keras.Input or an "
            "example batch.",
        )
    dims = tf.TensorShape(shape)
    if any_batch and dims.rank:
        dims = tf.TensorShape([None]).concatenate(dims[1:])
    if getattr(value, "sparse", False):
        return tf.SparseTensorSpec(dims, tf.as_dtype(dtype))
    if getattr(value, "ragged", False):
        return tf.RaggedTensorSpec(dims, tf.as_dtype(dtype))
    name = getattr(value, "name", None)
    # A tensor is called `data_1:0`, which is no name for a placeholder.
    name = name.partition(":")[0] if isinstance(name, str) else None
    return tf.TensorSpec(dims, tf.as_dtype(dtype), name=name)


def _composite_spec(value: Any) -> Any:
    if isinstance(value, tf.SparseTensor):
        return tf.SparseTensorSpec([None] * value.shape.rank, value.dtype)
    return tf.RaggedTensorSpec.from_value(value)


def input_specs(model: Any, given: Any = None) -> Any:
    """The specs of the structure that the model's `call` takes, with node names.

    Args:
        model: A built model.
        given: Specs from the user, for models that do not know theirs.

    Returns:
        The structure, its leaves specs with names that are all different.

    Raises:
        ExportError: If the model has never seen data.
    """
    structure = _input_structure(model) if given is None else given
    structure = tf.nest.map_structure(to_spec, structure)
    defaults = _input_names(model, structure)
    if given is not None:  # what a spec is called goes before
        own = [_own_name(leaf) for leaf in tf.nest.flatten(structure)]
        defaults = [a or b for a, b in zip(own, defaults, strict=True)]
    return name_leaves(structure, _leaf_names(structure, defaults), set())


def whole_batch_specs(model: Any) -> Any:
    """The specs of all that a step of the model's own saw, as one input of its `call`.

    A step may take the three parts of its batch for three inputs.

    Args:
        model: A model with a `train_step` or `test_step` of its own.

    Returns:
        A tuple of named specs; None if there was but one part.
    """
    for step in ("train_step", "test_step"):
        own = getattr(type(model), step) is not getattr(keras.Model, step)
        data = _SEEN.get(model, {}).get(step) if own else None
        if isinstance(data, tuple) and len([d for d in data if d is not None]) > 1:
            return input_specs(model, data)
    return None


def _own_name(spec: Any) -> str | None:
    """The name that the user gave a spec; not the one that Keras made up."""
    name = getattr(spec, "name", None)
    return None if name is None or name.startswith("keras_tensor") else name


def _input_structure(model: Any) -> Any:
    """Inputs of a model: a structure of Keras tensors or of specs."""
    if isinstance(model, keras.Sequential):
        if not model.built:
            raise _never_built(model)
        stateful = any(getattr(layer, "stateful", False) for layer in model.layers)
        return to_spec(model.inputs[0], any_batch=not stateful)
    if getattr(model, "inputs", None):  # functional
        return model.input
    config = (model.get_build_config() or {}) if model.built else {}
    shapes = config.get("shapes_dict", config)
    # `fit` and `predict` pass one argument; the first is the one with the data. Keras
    # builds a model that has no `call` without a shape.
    shape = next(iter(shapes.values()), None)
    built = None if shape is None else _specs_of_shapes(shape, model.input_dtype)
    for step in reversed(STEPS):
        data = seen_data(model, step)
        if data is not None and (built is None or _fits(data[0], built)):
            return data[0]
    if built is None:
        raise _never_built(model)
    return built


def has_call(model: Any) -> bool:
    """Whether a model can be called: some, as GANs, have a `train_step` only."""
    return getattr(type(model), "call", None) is not keras.Model.call


def step_input_specs(model: Any, step: str, inputs: Any) -> Any:
    """The specs of what a step takes as `x`: the inputs, unless it saw other data.

    Args:
        model: The model.
        step: `"train_step"` or `"test_step"`.
        inputs: The structure of named specs that the call takes.

    Returns:
        A structure of named specs.
    """
    data = seen_data(model, step)
    plain = tf.nest.map_structure(lambda leaf: leaf.spec, inputs)
    if data is None or _fits(data[0], plain):
        return inputs
    names = [f"{step}_input"] * len(tf.nest.flatten(data[0]))
    return name_leaves(data[0], _leaf_names(data[0], names), set())


def _fits(data: Any, specs: Any) -> bool:
    """Whether data of these specs may be passed where those are expected."""
    flat, expected = tf.nest.flatten(data), tf.nest.flatten(specs)
    return len(flat) == len(expected) and all(
        a is not None and tf.TensorShape(a.shape).is_compatible_with(b.shape)
        for a, b in zip(flat, expected, strict=True)
    )


def _specs_of_shapes(shape: Any, dtype: Any) -> Any:
    """Specs for a structure of shapes, with any batch size."""
    if isinstance(shape, Mapping):
        return {key: _specs_of_shapes(value, dtype) for key, value in shape.items()}
    if all(dim is None or isinstance(dim, int) for dim in shape):
        return tf.TensorSpec([None, *shape[1:]], dtype)
    return type(shape)(_specs_of_shapes(value, dtype) for value in shape)


def _never_built(model: Any) -> ExportError:
    if not has_call(model):
        return ExportError(
            f"The model {model.name!r} has no `call`, and what its steps take is not "
            "known.",
            fix="pass inputs=tf.TensorSpec(...), with what train_step takes as `x`, or "
            "fit it with MetaGraphCheckpoint or MetaGraphMixin, which note it.",
        )
    return ExportError(
        f"The model {model.name!r} has never seen data through its `call`, so its "
        "inputs are not known.",
        fix="call it once on a batch, fit it, or pass inputs=tf.TensorSpec(...).",
    )


def _input_names(model: Any, structure: Any) -> list[str]:
    """What the leaves of the input structure are called without their dict keys."""
    count = len(tf.nest.flatten(structure))
    if getattr(model, "inputs", None) and len(model.inputs) == count:
        layers = {
            id(layer.output): layer.name
            for layer in model.layers
            if isinstance(layer, keras.layers.InputLayer)
        }
        flat = tf.nest.flatten(model.input) if count > 1 else model.inputs
        return [
            layers.get(id(tensor), "input_layer")
            if tensor.name.startswith("keras_tensor")
            else tensor.name
            for tensor in flat
        ]
    parameters = list(inspect.signature(model.call).parameters.values())
    named = bool(parameters) and parameters[0].kind is not parameters[0].VAR_POSITIONAL
    first = parameters[0].name if named else "inputs"
    return [first] if count == 1 else [f"{first}_{place}" for place in range(count)]


def label_specs(
    model: Any,
    step: str,
    outputs: Any,
    given: Any = None,
    given_weight: Any = None,
    taken: Iterable[str] = (),
) -> tuple[Any, Any]:
    """The specs of `y` and `sample_weight` of a step, with node names.

    Args:
        model: A compiled model.
        step: `"train_step"` or `"test_step"`.
        outputs: Specs of what the model returns; None if it cannot be called.
        given: Specs of the labels from the user; wins over anything else.
        given_weight: Specs of the sample weights; True for one a sample, False for
            none.
        taken: Names of the inputs.

    Returns:
        Labels and sample weights, each a structure of named specs or None.
    """
    own = seen_data(model, step)
    data = own or seen_data(model, "train_step") or seen_data(model, "test_step")
    labels = given
    if given is None:
        labels = data[1] if data is not None else _expected_labels(model, outputs)
    weights = own[2] if own is not None else None
    if given_weight is True:
        weights = tf.TensorSpec([None], keras.backend.floatx())
    elif given_weight is not None:
        weights = given_weight or None
    used = {name.lower() for name in taken}
    return (
        _labels(labels, LABELS, model, used),
        _labels(weights, SAMPLE_WEIGHT, model, used),
    )


def _labels(structure: Any, scope: str, model: Any, used: set[str]) -> Any:
    """Names labels: `labels` if there is one, else `labels/<output>`."""
    if structure is None:
        return None
    structure = tf.nest.map_structure(
        lambda v: None if v is None else to_spec(v), structure
    )
    flat = tf.nest.flatten(structure)
    if not tf.nest.is_nested(structure):
        names = [scope]
    else:
        outputs = list(getattr(model, "output_names", ()))
        if len(outputs) != len(flat):
            outputs = [str(place) for place in range(len(flat))]
        names = [f"{scope}/{n}" for n in _leaf_names(structure, outputs)]
    return name_leaves(structure, names, used)


def _expected_labels(model: Any, outputs: Any) -> Any:
    """Labels of a model that has not been seen in training."""
    expected = getattr(model, "expected_labels", None)
    known = expected() if callable(expected) else None  # a loaded graph has its own
    if known is not None:
        return known or None
    return _labels_of_loss(getattr(model, "loss", None), outputs, model)


def _labels_of_loss(loss: Any, outputs: Any, model: Any) -> Any:
    """Labels as the loss takes them: class numbers for sparse ones, else as outputs."""
    if loss is None or outputs is None:
        return None
    flat = tf.nest.flatten(outputs)
    losses = [loss] * len(flat)
    if isinstance(loss, Mapping):
        # tf.nest flattens dicts by sorted key.
        keyed = isinstance(outputs, Mapping)
        names = sorted(outputs) if keyed else model.output_names
        losses = [loss.get(name) for name in names]
    elif isinstance(loss, list | tuple):
        flat_losses = list(loss)
        losses = flat_losses if len(flat_losses) == len(flat) else losses
    specs = [
        None if each is None else _label_of_loss(each, output)
        for each, output in zip(losses, flat, strict=True)
    ]
    return tf.nest.pack_sequence_as(outputs, specs)


def _label_of_loss(loss: Any, output: Any) -> Any:
    name = loss if isinstance(loss, str) else getattr(loss, "name", None)
    name = str(name or getattr(loss, "__name__", type(loss).__name__))
    if "sparse" in name.lower():
        return tf.TensorSpec(output.shape[:-1], tf.int64)
    # Labels come as floatx from `fit`, also to a model that computes in half precision.
    return tf.TensorSpec(output.shape, keras.backend.floatx())


def _leaf_names(structure: Any, defaults: list[str]) -> list[str]:
    """Names by dict keys where there are any, else the given ones."""
    paths = structure_paths(structure)
    names = []
    for path, default in zip(paths, defaults, strict=True):
        keys = [str(part) for part in path]
        named = any(isinstance(part, str) for part in path)
        names.append("_".join(keys) if named else default)
    return names


def structure_paths(structure: Any) -> list[tuple[Any, ...]]:
    """The keys and places on the way to each leaf, in the order of `tf.nest`.

    The fields of a named tuple are keys.
    """
    if isinstance(structure, Mapping):
        items: Iterable[tuple[Any, Any]] = sorted(structure.items())
    elif isinstance(structure, list | tuple):
        places = getattr(structure, "_fields", range(len(structure)))
        items = zip(places, structure, strict=True)
    else:
        return [()]
    return [(key, *rest) for key, value in items for rest in structure_paths(value)]


def name_leaves(structure: Any, names: list[str], used: set[str]) -> Any:
    """Gives the leaves names that nodes can have, each one once."""
    specs = []
    for spec, name in zip(tf.nest.flatten(structure), names, strict=True):
        base = candidate = node_name(name)
        count = 0
        while candidate.lower() in used:
            count += 1
            candidate = f"{base}_{count}"
        used.add(candidate.lower())
        specs.append(None if spec is None else NamedSpec(candidate, spec))
    return tf.nest.pack_sequence_as(structure, specs)
