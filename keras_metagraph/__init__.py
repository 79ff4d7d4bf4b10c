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
    from keras_metagraph.saved_model.api import save_saved_model, simple_save
    from keras_metagraph.saved_model.method_names import update_signature_methods
    from keras_metagraph.saving import export_meta_graph, save_meta_graph
    from keras_metagraph.signatures.api import (
        classify_signature,
        predict_signature,
        regress_signature,
    )
    from keras_metagraph.signatures.declared import signature
    from keras_metagraph.warm_starting.api import warm_start

__all__ = [
    "MetaGraphCheckpoint",
    "MetaGraphMixin",
    "classify_signature",
    "errors",
    "export_meta_graph",
    "inspect_meta_graph",
    "load_from_meta_graph",
    "predict_signature",
    "regress_signature",
    "save_meta_graph",
    "save_saved_model",
    "signature",
    "simple_save",
    "update_signature_methods",
    "warm_start",
]

_MODULES = {
    "MetaGraphCheckpoint": "keras_metagraph.callbacks",
    "MetaGraphMixin": "keras_metagraph.mixin",
    "classify_signature": "keras_metagraph.signatures.api",
    "export_meta_graph": "keras_metagraph.saving",
    "inspect_meta_graph": "keras_metagraph.inspect",
    "load_from_meta_graph": "keras_metagraph.loading.api",
    "predict_signature": "keras_metagraph.signatures.api",
    "regress_signature": "keras_metagraph.signatures.api",
    "save_meta_graph": "keras_metagraph.saving",
    "save_saved_model": "keras_metagraph.saved_model.api",
    "signature": "keras_metagraph.signatures.declared",
    "simple_save": "keras_metagraph.saved_model.api",
    "update_signature_methods": "keras_metagraph.saved_model.method_names",
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
