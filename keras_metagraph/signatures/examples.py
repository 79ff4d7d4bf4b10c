"""Parses serialized `tf.Example`s into what a model takes."""

import dataclasses
import functools
from collections.abc import Callable, Mapping
from typing import Any

import keras
import tensorflow as tf

from keras_metagraph.errors import SignatureError, nearest
from keras_metagraph.export.names import node_name
from keras_metagraph.signatures.images import EncodedImage

SERIALIZED = tf.TensorSpec([None], tf.string)
"""What servers feed: a vector of serialized examples."""

_LAYERS = {
    tf.string: (
        keras.layers.Hashing,
        keras.layers.StringLookup,
        keras.layers.TextVectorization,
    ),
    tf.int64: (keras.layers.CategoryEncoding, keras.layers.IntegerLookup),
    tf.float32: (
        keras.layers.Discretization,
        keras.layers.Normalization,
        keras.layers.Rescaling,
    ),
}
_FEATURES = (
    tf.io.FixedLenFeature,
    tf.io.FixedLenSequenceFeature,
    tf.io.RaggedFeature,
    tf.io.SparseFeature,
    tf.io.VarLenFeature,
)


@dataclasses.dataclass(frozen=True)
class ExampleParser:
    """From a vector of serialized examples to tensors by input key.

    Attributes:
        features: What is read of each example, as `tf.io.parse_example` takes it.
        convert: From the parsed features to tensors by input key.
        checks: What is wrong with the one value of a feature, by its name.
    """

    features: Mapping[str, Any]
    convert: Callable[[dict[str, Any]], dict[str, Any]]
    checks: Mapping[str, Callable[[bytes], str | None]] = dataclasses.field(
        default_factory=dict
    )

    def __call__(self, serialized: Any) -> dict[str, Any]:
        """Parses a vector of serialized examples."""
        return self.convert(tf.io.parse_example(serialized, dict(self.features)))


def make_parser(
    name: str, inputs: Mapping[str, Any], given: Any = None, model: Any = None
) -> Callable[[Any], dict[str, Any]]:
    """Makes the parser of examples for a function.

    Args:
        name: What errors call the function.
        inputs: Specs of what it takes, by key.
        given: None for what follows from the specs. Or by feature what differs from
            that: `tf.io` features, `EncodedImage`, preprocessing layers. Or a
            `keras.utils.FeatureSpace`; or a function from serialized examples to the
            inputs, by key or the only one.
        model: The Keras model that it is, if it is one.

    Returns:
        From serialized examples to tensors by input key; an `ExampleParser` where it
        is not a function of the user.

    Raises:
        SignatureError: If there is no feature for an input; lists all such inputs.
    """
    if isinstance(given, keras.utils.FeatureSpace):
        return _of_feature_space(name, inputs, given, model)
    if isinstance(given, keras.layers.Layer | EncodedImage) and len(inputs) == 1:
        given = dict.fromkeys(inputs, given)
    if given is None or isinstance(given, Mapping):
        return _of_features(name, inputs, given or {})
    if callable(given):
        return _of_function(name, inputs, given)
    raise SignatureError(
        f"examples of {name!r} is none of what it may be. Received: {given!r}",
        fix="pass tf.io features by name, a keras.utils.FeatureSpace, or a function.",
    )


def _of_function(
    name: str, inputs: Mapping[str, Any], function: Callable[[Any], Any]
) -> Callable[[Any], dict[str, Any]]:
    def parse(serialized: Any) -> dict[str, Any]:
        parsed = function(serialized)
        if not isinstance(parsed, Mapping):
            parsed = dict.fromkeys(list(inputs)[:1], parsed)
        missing = [key for key in inputs if key not in parsed]
        if missing:
            raise SignatureError(
                f"The function that parses examples for {name!r} gives not all inputs.",
                findings=[f"input {key!r} is missing" for key in missing],
                fix="return a dict with all inputs by key.",
            )
        return {key: fit(parsed[key], spec) for key, spec in inputs.items()}

    return parse


def _of_feature_space(
    name: str, inputs: Mapping[str, Any], space: Any, model: Any
) -> ExampleParser:
    """Reads the raw features; encodes them unless the model takes them raw.

    Raises:
        SignatureError: If the model takes neither, or the features are not adapted.
    """
    try:
        raw = space.get_inputs()
        encoded = space.get_encoded_features()
    except ValueError as error:
        raise SignatureError(
            f"The FeatureSpace for {name!r} cannot be used: {error}",
            fix="call its adapt() first.",
        ) from error
    if not isinstance(encoded, Mapping):
        encoded = dict.fromkeys(list(inputs)[:1], encoded)
    own = {id(tensor) for tensor in raw.values()}
    taken = [id(tensor) for tensor in getattr(model, "inputs", None) or ()]
    raw_taken = taken and own.issuperset(taken)
    if raw_taken or (not _suit(inputs, encoded) and set(inputs) <= set(raw)):
        return _of_features(name, inputs, {})
    if not _suit(inputs, encoded):
        raise SignatureError(
            f"{name!r} takes neither the features of the FeatureSpace nor what it "
            "makes of them.",
            findings=[f"input {key!r} is {spec}" for key, spec in inputs.items()]
            + [f"the FeatureSpace makes {_spec(made)}" for made in encoded.values()],
            fix="pass the FeatureSpace that the model was made with, or tf.io features "
            "by name.",
        )
    parser = _of_features(name, {key: _spec(tensor) for key, tensor in raw.items()}, {})

    def convert(parsed: dict[str, Any]) -> dict[str, Any]:
        found = space(parser.convert(parsed))
        if not isinstance(found, Mapping):
            found = dict.fromkeys(encoded, found)
        return {key: fit(found[key], spec) for key, spec in inputs.items()}

    return ExampleParser(parser.features, convert, parser.checks)


def _suit(inputs: Mapping[str, Any], tensors: Mapping[str, Any]) -> bool:
    """Whether tensors have the types and shapes of the inputs."""
    return all(
        key in tensors
        and spec.dtype == tensors[key].dtype
        and spec.shape.is_compatible_with(tensors[key].shape)
        for key, spec in inputs.items()
    )


def _of_features(
    name: str, inputs: Mapping[str, Any], given: Mapping[str, Any]
) -> ExampleParser:
    """A feature for each input: the given one, or what follows from its spec."""
    names = {key: key for key in inputs}
    if len(inputs) == len(given) == 1:  # no doubt which is meant
        names = dict(zip(inputs, given, strict=True))
        given = dict(zip(inputs, given.values(), strict=True))
    findings = [
        f"there is no input {key!r}{nearest(str(key), inputs)}"
        for key in given
        if key not in inputs
    ]
    features: dict[str, Any] = {}
    steps: dict[str, Callable[[Any], Any]] = {}
    checks: dict[str, Callable[[bytes], str | None]] = {}
    for key, spec in inputs.items():
        feature = given[key] if key in given else _automatic(spec)
        if isinstance(feature, keras.layers.Layer):
            steps[key] = feature
            feature = _taken(feature, spec)
        elif isinstance(feature, EncodedImage):
            steps[key] = feature.decoder(spec)
            checks[names[key]] = functools.partial(feature.mistake, spec=spec)
            feature = feature.feature
        elif key in given:
            feature = _misfit(feature, spec) or feature
        if isinstance(feature, str):
            findings.append(f"input {key!r} {feature}")
        features[names[key]] = feature
    if findings:
        raise SignatureError(
            f"The features of tf.Example for the inputs of {name!r} are not known.",
            findings=findings,
            fix="pass examples={key: tf.io.FixedLenFeature(...)} for these, or a "
            "function that parses the examples.",
        )

    def convert(parsed: dict[str, Any]) -> dict[str, Any]:
        values = {key: parsed[names[key]] for key in inputs}
        for key, step in steps.items():
            with tf.name_scope(node_name(names[key])):  # errors of servers name it
                values[key] = step(values[key])
        return {key: fit(values[key], spec) for key, spec in inputs.items()}

    return ExampleParser(features, convert, checks)


def _automatic(spec: Any) -> Any:
    """The feature that follows from a spec; or why there is none."""
    if EncodedImage.suits(spec):
        return EncodedImage()
    return _plain(spec)


def _misfit(feature: Any, spec: Any) -> str | None:
    """Why a given feature cannot become what a spec asks for."""
    if not isinstance(feature, _FEATURES):
        return f"is given {feature!r}, which is no feature of tf.io"
    stored, dtype = tf.as_dtype(feature.dtype), tf.as_dtype(spec.dtype)
    if (stored == tf.string) != (dtype == tf.string):
        return f"has dtype {dtype.name}, and its feature {stored.name}"
    dims = tf.TensorShape(spec.shape)[1:]
    if not isinstance(feature, tf.io.FixedLenFeature) or not dims.is_fully_defined():
        return None
    found = tf.TensorShape(feature.shape)
    if found.num_elements() != dims.num_elements():
        return f"takes {dims.as_list()} an example, and its feature {found.as_list()}"
    return None


def _plain(spec: Any) -> Any:
    """The `tf.io` feature that has the values of a spec; or why there is none."""
    dtype = _stored_dtype(tf.as_dtype(spec.dtype))
    shape = tf.TensorShape(spec.shape)
    if dtype is None:
        return f"has dtype {tf.as_dtype(spec.dtype).name}, which no example can hold"
    if not shape.rank:
        return f"has the shape {shape}, without a first dimension for the examples"
    if isinstance(spec, tf.SparseTensorSpec):
        if shape.rank == 2:
            return tf.io.VarLenFeature(dtype)
        return f"is sparse with {shape.rank} dimensions, and an example has lists"
    if isinstance(spec, tf.RaggedTensorSpec):
        if spec.ragged_rank == 1 and shape.rank == 2:
            return tf.io.RaggedFeature(dtype, row_splits_dtype=spec.row_splits_dtype)
        return f"is ragged with {shape.rank} dimensions, and an example has lists"
    dims = shape.as_list()[1:]
    if None not in dims:
        return tf.io.FixedLenFeature(dims, dtype)
    if None not in dims[1:]:
        return tf.io.FixedLenSequenceFeature(dims[1:], dtype, allow_missing=True)
    return f"has several dimensions of unknown size: {shape}"


def _stored_dtype(dtype: tf.DType) -> tf.DType | None:
    """The type in which an example holds values of a dtype."""
    if dtype == tf.string:
        return tf.string
    if dtype.is_integer or dtype.is_bool:
        return tf.int64
    return tf.float32 if dtype.is_floating else None


def _taken(layer: Any, spec: Any) -> Any:
    """The feature that a preprocessing layer takes; or why there is none."""
    raw = _raw_spec(layer, spec)
    if raw is None:
        return (
            f"is given {layer!r}, of which is not known what it takes: put it in a "
            "keras.Sequential behind a keras.Input"
        )
    try:
        # Builds it: what it makes for itself must not be of the graph that is traced.
        given = layer(keras.Input(raw.shape[1:], dtype=raw.dtype.name))
    except (RuntimeError, TypeError, ValueError) as error:
        return f"cannot come from {layer.name!r}: {' '.join(str(error).split())}"
    found, dims = tf.TensorShape(given.shape)[1:], tf.TensorShape(spec.shape)[1:]
    sizes = {found.num_elements(), dims.num_elements()} - {None}
    if len(sizes) == 2:
        return f"takes {dims} an example, and {layer.name!r} gives {found}"
    return _plain(raw)


def _raw_spec(layer: Any, spec: Any) -> tf.TensorSpec | None:
    """What a preprocessing layer takes to give what a model takes, if that is known."""
    if getattr(layer, "inputs", None):  # a model
        return _spec(layer.inputs[0]) if len(layer.inputs) == 1 else None
    if isinstance(layer, keras.Sequential):
        first = _raw_spec(layer.layers[0], spec) if layer.layers else None
        return first and tf.TensorSpec([None, 1], first.dtype)
    keeps = isinstance(layer, keras.layers.Normalization | keras.layers.Rescaling) or (
        getattr(layer, "output_mode", None) == "int"
        and not isinstance(layer, keras.layers.TextVectorization)
    )
    dims = tf.TensorShape(spec.shape)[1:] if keeps else [1]
    for dtype, kinds in _LAYERS.items():
        if isinstance(layer, kinds):
            return tf.TensorSpec([None, *dims], dtype)
    return None


def _spec(tensor: Any) -> tf.TensorSpec:
    return tf.TensorSpec(tensor.shape, tensor.dtype)


def fit(value: Any, spec: Any) -> Any:
    """A parsed feature in the form, dtype and shape that a spec asks for."""
    dtype = tf.as_dtype(spec.dtype)
    if value.dtype != dtype:
        value = tf.cast(value, dtype)
    if isinstance(spec, tf.SparseTensorSpec):
        return _sparse(value, spec)
    if isinstance(spec, tf.RaggedTensorSpec):
        return _ragged(value).with_row_splits_dtype(spec.row_splits_dtype)
    return _dense(value, tf.TensorShape(spec.shape)[1:])


def _dense(value: Any, dims: tf.TensorShape) -> Any:
    """A dense tensor whose rows have some shape; shorter ones are filled up."""
    known = dims.is_fully_defined()
    if isinstance(value, tf.RaggedTensor):
        value = value.to_sparse() if known else value.to_tensor()
    if isinstance(value, tf.SparseTensor):
        if known and value.shape.rank == 2:
            value = _with_columns(value, [dims.num_elements()])
        value = tf.sparse.to_dense(value)  # refuses values beyond the last column
    if known and not value.shape[1:].is_compatible_with(dims):
        value = tf.reshape(value, [tf.shape(value)[0], *dims])
    return value


def _ragged(value: Any) -> Any:
    if isinstance(value, tf.SparseTensor):
        return tf.RaggedTensor.from_sparse(value)
    if isinstance(value, tf.RaggedTensor):
        return value
    return tf.RaggedTensor.from_tensor(value)


def _sparse(value: Any, spec: Any) -> Any:
    """A sparse tensor with as many columns as the spec says."""
    if isinstance(value, tf.RaggedTensor):
        value = value.to_sparse()
    elif not isinstance(value, tf.SparseTensor):
        value = tf.sparse.from_dense(value)
    dims = tf.TensorShape(spec.shape)[1:]
    return _with_columns(value, dims.as_list()) if dims.is_fully_defined() else value


def _with_columns(value: Any, dims: list[int]) -> Any:
    """A sparse tensor whose rows have some shape."""
    shape = tf.concat([value.dense_shape[:1], tf.constant(dims, tf.int64)], 0)
    return tf.SparseTensor(value.indices, value.values, shape)
