"""Keeps the last exports of each model, so that saving it again does not trace it.

What counts as unchanged: the same variables, layers, losses, metrics and optimizer,
with the same plain attributes and configs, compiled by the same call.
"""

import contextlib
import gc
import itertools
import json
import weakref
from collections.abc import Iterator
from typing import Any

from keras_metagraph.export.assemble import Exported, build_meta_graph
from keras_metagraph.export.names import optimizers_of
from keras_metagraph.export.options import ExportOptions, SavedModelOptions
from keras_metagraph.export.specs import STEPS, seen_data

_KEPT = 8  # exports a model: with other options, from before a change
_PLAIN = bool | int | float | str | None
# Attributes of a model that change while it is fitted.
_VOLATILE = frozenset({"stop_training"})

_EXPORTS: "weakref.WeakKeyDictionary[Any, dict[str, Exported]]" = (
    weakref.WeakKeyDictionary()
)
# The last one that was no part of a SavedModel.
_LAST: "weakref.WeakKeyDictionary[Any, Exported]" = weakref.WeakKeyDictionary()
_NUMBERS: "weakref.WeakKeyDictionary[Any, int]" = weakref.WeakKeyDictionary()
_COUNTER = itertools.count()


def cached_meta_graph(model: Any, options: ExportOptions) -> tuple[Exported, bool]:
    """Exports a model, or returns the export of before if nothing has changed.

    Args:
        model: The model.
        options: What to export.

    Returns:
        The export, and whether it is a new one.
    """
    exports = _EXPORTS.setdefault(model, {})
    key = _fingerprint(model, options)
    exported = exports.pop(key, None)
    is_new = exported is None
    if exported is None:
        with _no_garbage_collection():
            exported = build_meta_graph(model, options)
        # Tracing builds optimizer and metrics.
        key = _fingerprint(model, options)
    exports[key] = exported
    if options.saved_model is None:
        _LAST[model] = exported
    while len(exports) > _KEPT:
        del exports[next(iter(exports))]
    return exported, is_new


def last_export(model: Any) -> Exported | None:
    """The export of a model that was made or used last, as a graph of its own."""
    return _LAST.get(model)


@contextlib.contextmanager
def _no_garbage_collection() -> Iterator[None]:
    """Lets the garbage lie for a while.

    A graph is made of many small objects, and all of them stay: looking through them
    again and again takes a quarter of the time of an export.
    """
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


def _fingerprint(model: Any, options: ExportOptions) -> str:
    """Text that differs where the exported graph may differ."""
    parts = [
        _options(options),
        *(_attributes(owner) for owner in _objects(model)),
        [id(variable) for variable in model.variables],
        [bool(variable.trainable) for variable in model.weights],
        [id(metric) for metric in model.metrics],
        id(getattr(model, "loss", None)),
        *(repr(seen_data(model, step)) for step in STEPS),
        _config(model.get_config),
        _config(model.get_compile_config),
    ]
    return json.dumps(parts, default=repr)


def _attributes(owner: Any) -> list[Any]:
    """An object, and its attributes that are plain values."""
    plain = {
        name: value
        for name, value in sorted(vars(owner).items())
        if isinstance(value, _PLAIN) and name not in _VOLATILE and name[0] != "_"
    }
    return [id(owner), type(owner).__qualname__, plain]


def _options(options: ExportOptions) -> list[Any]:
    """The options that decide about the graph."""
    functions = {
        key: _number(value)
        for key, value in (options.signatures or {}).items()
        if callable(value)
    }
    return [
        options.graphs,
        functions,
        repr(options.inputs),
        repr(options.labels),
        repr(options.sample_weight),
        options.export_scope,
        options.clear_devices,
        options.strip_default_attrs,
        options.target,
        _saved_model(options.saved_model),
    ]


def _saved_model(options: SavedModelOptions | None) -> list[Any] | None:
    """What decides about a graph of a SavedModel."""
    if options is None:
        return None
    main_op = options.main_op
    main_op = _number(main_op) if callable(main_op) else main_op
    return [sorted(options.names.items()), main_op, options.layout]


def _number(function: Any) -> int:
    """A number that no other function has or will have, unlike its id."""
    return _NUMBERS.setdefault(function, next(_COUNTER))


def _objects(model: Any) -> Iterator[Any]:
    """The model, its layers, those inside, and the optimizers."""
    queue, seen = [model], {id(model)}
    for owner in queue:  # Grows.
        yield owner
        inside = [*getattr(owner, "layers", ()), *optimizers_of(owner)]
        for each in inside:
            if id(each) not in seen:
                seen.add(id(each))
                queue.append(each)


def _config(get: Any) -> str:
    """A config without the learning rate, which is a variable; or why there is none."""
    try:
        config = get()
        json.dumps(config, default=repr)
    except Exception as error:  # Config methods are the user's code.
        return type(error).__name__
    if isinstance(config, dict) and isinstance(config.get("optimizer"), dict):
        optimizer = config["optimizer"]
        inner = {
            k: v for k, v in optimizer.get("config", {}).items() if k != "learning_rate"
        }
        config = {**config, "optimizer": {**optimizer, "config": inner}}
    return json.dumps(config, default=repr, sort_keys=True)
