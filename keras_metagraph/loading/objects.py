"""Finds the classes and functions that a Keras config names, before any is made.

Keras looks a name up when it meets it, stops at the first one it does not know, and
imports modules that the file names. Here the whole config is walked first: every name
is resolved to a public Keras class, to an object of the caller, or to a registered
one; what is left is listed in one error. No module is imported, and nothing is
constructed.
"""

import copy
import inspect
import sys
from collections.abc import Iterator, Mapping
from typing import Any

import keras

from keras_metagraph.errors import CustomObjectError, UntrustedContentError, nearest

# Where Keras puts what a config may name: classes, and functions.
_CLASS_MODULES = frozenset(
    {
        "keras",
        "keras.activations",
        "keras.constraints",
        "keras.dtype_policies",
        "keras.initializers",
        "keras.layers",
        "keras.losses",
        "keras.metrics",
        "keras.models",
        "keras.optimizers",
        "keras.optimizers.schedules",
        "keras.quantizers",
        "keras.random",
        "keras.regularizers",
    }
)
_FUNCTION_MODULES = (
    "keras.activations",
    "keras.constraints",
    "keras.initializers",
    "keras.losses",
    "keras.metrics",
    "keras.ops",
    "keras.regularizers",
)
# Functions of these modules that are no functions of a model.
_NOT_MODEL_FUNCTIONS = frozenset({"get", "serialize", "deserialize"})
_BASE_CLASSES = (
    keras.Operation,  # of layers and models too
    keras.Loss,
    keras.Metric,
    keras.optimizers.Optimizer,
    keras.optimizers.schedules.LearningRateSchedule,
    keras.Initializer,
    keras.Regularizer,
    keras.constraints.Constraint,
    keras.dtype_policies.DTypePolicy,
    keras.Quantizer,
    # How a layer is quantized; older Keras has the mode in the dtype policy only.
    getattr(keras.quantizers, "QuantizationConfig", keras.Quantizer),
    keras.random.SeedGenerator,
)
# Layers that run code or open files that their config names.
_REFUSED_LAYERS = frozenset(
    {"TFSMLayer", "TorchModuleWrapper", "JaxLayer", "FlaxLayer"}
)
_PATH_ARGUMENTS = ("vocabulary", "filepath", "path", "url")
_PATH_ENDINGS = ("_file", "_path", "_url")
_PLAIN_VALUES = frozenset(
    {
        "__bytes__",
        "__ellipsis__",
        "__keras_tensor__",
        "__numpy__",
        "__slice__",
        "__tensor__",
    }
)


def resolve_objects(
    config: Any, custom_objects: Mapping[str, Any], *, safe_mode: bool
) -> Any:
    """Resolves all names of a config, and says in it where each was found.

    Args:
        config: What `keras.saving.serialize_keras_object` gave; not changed.
        custom_objects: The caller's classes and functions by name: the registered
            one, or the plain name of the class.
        safe_mode: Whether to refuse Python code and file paths in the config.

    Returns:
        A copy in which every object names its entry of `custom_objects` or of Keras's
        registry, or else its public Keras module, so that Keras imports nothing.

    Raises:
        CustomObjectError: If names are not found; lists all of them.
        UntrustedContentError: If `safe_mode` refuses objects; lists all of them.

    Example:
        >>> config = keras.saving.serialize_keras_object(keras.layers.Dense(2))
        >>> resolve_objects(config, {}, safe_mode=True)["class_name"]
        'Dense'
    """
    resolver = _Resolver(custom_objects, safe_mode)
    config = copy.deepcopy(config)
    for where, node in _objects(config):
        resolver.resolve(where, node)
    resolver.raise_findings()
    return config


def _objects(config: Any) -> Iterator[tuple[str, dict[str, Any]]]:
    """Goes through a config; yields each object with the names of those around it."""
    stack = [("", config)]
    while stack:
        where, value = stack.pop()
        if isinstance(value, dict):
            if "class_name" in value and "config" in value:
                where = _place(where, value)
                yield where, value
            children = list(value.values())
        elif isinstance(value, list | tuple):
            children = list(value)
        else:
            continue
        stack.extend((where, child) for child in reversed(children))


def _place(where: str, node: dict[str, Any]) -> str:
    """Says where an object stands: the named objects that it is in."""
    config = node["config"]
    name = config.get("name") if isinstance(config, dict) else None
    own = name if isinstance(name, str) else node["class_name"]
    return f"{where}/{own}" if where else str(own)


class _Resolver:
    """Looks names up, and collects what was not found or is not allowed."""

    def __init__(self, custom_objects: Mapping[str, Any], safe_mode: bool) -> None:
        self._custom = custom_objects
        self._registered = keras.saving.get_custom_objects()
        self._safe_mode = safe_mode
        self._missing: dict[str, str] = {}
        self._refused: list[str] = []

    def resolve(self, where: str, node: dict[str, Any]) -> None:
        """Resolves one object."""
        kind = node["class_name"]
        if not isinstance(kind, str):
            self._miss(repr(kind), where)
        elif kind in _PLAIN_VALUES:
            return
        elif kind == "__lambda__":
            if self._safe_mode:
                self._refused.append(f"{where}: a lambda, stored as Python bytecode")
        elif kind == "__typespec__":
            self._miss(str(node.get("spec_name")), where, node.get("module"))
        elif kind == "function":
            self._resolve_function(where, node)
        else:
            self._resolve_class(where, node)

    def raise_findings(self) -> None:
        """Raises what was found; code that is not run comes before missing names."""
        if self._refused:
            raise UntrustedContentError(
                "The config of the model holds what is not loaded from a file without "
                "consent:",
                findings=self._refused,
                fix="if you trust the file, pass safe_mode=False; or run its graph "
                'without its config: rebuild="graph".',
            )
        if self._missing:
            known = [*self._custom, *self._registered]
            raise CustomObjectError(
                "The model uses classes or functions that are not known here. Looked "
                "for in custom_objects, among those registered with "
                "keras.saving.register_keras_serializable, and in keras:",
                findings=[
                    f"{name!r}, in {where}{nearest(name, known)}"
                    for name, where in self._missing.items()
                ],
                fix="pass custom_objects={"
                + ", ".join(f"{name!r}: ..." for name in self._missing)
                + "}, or import the modules that register them.",
            )

    def _miss(self, name: str, where: str, origin: Any = None) -> None:
        if isinstance(origin, str) and origin not in ("builtins", name):
            where = f"{where}, saved as {origin}.{name}"
        self._missing.setdefault(name, where)

    def _custom_key(self, *names: Any) -> str | None:
        """The key under which the caller, or else the registry, has an object."""
        texts = [name for name in names if isinstance(name, str)]
        for text in texts:
            for key in (text, text.rpartition(">")[2]):
                if key in self._custom:
                    return key
        return next((text for text in texts if text in self._registered), None)

    def _resolve_function(self, where: str, node: dict[str, Any]) -> None:
        name, module = node["config"], node.get("module")
        key = self._custom_key(name)
        if key is not None:
            node.update(module="builtins", config=key, registered_name=key)
        elif not _is_keras_function(name, module):
            self._miss(str(name), where, module)

    def _resolve_class(self, where: str, node: dict[str, Any]) -> None:
        name, module = node["class_name"], node.get("module")
        found = _keras_class(name, module)
        if found is None:
            registered_name = node.get("registered_name")
            key = self._custom_key(registered_name, name)
            if key is None:
                self._miss(name, where, module)
            else:
                node.update(module=None, registered_name=key)
            return
        node["registered_name"] = None
        if self._safe_mode:
            self._check_arguments(where, name, node["config"])

    def _check_arguments(self, where: str, name: str, config: Any) -> None:
        """Refuses built-in classes that would open a file of the config's choice."""
        if name in _REFUSED_LAYERS:
            self._refused.append(f"{where}: a {name}, which runs code of another file")
        for argument, value in config.items() if isinstance(config, dict) else ():
            named = argument in _PATH_ARGUMENTS or argument.endswith(_PATH_ENDINGS)
            if named and isinstance(value, str):
                self._refused.append(
                    f"{where}: {argument}={value!r} would read a file of that name"
                )


def _is_keras_function(name: Any, module: Any) -> bool:
    """Says whether a name is that of a function that Keras has for models."""
    if not isinstance(name, str) or name in _NOT_MODEL_FUNCTIONS:
        return False
    modules = _FUNCTION_MODULES if module == "builtins" else (module,)
    return any(
        place in _FUNCTION_MODULES and inspect.isfunction(_public(place, name))
        for place in modules
    )


def _keras_class(name: str, module: Any) -> Any:
    """Returns a class of Keras that may stand in a config, or None."""
    if not isinstance(module, str):
        return None
    if module in _CLASS_MODULES:
        found = _public(module, name)
    elif module.startswith("keras."):
        # Functional models and operations have no public class; their config names
        # the module, which is loaded with Keras.
        found = vars(sys.modules.get(module, object)).get(name)
        if getattr(found, "__module__", None) != module:
            return None
    else:
        return None
    fits = inspect.isclass(found) and issubclass(found, _BASE_CLASSES)
    return found if fits else None


def _public(module: str, name: str) -> Any:
    """Returns an attribute of a public Keras module, or None."""
    place: Any = keras
    for part in module.split(".")[1:]:
        place = getattr(place, part)
    return getattr(place, name, None)
