"""TensorFlow 1 MetaGraphs for Keras 3: write them, read them, go on training.

Names are imported when they are first used, so that `import keras_metagraph` costs
nothing.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from keras_metagraph import errors
    from keras_metagraph.callbacks import MetaGraphCheckpoint
    from keras_metagraph.inspect import inspect_meta_graph
    from keras_metagraph.loading.api import load_from_meta_graph
    from keras_metagraph.mixin import MetaGraphMixin
    from keras_metagraph.saving import export_meta_graph, save_meta_graph
    from keras_metagraph.warm_starting.api import warm_start

__all__ = [
    "MetaGraphCheckpoint",
    "MetaGraphMixin",
    "errors",
    "export_meta_graph",
    "inspect_meta_graph",
    "load_from_meta_graph",
    "save_meta_graph",
    "warm_start",
]

_MODULES = {
    "MetaGraphCheckpoint": "keras_metagraph.callbacks",
    "MetaGraphMixin": "keras_metagraph.mixin",
    "export_meta_graph": "keras_metagraph.saving",
    "inspect_meta_graph": "keras_metagraph.inspect",
    "load_from_meta_graph": "keras_metagraph.loading.api",
    "save_meta_graph": "keras_metagraph.saving",
    "warm_start": "keras_metagraph.warm_starting.api",
}


def __getattr__(name: str) -> Any:
    if name == "errors":
        return importlib.import_module("keras_metagraph.errors")
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(_MODULES[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
