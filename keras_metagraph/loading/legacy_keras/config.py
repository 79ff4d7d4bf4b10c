"""Makes layers of Keras 3 from the configs of Keras 1 and 2.

Every name is looked up among the caller's objects, Keras's public ones and those of
this package; no module is imported, and no Python of the file runs without consent.
What is missing or refused is collected, so that one error tells all of it.
"""

import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import keras

from keras_metagraph.errors import (
    CustomObjectError,
    FormatError,
    MetaGraphError,
    UntrustedContentError,
    nearest,
)
from keras_metagraph.loading.legacy_keras import layers as own_layers
from keras_metagraph.loading.legacy_keras import local, normalization, wrappers
from keras_metagraph.loading.legacy_keras.arguments import Config, renew
from keras_metagraph.loading.legacy_keras.keras1 import modernize
from keras_metagraph.loading.legacy_keras.tensor_functions import (
    FUNCTIONS,
    TensorFunction,
)
from keras_metagraph.loading.legacy_keras.tensor_ops import TensorOp, read_op

_OWN: dict[str, Any] = {
    "BatchStatisticsNormalization": normalization.BatchStatisticsNormalization,
    "BilinearUpSampling2D": own_layers.BilinearUpSampling2D,
    "CosineMerge": own_layers.CosineMerge,
    "DropoutEmbedding": own_layers.DropoutEmbedding,
    "Highway": own_layers.Highway,
    "LocallyConnected1D": local.LocallyConnected1D,
    "LocallyConnected2D": local.LocallyConnected2D,
    "MaxoutDense": own_layers.MaxoutDense,
    "ParametricSoftplus": own_layers.ParametricSoftplus,
    "SReLU": own_layers.SReLU,
    "SampleNormalization": normalization.SampleNormalization,
    "TextVectors": own_layers.TextVectors,
    "ThresholdedReLU": own_layers.ThresholdedReLU,
    "UnbiasedBatchNormalization": normalization.UnbiasedBatchNormalization,
}
# Layers of Keras 3 that run code, or read files that their config names.
_REFUSED = frozenset(
    {"FlaxLayer", "JaxLayer", "TFSMLayer", "TorchModuleWrapper", "Wrapper", "Layer"}
)
_TENSOR_FUNCTIONS = frozenset({"SlicingOpLambda", "TFOpLambda"})
_READS_FILES = frozenset({"IntegerLookup", "StringLookup", "TextVectorization"})
# What TensorFlow computes on a CPU with channels last only: where these have them.
_CHANNELS = {
    "Conv1D": 1,
    "Conv2D": 1,
    "Conv2DTranspose": 1,
    "Conv3D": 1,
    "Conv3DTranspose": 1,
    "ConvLSTM2D": 2,
    "DepthwiseConv2D": 1,
    "SeparableConv1D": 1,
    "SeparableConv2D": 1,
}
_SUFFIXES = {
    "_initializer": "initializers",
    "_regularizer": "regularizers",
    "_constraint": "constraints",
    "activation": "activations",
}
_BASES = {
    "initializers": keras.initializers.Initializer,
    "regularizers": keras.regularizers.Regularizer,
    "constraints": keras.constraints.Constraint,
    "losses": keras.losses.Loss,
    "metrics": keras.metrics.Metric,
    "optimizers": keras.optimizers.Optimizer,
}


class Objects:
    """Looks up what configs name, and makes it.

    Args:
        custom_objects: The caller's classes and functions by name.
        safe_mode: Whether to refuse Python code of the file.
        release: The release of Keras that wrote the file.
        is_tf_keras: Whether it was TensorFlow's own Keras.
        layout: The order of axes of layers that do not say theirs.
    """

    def __init__(
        self,
        custom_objects: Mapping[str, Any],
        *,
        safe_mode: bool,
        release: tuple[int, ...],
        is_tf_keras: bool,
        layout: str = "channels_last",
    ) -> None:
        self.custom = dict(custom_objects)
        self.release = release
        self.is_tf_keras = is_tf_keras
        self._layout = layout
        self._safe_mode = safe_mode
        self._missing: dict[str, str] = {}
        self._refused: list[str] = []
        self._wrong: list[str] = []

    def layer(self, kind: str, config: Mapping[str, Any]) -> Any:
        """Makes a layer that holds no model.

        Args:
            kind: The name of its class in the file.
            config: Its config in the file.

        Returns:
            The layer; None if that was not possible, which `raise_findings` will tell.
        """
        name = str(config.get("name", kind))
        custom = self.find_custom(kind)
        if custom is not None:
            return self._call(name, kind, _from_config(custom), _plain(config))
        kind, config = modernize(kind, config)
        if kind == "Lambda":
            return self._lambda(name, config)
        if kind in _TENSOR_FUNCTIONS:
            return self._tensor_function(name, config)
        if kind == "TensorFlowOpLayer":
            return self._tensor_op(name, config)
        try:
            kind, arguments = renew(
                kind, config, self.release, self.is_tf_keras, self._layout
            )
        except ValueError as error:
            self._wrong.append(f"{name} ({kind}): {error}")
            return None
        make = _OWN.get(kind) or _keras_layer(kind)
        if make is None:
            self._miss(kind, name)
            return None
        if kind in _READS_FILES and isinstance(arguments.get("vocabulary"), str):
            self._refused.append(f"{name}: a {kind} that would read a file")
            return None
        trainable = arguments.pop("trainable", True)
        arguments = self._arguments(name, arguments)
        if kind == "TimeDistributed" and _sees_the_batch(arguments.get("layer")):
            make = wrappers.FoldedTimeDistributed
        first = arguments.get("data_format") == "channels_first" and kind in _CHANNELS
        if first:
            arguments["data_format"] = "channels_last"
        layer = self._call(name, kind, make, arguments)
        if layer is not None and first:
            layer = wrappers.ChannelsFirst(layer, _CHANNELS[kind], name=layer.name)
        if layer is not None and not trainable:
            layer.trainable = False  # not all constructors take it
        return layer

    def find_custom(self, name: Any) -> Any:
        """The caller's object of a name, or else a registered one; None without."""
        if not isinstance(name, str):
            return None
        registered = keras.saving.get_custom_objects()
        short = name.rpartition(">")[2]
        for known in (self.custom, registered):
            for key in (name, short, f"Custom>{short}"):
                if key in known:
                    return known[key]
        return None

    def object(self, where: str, space: str, value: Any) -> Any:
        """Makes what an argument names: an initializer, an activation, a loss.

        Args:
            where: The name of the layer, for messages.
            space: Which part of Keras has it: `"initializers"`.
            value: The name, a dict of `class_name` and `config`, or None.

        Returns:
            The object; None for None, or if it is missing.
        """
        if value is None or callable(value):
            return value
        kind, config = _name_and_config(value)
        custom = self.find_custom(kind)
        if custom is not None:
            if not inspect.isclass(custom):
                return custom
            return self._call(where, kind, _from_config(custom), config)
        kind = _ALIASES.get(space, {}).get(kind, kind)
        if space == "activations":
            return self._activation(where, kind, config)
        found = _public(space, kind)
        if found is None:
            self._miss(kind, where)
            return None
        if not inspect.isclass(found):
            return found
        config.pop("dtype" if space == "initializers" else "", None)
        return self._call(where, kind, found, config)

    def note(self, finding: str) -> None:
        """Keeps something that is wrong for `raise_findings`."""
        self._wrong.append(finding)

    def raise_findings(self) -> None:
        """Raises what was found; code that is not run comes before missing names.

        Raises:
            UntrustedContentError: If Python code of the file is needed.
            CustomObjectError: If classes or functions are missing; lists all.
            FormatError: If configs do not fit; lists all.
        """
        if self._refused:
            raise UntrustedContentError(
                "The model holds what is not loaded from a file without consent:",
                findings=self._refused,
                fix="pass custom_objects={name of the layer: the function}; or, if you "
                "trust the file, safe_mode=False.",
            )
        if self._missing:
            names = ", ".join(f"{name!r}: ..." for name in self._missing)
            raise CustomObjectError(
                "The file names classes or functions that are not known here. Looked "
                "for in custom_objects, among those registered with "
                "keras.saving.register_keras_serializable, and in keras:",
                findings=[
                    f"{name!r}, in {where}{nearest(name, self.custom)}"
                    for name, where in self._missing.items()
                ],
                fix=f"pass custom_objects={{{names}}}.",
            )
        if self._wrong:
            raise FormatError(
                "The config of the file does not fit Keras 3:",
                findings=self._wrong,
                fix="pass classes of your own for these layers as custom_objects; or "
                "build the model in Keras 3 and load its weights with warm_start.",
            )

    def _miss(self, name: Any, where: str) -> None:
        self._missing.setdefault(str(name), where)

    def _call(
        self, where: str, kind: str, make: Callable[..., Any], arguments: Config
    ) -> Any:
        try:
            return make(**arguments)
        except MetaGraphError:
            raise
        except Exception as error:  # Constructors of any class, with values of a file.
            reason = str(error).strip().partition("\n")[0]
            self._wrong.append(f"{where} ({kind}): {type(error).__name__}: {reason}")
            return None

    def _arguments(self, where: str, config: Config) -> Config:
        """Makes the objects among the arguments of a layer."""
        found: Config = {}
        for key, value in config.items():
            if key == "layer" or key == "backward_layer" or key == "cell":
                found[key] = self._inner(value)
                continue
            if key == "cells":
                found[key] = [self._inner(cell) for cell in value]
                continue
            space = next((s for end, s in _SUFFIXES.items() if key.endswith(end)), None)
            found[key] = value if space is None else self.object(where, space, value)
        return found

    def _inner(self, value: Any) -> Any:
        """A layer inside another; models come as they are, made already."""
        if not isinstance(value, Mapping):
            return value
        return self.layer(str(value.get("class_name")), value.get("config") or {})

    def _activation(self, where: str, kind: str, config: Config) -> Any:
        if kind == "hard_sigmoid":
            return own_layers.hard_sigmoid
        found = _public("activations", kind)
        if found is not None:
            return found
        if _keras_layer(kind) or kind in _OWN:
            return self.layer(kind, config)
        self._miss(kind, where)
        return None

    def _tensor_function(self, name: str, config: Mapping[str, Any]) -> Any:
        """A function of TensorFlow; a layer of the caller's can stand in its place."""
        function = str(config.get("function"))
        given = self.custom.get(name)
        if isinstance(given, keras.layers.Layer):
            return given
        if function not in FUNCTIONS:
            self._miss(name, f"a layer that calls the function {function!r}")
            return None
        return TensorFunction(function, name=name.replace("/", "_"))

    def _tensor_op(self, name: str, config: Mapping[str, Any]) -> Any:
        """An op of TensorFlow."""
        try:
            arguments = read_op(config)
        except ValueError as error:
            self._wrong.append(f"{name} (TensorFlowOpLayer): {error}")
            return None
        return self._call(name, "TensorFlowOpLayer", TensorOp, arguments)

    def _lambda(self, name: str, config: Mapping[str, Any]) -> Any:
        """A Lambda layer whose function the caller gives, or consents to."""
        arguments = config.get("arguments") or {}
        common = {k: v for k, v in config.items() if k in ("name", "trainable")}
        function, kind = config.get("function"), config.get("function_type")
        given = self.custom.get(name)
        if given is None and kind == "function":
            given = self.find_custom(function)
        if given is None and kind == "function":
            self._miss(function, f"{name}, a Lambda layer")
            return None
        if isinstance(given, keras.layers.Layer):
            return given
        if inspect.isclass(given):
            return self._call(name, "Lambda", given, common)
        if given is None and self._safe_mode:
            self._refused.append(f"{name}: a Lambda layer, stored as Python bytecode")
            return None
        if given is None:
            given = self._call(name, "Lambda", _unpack, {"function": function})
        if given is None:
            return None
        return keras.layers.Lambda(given, arguments=dict(arguments), **common)


# Names that Keras 3 has under others.
_ALIASES: dict[str, dict[str, str]] = {
    "initializers": {
        "zero": "Zeros",
        "one": "Ones",
        "uniform": "RandomUniform",
        "normal": "RandomNormal",
        "identity": "Identity",
        "VarianceScalingV2": "VarianceScaling",
        "TruncatedNormalV2": "TruncatedNormal",
    },
    "regularizers": {
        "WeightRegularizer": "L1L2",
        "ActivityRegularizer": "L1L2",
        "L1L2Regularizer": "L1L2",
        "l1l2": "L1L2",
    },
    "constraints": {"maxnorm": "MaxNorm", "nonneg": "NonNeg", "unitnorm": "UnitNorm"},
}


def _name_and_config(value: Any) -> tuple[str, Config]:
    """The two parts of a serialized object, in each of its forms."""
    if isinstance(value, str):
        return value, {}
    if not isinstance(value, Mapping):
        return repr(value), {}
    if "class_name" in value:
        config = value.get("config")
        return str(value["class_name"]), dict(config) if config else {}
    # Keras 1 wrote {"name": "MaxNorm", "m": 2, "axis": 0}.
    config = {key: item for key, item in value.items() if key != "name"}
    renamed = {"m": "max_value", "low": "min_value", "high": "max_value"}
    return str(value.get("name")), {renamed.get(k, k): v for k, v in config.items()}


def _keras_layer(kind: str) -> Any:
    """A layer of Keras that a file may name; None if there is none."""
    found = getattr(keras.layers, kind, None)
    fits = inspect.isclass(found) and issubclass(found, keras.layers.Layer)
    return found if fits and kind not in _REFUSED else None


def _sees_the_batch(layer: Any) -> bool:
    """Whether a layer, or one in it, uses statistics of the batch."""
    stack = [layer]
    while stack:
        layer = stack.pop()
        if isinstance(layer, keras.layers.BatchNormalization):
            return True
        stack += getattr(layer, "layers", [])
    return False


def _public(space: str, name: str) -> Any:
    """A class or function of Keras that a file may name; None if there is none."""
    found = getattr(getattr(keras, space), name, None)
    if inspect.isclass(found):
        return found if issubclass(found, _BASES.get(space, ())) else None
    if inspect.isfunction(found) and name not in ("get", "serialize", "deserialize"):
        return found
    if space == "initializers":
        classes = {_snake(kind): kind for kind in dir(keras.initializers)}
        return getattr(keras.initializers, classes.get(name, ""), None)
    return None


def _snake(name: str) -> str:
    """`GlorotUniform` as `glorot_uniform`."""
    parts = [f"_{c.lower()}" if c.isupper() else c for c in name]
    return "".join(parts).lstrip("_")


def _from_config(kind: Any) -> Callable[..., Any]:
    """How an object of the caller's is made from a config."""
    make = getattr(kind, "from_config", None)
    return kind if make is None else lambda **config: make(config)


def _plain(config: Mapping[str, Any]) -> Config:
    """The config of a class of the caller's, without what Keras 3 refuses."""
    dropped = ("batch_input_shape", "input_dtype")
    return {key: value for key, value in config.items() if key not in dropped}


def _unpack(function: Sequence[Any]) -> Any:
    """Unpacks a lambda, as Keras does once `safe_mode` is off."""
    code, defaults, closure = (*function, None, None, None)[:3]
    if not isinstance(code, str):
        raise TypeError("the function was not stored")  # Keras 1 with Python 2.
    config = {"code": code, "defaults": defaults, "closure": closure}
    layer = keras.layers.Lambda.from_config(
        {"function": {"class_name": "__lambda__", "config": config}}, safe_mode=False
    )
    return layer.function
