"""The vocabularies of the lookup layers of a Keras 2 SavedModel.

What `adapt` learned is in no config. It is in a table: one whose content the checkpoint
has (`MutableHashTable`, until TensorFlow 2.7), or one that a function of the SavedModel
fills from constants of the graph, or from an asset.
"""

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from keras_metagraph.audit.tensors import decode_tensor
from keras_metagraph.errors import FormatError
from keras_metagraph.formats.assets import read_asset
from keras_metagraph.loading.legacy_keras.saved_objects import SavedObjects

LOOKUPS = frozenset({"IntegerLookup", "StringLookup", "TextVectorization"})
_TABLES = ("lookup_table", "_table", "_static_table")
_INNER = ("_lookup_layer", "_index_lookup_layer")
_WHOLE_LINE, _LINE_NUMBER = -2, -1
_IMPORT, _FROM_FILE = "LookupTableImportV2", "InitializeTableFromTextFileV2"
_SPECIAL = ("mask_token", "mask_value", "oov_token", "oov_value")


def with_vocabularies(
    config: Mapping[str, Any], node: int, objects: SavedObjects, assets: str | None
) -> dict[str, Any]:
    """Adds to the config of a model what its lookup layers have learned.

    Args:
        config: `class_name` and `config` of a model or layer.
        node: Its number in the object graph.
        objects: The SavedModel.
        assets: Its directory of assets; None if it has none.

    Returns:
        The same, with lists of tokens as `vocabulary`.

    Raises:
        FormatError: If a table cannot be read.
    """
    inner = config.get("config")
    if not isinstance(inner, Mapping):
        return dict(config)
    kind = str(config.get("class_name")).rpartition(">")[2]
    if kind in LOOKUPS:
        tokens = _tokens(node, inner, objects, assets)
        return {**config, "config": {**inner, **tokens}}
    if kind == "Discretization":
        return {**config, "config": _with_boundaries(inner, node, objects)}
    layers = inner.get("layers")
    if not isinstance(layers, list):
        return dict(config)
    nodes = {
        objects.keras[n].name: n for n in objects.layers(node) if n in objects.keras
    }
    renewed = [
        with_vocabularies(layer, nodes[name], objects, assets)
        if isinstance(layer, Mapping) and (name := _name(layer)) in nodes
        else layer
        for layer in layers
    ]
    return {**config, "config": {**inner, "layers": renewed}}


def _with_boundaries(
    config: Mapping[str, Any], node: int, objects: SavedObjects
) -> dict[str, Any]:
    """The config of a layer that sorts numbers into bins, with the ends of these.

    Those that `adapt` found are computed from a summary of the data, as Keras 2 does it
    (`get_bin_boundaries` in `layers/preprocessing/discretization.py` of Keras 2.15).
    """
    summary = objects.children(node).get("summary")
    if config.get("bin_boundaries") is not None or summary is None:
        return dict(config)
    ends, weights = objects.value(summary)
    count = int(config.get("num_bins") or config.get("bins") or 0)
    if ends.size >= count > 0:
        passed = weights.cumsum() / weights.sum()
        shares = 1 / count + np.arange(0.0, 1.0, 1 / count)
        ends = np.interp(shares, passed, ends).astype("float32")
    kept = {key: config[key] for key in config if key not in ("num_bins", "bins")}
    return {**kept, "bin_boundaries": [float(end) for end in ends[:-1]]}


def _name(layer: Mapping[str, Any]) -> str:
    config = layer.get("config")
    own = config.get("name") if isinstance(config, Mapping) else None
    return str(layer.get("name") or own)


def _tokens(
    node: int, config: Mapping[str, Any], objects: SavedObjects, assets: str | None
) -> dict[str, Any]:
    """The arguments that say what a lookup layer has learned."""
    for name in _INNER:  # A TextVectorization holds a lookup layer.
        inner = objects.children(node).get(name)
        if inner is not None:
            known = objects.keras.get(inner)
            config = {**((known and known.config) or {}), **config}
            node = inner
    children = objects.children(node)
    table = next((children[name] for name in _TABLES if name in children), None)
    if table is None or isinstance(config.get("vocabulary"), list):
        return {}
    rows = dict(_rows(table, objects, assets))
    if config.get("invert"):
        rows = {token: index for index, token in rows.items()}
    if config.get("vocabulary_dtype") == "int64":  # of a file they are text
        rows = {int(token): index for token, index in rows.items()}
    special = {config.get(name) for name in _SPECIAL} - {None}
    places = sorted(
        (int(i), token) for token, i in rows.items() if token not in special
    )
    if not places:
        raise FormatError(
            f"The vocabulary of the layer {config.get('name')!r} is not in the "
            "SavedModel.",
            fix='load the functions of the SavedModel with rebuild="graph".',
        )
    first = places[0][0]
    if [place for place, _ in places] != list(range(first, first + len(places))):
        raise FormatError(
            f"The table of the layer {config.get('name')!r} is damaged: it leaves "
            "indices out.",
            fix="get the directory once more.",
        )
    found: dict[str, Any] = {"vocabulary": [token for _, token in places]}
    weights = children.get("idf_weights")
    if weights is not None and config.get("output_mode") in ("tf_idf", "tf-idf"):
        values = objects.value(weights)[first : first + len(places)]
        found["idf_weights"] = [float(value) for value in values]
    return found


def _rows(
    table: int, objects: SavedObjects, assets: str | None
) -> Iterator[tuple[Any, Any]]:
    """Keys and values of a table."""
    key = objects.key(table, "table")
    if key is not None:
        parts = [objects.reader.read(f"{key}-{part}") for part in ("keys", "values")]
        yield from zip(*(map(_plain, part.tolist()) for part in parts), strict=True)
        return
    for function, bound in _initializers(table, objects):
        arguments = [argument.name for argument in function.signature.input_arg]
        sources = dict(zip(arguments, bound, strict=False))
        for node in function.node_def:
            names = [name.partition(":")[0] for name in node.input[1:]]
            given = [sources[name] for name in names if name in sources]
            if node.op == _IMPORT and len(given) == 2:
                parts = [_constant(source, objects).tolist() for source in given]
                yield from zip(*(map(_plain, part) for part in parts), strict=True)
            elif node.op == _FROM_FILE and len(given) == 1:
                yield from _lines(node, given[0], objects, assets)


def _initializers(table: int, objects: SavedObjects) -> Iterator[tuple[Any, list[int]]]:
    """The functions that fill a table, and the objects that they have captured."""
    graph = objects.meta_graph_def.object_graph_def
    node = objects.children(table).get("_initialize")
    if node is None:
        return
    for name in objects.proto(node).function.concrete_functions:
        if name in objects.functions and name in graph.concrete_functions:
            bound = graph.concrete_functions[name].bound_inputs
            yield objects.functions[name], list(bound)


def _constant(node: int, objects: SavedObjects) -> Any:
    """The value of a constant of the SavedModel."""
    name = objects.proto(node).constant.operation
    for found in objects.meta_graph_def.graph_def.node:
        if found.name == name and found.op == "Const":
            return decode_tensor(found.attr["value"].tensor)
    raise FormatError(
        f"The SavedModel has no constant {name!r}, which a table is made of.",
        fix="get the directory once more.",
    )


def _lines(
    node: Any, source: int, objects: SavedObjects, assets: str | None
) -> Iterator[tuple[Any, Any]]:
    """The rows of a table that is filled from an asset, one token a line."""
    columns = (node.attr["key_index"].i, node.attr["value_index"].i)
    place = objects.proto(source).asset.asset_file_def_index
    files = objects.meta_graph_def.asset_file_def
    if set(columns) != {_WHOLE_LINE, _LINE_NUMBER} or not 0 <= place < len(files):
        raise FormatError(
            "A table is filled from columns of a file, as no layer of Keras does it.",
            fix='load the functions of the SavedModel with rebuild="graph".',
        )
    name = files[place].filename
    if assets is None:
        raise FormatError(
            f"The SavedModel lacks the asset {name!r}, which a table is made of.",
            fix="copy its directory `assets` along with it.",
        )
    data = read_asset(assets, name)
    offset = node.attr["offset"].i
    for number, line in enumerate(data.decode().splitlines(), offset):
        yield (line, number) if columns[0] == _WHOLE_LINE else (number, line)


def _plain(value: Any) -> Any:
    return value.decode() if isinstance(value, bytes) else value
