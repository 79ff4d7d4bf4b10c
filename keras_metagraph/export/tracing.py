"""Decides which graphs of a model are traced, and on what."""

import contextlib
import dataclasses
import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import keras
import tensorflow as tf

from keras_metagraph.errors import ExportError, SignatureError
from keras_metagraph.export.options import ExportOptions
from keras_metagraph.export.placeholders import named_leaves, plain_specs
from keras_metagraph.export.signatures import DEFAULT_KEY
from keras_metagraph.export.specs import (
    NamedSpec,
    has_call,
    input_specs,
    label_specs,
    name_leaves,
    sees_bare_data,
    step_input_specs,
    whole_batch_specs,
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
    steps = [kind for kind in _STEPS if kind in options.graphs and model.compiled]
    inputs, predict = _trace_call(model, options.inputs)
    if predict is None:
        _leave_predict_out(model, options, steps)
    named_inputs = {leaf.name: leaf for leaf in named_leaves(inputs)}
    graphs = []
    if "predict" in options.graphs and predict is not None:
        graphs.append(TracedGraph("predict", "", predict, (inputs,), named_inputs))
    if steps and model.optimizer is not None and not model.optimizer.built:
        model.optimizer.build(model.trainable_variables)
    known: dict[str, NamedSpec] = dict(named_inputs)
    for kind in steps:
        labels, weights = label_specs(
            model,
            _STEPS[kind],
            None if predict is None else predict.specs,
            options.labels,
            options.sample_weight,
            named_inputs,
        )
        labels, weights = _apart(labels, known, kind), _apart(weights, known, kind)
        taken = _apart(step_input_specs(model, _STEPS[kind], inputs), known, kind)
        step_inputs = {leaf.name: leaf for leaf in named_leaves(taken)}
        try:
            trace = _trace_step(
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


def _leave_predict_out(
    model: Any, options: ExportOptions, steps: Sequence[str]
) -> None:
    """Says that a model without `call` has no graph that predicts.

    Raises:
        ExportError: If nothing else is asked for.
    """
    given = options.signatures or {}
    if "predict" not in options.graphs or DEFAULT_KEY in given:
        return
    problem = f"The model {model.name!r} has no `call`, so no graph of it predicts."
    part = "pass the part of it that predicts as a model of its own"
    if not steps and not given:
        raise ExportError(problem, fix=f"{part}, such as the generator of a GAN.")
    warnings.warn(
        f"The predict graph is left out. {problem} Where one is wanted, {part}: "
        'signatures={"serving_default": predict_signature(model.generator)}, or '
        'save_saved_model(path, {"train": model, "serve": model.generator}).',
        stacklevel=7,
    )


def _trace_call(model: Any, given: Any) -> tuple[Any, Trace | None]:
    """The inputs of a model, and the graph of its call if it has one."""
    inputs = input_specs(model, given)
    if not has_call(model):
        return inputs, None
    try:
        return inputs, trace_predict(model, plain_specs(inputs))
    except ExportError:
        whole = whole_batch_specs(model) if given is None else None
        if whole is not None:
            with contextlib.suppress(ExportError):  # The first says more.
                return whole, trace_predict(model, plain_specs(whole))
        raise


def _trace_step(model: Any, step: str, data: tuple[Any, ...], **options: Any) -> Trace:
    """Traces a step on data as it was passed; if that is not known, as arrays are."""
    bare = sees_bare_data(model, step)
    try:
        return trace_step(model, step, data, bare=bool(bare), **options)
    except ExportError:
        if bare is not None or any(each is not None for each in data[1:]):
            raise
        with contextlib.suppress(ExportError):  # The first says more.
            return trace_step(model, step, data, bare=True, **options)
        raise


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
