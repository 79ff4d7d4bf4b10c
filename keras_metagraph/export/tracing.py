"""Decides which graphs of a model are traced, and on what."""

import dataclasses
import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import keras
import tensorflow as tf

from keras_metagraph.errors import ExportError, SignatureError
from keras_metagraph.export.options import ExportOptions
from keras_metagraph.export.placeholders import named_leaves, plain_specs
from keras_metagraph.export.specs import (
    NamedSpec,
    input_specs,
    label_specs,
    name_leaves,
    step_input_specs,
)
from keras_metagraph.export.trace import (
    Trace,
    trace_function,
    trace_predict,
    trace_step,
)

_STEPS = {"train": "train_step", "eval": "test_step"}


@dataclasses.dataclass(frozen=True, slots=True)
class TracedGraph:
    """A traced graph and what is fed to it.

    Attributes:
        kind: `"predict"`, `"eval"`, `"train"` or `"signature"`.
        key: Its scope, and for a signature its name; empty for predict.
        trace: The graph.
        arguments: Structures of named specs, as the trace takes them.
        inputs: Placeholders of the inputs, by key.
        labels: Those of the labels, by key.
        sample_weight: Those of the sample weights, by key.
        method_name: How servers call a signature; None for predict.
        aliases: Further keys of a signature.
    """

    kind: str
    key: str
    trace: Trace
    arguments: tuple[Any, ...]
    inputs: dict[str, NamedSpec]
    labels: dict[str, NamedSpec] = dataclasses.field(default_factory=dict)
    sample_weight: dict[str, NamedSpec] = dataclasses.field(default_factory=dict)
    method_name: str | None = None
    aliases: tuple[str, ...] = ()

    @property
    def feeds(self) -> dict[str, NamedSpec]:
        """All placeholders, by the key that a signature gives them."""
        return {**self.inputs, **self.labels, **self.sample_weight}


def trace_model(model: Any, options: ExportOptions) -> tuple[Any, list[TracedGraph]]:
    """Traces the graphs that the options ask for.

    Args:
        model: The model; its optimizer is built if it was not.
        options: What to export.

    Returns:
        The structure of named input specs, and the graphs: predict, train, eval, then
        those of signatures.

    Raises:
        ExportError: If the model cannot be traced.
        SignatureError: If a signature has the key of a step.
    """
    inputs = input_specs(model, options.inputs)
    predict = trace_predict(model, plain_specs(inputs))
    named_inputs = {leaf.name: leaf for leaf in named_leaves(inputs)}
    graphs = []
    if "predict" in options.graphs:
        graphs.append(TracedGraph("predict", "", predict, (inputs,), named_inputs))
    steps = [kind for kind in _STEPS if kind in options.graphs and model.compiled]
    if steps and model.optimizer is not None and not model.optimizer.built:
        model.optimizer.build(model.trainable_variables)
    known: dict[str, NamedSpec] = dict(named_inputs)
    for kind in steps:
        labels, weights = label_specs(
            model,
            _STEPS[kind],
            predict.specs,
            options.labels,
            options.sample_weight,
            named_inputs,
        )
        labels, weights = _apart(labels, known, kind), _apart(weights, known, kind)
        taken = _apart(step_input_specs(model, _STEPS[kind], inputs), known, kind)
        step_inputs = {leaf.name: leaf for leaf in named_leaves(taken)}
        try:
            trace = trace_step(
                model,
                _STEPS[kind],
                (plain_specs(taken), plain_specs(labels), plain_specs(weights)),
                predictions=is_of_estimator(options),
            )
        except ExportError as error:
            if not _cannot_run(model, _STEPS[kind]):
                raise
            if kind == "train":
                warnings.warn(
                    "The train graph is left out: the model is compiled without loss "
                    f"or optimizer, and fit cannot run it either. {error.problem}",
                    stacklevel=6,
                )
            continue
        graphs.append(
            TracedGraph(
                kind,
                kind,
                trace,
                (taken, labels, weights),
                step_inputs,
                _by_key(labels, step_inputs),
                _by_key(weights, step_inputs, whole=True),
            )
        )
    graphs += trace_signatures(options.signatures or {}, steps)
    return inputs, graphs


def is_of_estimator(options: ExportOptions) -> bool:
    """Whether the graphs of a SavedModel have what Estimator's had."""
    return options.saved_model is not None and options.saved_model.layout is not None


def check_model(model: Any) -> None:
    """Refuses what is no Keras model, or none that TensorFlow runs.

    Raises:
        ExportError: In these cases.
    """
    if not isinstance(model, keras.Model):
        raise ExportError(
            f"Expected a keras.Model. Received: {model!r}",
            fix="wrap layers in keras.Sequential or keras.Model.",
        )
    if keras.backend.backend() != "tensorflow":
        raise ExportError(
            "A TensorFlow graph can be made of a model that TensorFlow runs. The Keras "
            f"backend is {keras.backend.backend()!r}.",
            fix="save the model as .keras, and export it in a process with "
            "KERAS_BACKEND=tensorflow.",
        )


def _cannot_run(model: Any, step: str) -> bool:
    """Whether a step is Keras's own, and the model compiled without what it needs."""
    own = getattr(type(model), step) is getattr(keras.Model, step)
    no_optimizer = step == "train_step" and getattr(model, "optimizer", None) is None
    return own and (no_optimizer or getattr(model, "loss", None) is None)


def _apart(structure: Any, known: dict[str, NamedSpec], kind: str) -> Any:
    """Keeps a name for one spec: what differs gets the name of its graph in front."""

    def rename(leaf: NamedSpec | None) -> NamedSpec | None:
        if leaf is None:
            return None
        if known.setdefault(leaf.name, leaf) != leaf:
            leaf = NamedSpec(f"{kind}/{leaf.name}", leaf.spec)
            known[leaf.name] = leaf
        return leaf

    return tf.nest.map_structure(rename, structure)


def _by_key(
    structure: Any, inputs: Mapping[str, Any], whole: bool = False
) -> dict[str, NamedSpec]:
    """Labels by the name of their output; the whole name where that is an input's."""
    found = {}
    for leaf in named_leaves(structure):
        short = leaf.name.rpartition("/")[2]
        key = leaf.name.replace("/", "_") if whole or short in inputs else short
        found[key] = leaf
    return found


def trace_signatures(
    signatures: Mapping[str, Any], steps: Sequence[str] = ()
) -> list[TracedGraph]:
    """Traces the signatures that are functions.

    Args:
        signatures: Signatures by key; those that are no functions are left out.
        steps: Keys of steps, which have signatures of their own.

    Returns:
        The graphs, each in the scope of its first key.

    Raises:
        ExportError: If a function cannot be traced.
        SignatureError: If a signature has no key, or that of a step.
    """
    if callable(signatures.get("")):
        raise SignatureError(
            "A signature has the empty key.", fix='give it a key, such as "predict".'
        )
    taken = [key for key in steps if callable(signatures.get(key))]
    if taken:
        raise SignatureError(
            f"The {' and '.join(taken)} graph has a signature of this name itself.",
            fix="take another key, or leave that graph out with graphs=.",
        )
    keys: dict[int, list[str]] = {}
    for key, function in signatures.items():
        if callable(function):
            keys.setdefault(id(function), []).append(key)
    graphs, used = [], set[str]()
    errors: list[ExportError] = []
    for key, *aliases in keys.values():
        function = signatures[key]
        try:
            specs, trace = trace_function(function, key)
        except ExportError as error:
            errors.append(error)
            continue
        names = [f"{key}/{name}" for name in specs]
        leaves = name_leaves(list(specs.values()), names, used)
        feeds = dict(zip(specs, leaves, strict=True))
        method = getattr(function, "method_name", None)
        graphs.append(
            TracedGraph(
                "signature",
                key,
                trace,
                tuple(leaves),
                feeds,
                method_name=method,
                aliases=tuple(aliases),
            )
        )
    if len(errors) == 1:
        raise errors[0]
    if errors:
        raise ExportError(
            "Several signatures cannot be traced:",
            findings=[
                line for each in errors for line in (each.problem, *each.findings)
            ],
            fix=" ".join(dict.fromkeys(error.fix for error in errors)),
        )
    return graphs
