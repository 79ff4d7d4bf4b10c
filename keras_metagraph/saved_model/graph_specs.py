"""What the graphs of a SavedModel are to be: tags, model, options."""

import dataclasses
from collections.abc import Iterable, Mapping
from typing import Any

from keras_metagraph.errors import ExportError
from keras_metagraph.export.options import GRAPHS, ExportOptions, SavedModelOptions
from keras_metagraph.export.tracing import check_model
from keras_metagraph.saved_model.assets import named_files
from keras_metagraph.signatures.validation import check_keys

SERVE = "serve"
LAYOUTS = (None, "estimator")

_OPTIONS = (
    "clear_devices",
    "collection_list",
    "collections",
    "graphs",
    "inputs",
    "labels",
    "meta_info",
    "sample_weight",
    "signatures",
    "strip_default_attrs",
    "target",
)
_FIELDS = frozenset({"model", "main_op", "assets", *_OPTIONS})


@dataclasses.dataclass(frozen=True, slots=True)
class GraphSpec:
    """One graph of a SavedModel.

    Attributes:
        tags: Its tags.
        model: The Keras model that it is of.
        options: How the model is exported.
        saved_model: What the graph has besides as one of a SavedModel.
        assets: Files of the user, by their names in `assets/`.
    """

    tags: tuple[str, ...]
    model: Any
    options: ExportOptions
    saved_model: SavedModelOptions
    assets: Mapping[str, Any]


def graph_specs(
    graphs: Any, layout: str | None, common: Mapping[str, Any]
) -> list[GraphSpec]:
    """Reads the argument `graphs` of `save_saved_model`.

    Args:
        graphs: A model, or models and dicts by tags.
        layout: The layout of signatures, or None.
        common: Fields for all graphs: what a dict says goes before, signatures,
            collections and assets are put together. Common signatures are for graphs
            that predict.

    Returns:
        The graphs, in the given order.

    Raises:
        ExportError: If something is no model, tag or field; lists all that is wrong.
    """
    if layout not in LAYOUTS:
        raise ExportError(
            f"layout is one of {LAYOUTS}. Received: layout={layout!r}",
            fix="leave it out, or pass 'estimator'.",
        )
    given = graphs if isinstance(graphs, Mapping) else {SERVE: graphs}
    fields = [
        (_tags(key), value if isinstance(value, Mapping) else {"model": value})
        for key, value in given.items()
    ]
    findings = list(_findings(fields))
    if findings or not fields:
        raise ExportError(
            "The graphs of a SavedModel are a model, or by tags models or dicts with a "
            "model. These are not:",
            findings=findings or ["no graph was given"],
            fix='pass {"serve": model, "train": model}, or '
            '{("serve", "gpu"): {"model": model, "signatures": {...}}}.',
        )
    return [_spec(tags, each, layout, common) for tags, each in fields]


def _tags(key: Any) -> tuple[Any, ...]:
    if isinstance(key, str):
        return (key,)
    if isinstance(key, frozenset):
        return tuple(sorted(key))
    return tuple(key) if isinstance(key, Iterable) else (key,)


def _findings(fields: list[tuple[tuple[Any, ...], Mapping[str, Any]]]) -> Iterable[str]:
    """What is wrong with the graphs, a line each."""
    seen: list[set[Any]] = []
    for tags, given in fields:
        if not all(isinstance(tag, str) for tag in tags):
            yield f"{tags}: tags are texts"
        if set(tags) in seen:
            yield f"{tags}: another graph has the same tags"
        seen.append(set(tags))
        unknown = sorted(map(str, set(given) - _FIELDS))
        if unknown:
            yield f"{tags}: unknown fields {unknown}; known: {sorted(_FIELDS)}"
        if "model" not in given:
            yield f"{tags}: there is no model"
            continue
        try:
            check_model(given["model"])
        except ExportError as error:
            yield f"{tags}: {error.problem}"
            continue
        wanted = given.get("graphs", _graphs_for(tags))
        steps = [kind for kind in wanted if kind in ("train", "eval")]
        # The graph of a legacy file has its steps, compiled or not.
        has_graph = callable(getattr(given["model"], "original_meta_graph", None))
        if steps and not has_graph and not given["model"].compiled:
            yield f"{tags}: the model is not compiled, so it has no graph for {steps}"


def _graphs_for(tags: Iterable[str]) -> tuple[str, ...]:
    """What tags mean: a step for `train` and `eval`, predicting for all others."""
    steps = tuple(kind for kind in GRAPHS if kind in tags and kind != "predict")
    return steps or ("predict",)


def _spec(
    tags: tuple[str, ...],
    given: Mapping[str, Any],
    layout: str | None,
    common: Mapping[str, Any],
) -> GraphSpec:
    graphs = tuple(given.get("graphs", _graphs_for(tags)))
    merged = {**common, **given, "graphs": graphs}
    merged["meta_info"] = {**(merged.get("meta_info") or {}), "tags": tags}
    check_keys(common.get("signatures"))
    check_keys(given.get("signatures"))
    given = {**given, **named_files(assets=given.get("assets"))}
    for name in ("signatures", "collections", "assets"):
        shared = common.get(name) or {}
        if name == "signatures" and "predict" not in graphs:
            shared = {}
        merged[name] = {**shared, **(given.get(name) or {})}
    options = ExportOptions(**{n: merged[n] for n in _OPTIONS if n in merged})
    saved_model = SavedModelOptions(main_op=merged.get("main_op"), layout=layout)
    return GraphSpec(tags, given["model"], options, saved_model, merged["assets"])
