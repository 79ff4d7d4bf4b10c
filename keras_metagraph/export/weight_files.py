"""Says where the weights in a file of Keras differ from those of a model."""

import io
import os
import tempfile
import zipfile
from typing import Any

import h5py

from keras_metagraph.errors import nearest

Shapes = dict[str, tuple[int, ...]]

_WEIGHTS_IN_ARCHIVE = "model.weights.h5"


def file_differences(model: Any, path: str) -> list[str]:
    """Lists the variables that a file lacks or has in another shape.

    Args:
        model: The model that the file was meant for.
        path: A `.keras`, `.weights.h5` or older `.h5` file.

    Returns:
        A line for each variable; nothing if the file cannot be read at all.
    """
    try:
        stored = _stored_shapes(path)
        if path.endswith((".keras", ".weights.h5")):
            with tempfile.TemporaryDirectory() as directory:
                # Keras alone knows where it keeps what; it writes the example.
                example = os.path.join(directory, "example.weights.h5")
                model.save_weights(example)
                wanted = _stored_shapes(example)
        else:
            wanted = {"/".join(w.path.split("/")[-2:]): w.shape for w in model.weights}
    except (OSError, KeyError, ValueError, zipfile.BadZipFile):
        return []
    return [
        f"{name} {tuple(shape)}: {_found(name, stored)}"
        for name, shape in wanted.items()
        if stored.get(name) != tuple(shape)
    ]


def _found(name: str, stored: Shapes) -> str:
    if name in stored:
        return f"{stored[name]} in the file"
    return f"not in the file{nearest(name, stored)}"


def _stored_shapes(path: str) -> Shapes:
    """Shapes of the arrays in a file, by the name of layer and variable."""
    if path.endswith(".keras"):
        with zipfile.ZipFile(path) as archive:
            file: Any = io.BytesIO(archive.read(_WEIGHTS_IN_ARCHIVE))
    else:
        file = path
    with h5py.File(file, "r") as root:
        group = root.get("model_weights", root)
        shapes: Shapes = {}
        group.visititems(lambda name, item: _note(shapes, name, item))
    if path.endswith((".keras", ".weights.h5")):
        return shapes
    # Older files: `dense/dense/kernel:0`, or `dense/model/dense/kernel`.
    return {
        "/".join(name.partition(":")[0].split("/")[-2:]): shape
        for name, shape in shapes.items()
    }


def _note(shapes: Shapes, name: str, item: Any) -> None:
    if isinstance(item, h5py.Dataset):
        shapes[name] = tuple(item.shape)
