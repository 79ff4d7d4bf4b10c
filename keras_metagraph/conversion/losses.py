"""Says what a source has and the file that was made of it has not."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from keras_metagraph.conversion.kinds import H5, SAVED_MODEL, WEIGHTS
from keras_metagraph.conversion.sources import Source, SourceGraph
from keras_metagraph.conversion.writers import asset_files, steps_of
from keras_metagraph.export.vocabularies import vocabularies
from keras_metagraph.formats.layout import Export
from keras_metagraph.loading.infer.signatures import signature_defs

_SHOWN = 8
# What a loader of SavedModels runs is written anew for each kind of file.
_LOADING = {
    "saved_model_assets",
    "saved_model_train_op",
    "saved_model_main_op",
    "legacy_init_op",
    "asset_filepaths",
}
_OBJECTS = {"_CHECKPOINTABLE_OBJECT_GRAPH"}  # goes with the objects


def losses(
    source: Source, kind: str, graphs: Sequence[str], written: Export | None
) -> Iterator[str]:
    """Compares a source with what was written.

    Args:
        source: What was converted.
        kind: The kind of the new file.
        graphs: Which graphs of a Keras model were wanted.
        written: The new file as it was opened again; `None` for a file of Keras.

    Yields:
        What is missing, a line each.
    """
    for tags in source.others:
        yield f"the graph with the tags {list(tags)}"
    if kind == WEIGHTS:
        yield "the model itself: such a file has weights and optimizer state alone"
    if kind in (H5, WEIGHTS):
        yield from _learned(source.graphs)
    if written is None:
        yield from _without_graph(source)
    else:
        yield from _from_graphs(source, written)
        yield from _without_steps(source, graphs)
    yield from _values(source.graphs)
    files = asset_files(source)
    if kind != SAVED_MODEL and files:
        yield (
            f"files: {_listed(files)} (lookup tables have what was in theirs in the "
            "graph)"
        )
    if any(_has_objects(graph) for graph in source.graphs):
        yield "the objects and functions of TensorFlow 2 that no signature calls"


def _learned(graphs: Iterable[SourceGraph]) -> Iterator[str]:
    """The vocabularies that `adapt` gave layers; HDF5 has place for arrays only."""
    models = [graph.model for graph in graphs if not graph.runs_graph]
    found = [each for model in models for each in vocabularies(model)]
    names = dict.fromkeys(each["layer"] for each in found if each is not None)
    if names:
        yield f"what layers have adapted to: the vocabularies of {_listed(list(names))}"


def _without_graph(source: Source) -> Iterator[str]:
    """What a file of Keras lacks of a graph; a model that runs it has it with it."""
    graphs = [g.meta_graph_def for g in source.graphs if not g.runs_graph]
    signatures, collections = _members(graphs)
    if signatures:
        yield f"signatures: {_listed(sorted(signatures))}"
    if collections:
        names = _listed(sorted(collections))
        yield f"the graph of TensorFlow 1, with its collections: {names}"


def _from_graphs(source: Source, written: Export) -> Iterator[str]:
    """Signatures and collections that are in no written graph, or changed there."""
    graphs = [graph.meta_graph_def for graph in source.graphs]
    before, after = _members(graphs), _members(written.meta_graphs)
    for what, had, there in zip(
        ("signatures", "collections"), before, after, strict=True
    ):
        if had - there:
            yield f"{what}: {_listed(sorted(had - there))}"
    changed = sorted(_changed(_signatures(graphs), _signatures(written.meta_graphs)))
    if changed:
        yield (
            f"signatures: {_listed(changed)}, as they were; those that have the name "
            "now take or give something else"
        )


def _members(meta_graph_defs: Iterable[Any]) -> tuple[set[str], set[str]]:
    """Keys of signatures and names of collections; `None` is no graph."""
    known = [each for each in meta_graph_defs if each is not None]
    names = {name for each in known for name in each.collection_def}
    return set(_signatures(known)), names - _LOADING


def _signatures(meta_graph_defs: Iterable[Any]) -> dict[str, list[Any]]:
    """The signatures of all graphs by key; `None` is no graph."""
    found: dict[str, list[Any]] = {}
    for each in meta_graph_defs:
        definitions = {} if each is None else signature_defs(each)
        for key, definition in definitions.items():
            found.setdefault(key, []).append(definition)
    return found


def _changed(
    before: Mapping[str, Sequence[Any]], after: Mapping[str, Sequence[Any]]
) -> set[str]:
    """Keys under which a signature stands that does not do what one did."""
    return {
        key
        for key in before.keys() & after.keys()
        if not all(any(_serves(new, old) for new in after[key]) for old in before[key])
    }


def _serves(new: Any, old: Any) -> bool:
    """Whether who calls one signature may call the other instead."""
    # Those of SavedModels have each metric once more, as a value and an update.
    wanted = {key for key in old.outputs if not key.startswith("metrics/")}
    return (
        old.method_name in ("", new.method_name)
        and set(old.inputs) == set(new.inputs)
        and wanted <= set(new.outputs)
    )


def _without_steps(source: Source, graphs: Sequence[str]) -> Iterator[str]:
    """The steps of a Keras model that were not wanted."""
    if source.graphs[0].runs_graph:
        return
    steps = [step for step in steps_of(source) if step not in graphs]
    if steps:
        state = ", and the state of the optimizer" if "train" in steps else ""
        yield f"steps of the model: {_listed(steps)}{state}"


def _values(graphs: Iterable[SourceGraph]) -> Iterator[str]:
    """Values of the checkpoint that no graph takes."""
    reports = [graph.model.meta_graph.report for graph in graphs if graph.runs_graph]
    reports = [report for report in reports if report is not None]
    if not reports:
        return
    unused = set.intersection(*(set(report.unused) for report in reports)) - _OBJECTS
    if unused:
        yield f"tensors that no graph takes: {_listed(sorted(unused))}"


def _has_objects(graph: SourceGraph) -> bool:
    definition: Any = graph.meta_graph_def
    return definition is not None and bool(definition.object_graph_def.nodes)


def _listed(names: Iterable[str]) -> str:
    names = list(names)
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return f"{', '.join(names[:_SHOWN])}{more}"
