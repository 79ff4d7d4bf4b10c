"""Finds the variables of a model by the objects or layers that hold them."""

import os
import tempfile

from keras_metagraph.checkpoint.reader import TensorReader
from keras_metagraph.export.object_graph import OBJECT_GRAPH_KEY, find_variables
from keras_metagraph.formats.keras_weights import ARCHIVE_FILES
from keras_metagraph.warm_starting.sources import Source, object_graph, open_source
from keras_metagraph.warm_starting.targets import Targets, held_by


def by_structure(source: Source, targets: Targets) -> dict[str, str]:
    """Finds the variables of a model by the objects or layers that hold them.

    Args:
        source: A checkpoint by objects, or a file of Keras 3.
        targets: The variables.

    Returns:
        Names of tensors by the names of the variables. Empty unless each variable has
        a tensor of its own, and of its shape: a structure that fits in part may be
        another one.
    """
    if source.reader is not None and OBJECT_GRAPH_KEY in source.reader:
        found = _by_objects(source, source.reader, targets)
    elif source.path.endswith(ARCHIVE_FILES):
        found = _by_layers(source, targets)
    else:
        return {}
    fits = len(set(found.values())) == len(targets.all) and all(
        source.tensors[found[target.name]].shape == target.shape
        for target in targets.all
        if target.name in found
    )
    return found if fits else {}


def _by_objects(
    source: Source, reader: TensorReader, targets: Targets
) -> dict[str, str]:
    """Walks the objects of a checkpoint and those of the model side by side."""
    live = {id(held_by(target.variable)): target.name for target in targets.all}
    keys = find_variables(object_graph(reader), [targets.model], live, {})
    found = {name: source.find(key) for name, key in keys.items()}
    return {name: stored for name, stored in found.items() if stored is not None}


def _by_layers(source: Source, targets: Targets) -> dict[str, str]:
    """Compares the layout of a file with the one that the model would be saved in."""
    stored = {tensor.aliases[0]: name for name, tensor in source.tensors.items()}
    found = {}
    with tempfile.TemporaryDirectory() as directory:
        # Keras alone knows where it keeps what; it writes the example.
        example = os.path.join(directory, "example.weights.h5")
        targets.model.save_weights(example)
        own = open_source(example)
        for target in targets.all:
            place = targets.place(target)
            for name in (target.inner, target.path, target.name):
                held = own.find(name, place)
                path = own.tensors[held].aliases[0] if held is not None else ""
                if path in stored:
                    found[target.name] = stored[path]
                    break
    return found
