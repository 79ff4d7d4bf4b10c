"""Traces a model's own `call`, `test_step` and `train_step` to graphs.

What a model does when it is trained - losses, metrics, clipping, moving averages, loss
scaling - is in its steps, so these are traced as they are, overridden or not. Tracing
runs no op: no weight, seed or metric changes.
"""

import contextlib
import dataclasses
import functools
import inspect
from collections.abc import Callable, Iterator
from typing import Any

import keras
import tensorflow as tf

from keras_metagraph.errors import ExportError
from keras_metagraph.export.fused import fused_steps
from keras_metagraph.export.inline import inline_calls
from keras_metagraph.export.names import named_variables, optimizers_of
from keras_metagraph.export.options import SignatureFunction
from keras_metagraph.export.scopes import MarkedNames
from keras_metagraph.export.specs import STEPS, structure_paths
from keras_metagraph.graph.from_proto import graph_from_proto
from keras_metagraph.graph.ir import Graph, TensorName

PREDICTIONS = "predictions/"
"""Where a step has its predictions among its logs."""

_CALL = "the call of model"


@dataclasses.dataclass(frozen=True, slots=True)
class TracedOutput:
    """A tensor that a traced function returns.

    Attributes:
        path: Keys and places on the way to it in the returned structure.
        tensors: Its name; of a sparse or ragged one the names of its parts.
        spec: Its spec.
    """

    path: tuple[Any, ...]
    tensors: tuple[str, ...]
    spec: Any

    @property
    def part_specs(self) -> list[Any]:
        """A spec for each of the tensors."""
        return list(tf.nest.flatten(self.spec, expand_composites=True))


@dataclasses.dataclass(frozen=True, slots=True)
class Trace:
    """One traced graph.

    Attributes:
        graph: Its nodes, named by layer.
        arguments: Names of the placeholders of its inputs, flat.
        captures: Placeholders of what it uses from outside, and what that is.
        outputs: What it returns, flat.
        specs: The specs of what it returns, in its structure.
        loss: The batch loss as it is optimized, if one could be found.
        learning_rate: The learning rate of a train step.
        effects: Nodes that must run for the step to be taken: assignments and such.
        variables: The `tf.Variable`s that it uses.
    """

    graph: Graph
    arguments: tuple[str, ...]
    captures: tuple[tuple[str, Any], ...]
    outputs: tuple[TracedOutput, ...]
    specs: Any
    loss: TracedOutput | None
    learning_rate: TracedOutput | None
    effects: tuple[str, ...]
    variables: tuple[Any, ...]


def trace_predict(model: Any, inputs: Any) -> Trace:
    """Traces `model(x, training=False)`.

    Args:
        model: A built model.
        inputs: The structure of tensor specs that it takes.

    Returns:
        The traced graph.
    """
    call = inference_call(model)

    def predict(x: Any) -> tuple[Any, None, None]:
        return call(x), None, None

    return _trace(predict, (inputs,), f"{_CALL} {model.name!r}")


def inference_call(model: Any) -> Callable[..., Any]:
    """`model(x, training=False)`; without the argument for a call that has none."""
    parameters = inspect.signature(model.call).parameters.values()
    takes_training = any(
        p.name == "training" or p.kind is inspect.Parameter.VAR_KEYWORD
        for p in parameters
    )
    return functools.partial(model, training=False) if takes_training else model


def trace_step(
    model: Any,
    step: str,
    data: tuple[Any, ...],
    *,
    predictions: bool = False,
    bare: bool = False,
) -> Trace:
    """Traces one of the model's steps.

    Args:
        model: A compiled model.
        step: `"train_step"` or `"test_step"`.
        data: Specs of `(x, y, sample_weight)`; None for what there is not.
        predictions: Whether what the loss is computed of is returned, too.
        bare: Whether the step takes `x` itself, where there is nothing else.

    Returns:
        The traced graph. Its outputs are the step's logs, and under `PREDICTIONS` what
        the model predicts.
    """
    while len(data) > 1 and data[-1] is None:
        data = data[:-1]
    trains = step == "train_step"
    weights = {v.name: v.variable for v in named_variables(model) if v.role == "weight"}

    def run(*batch: Any) -> tuple[Any, Any, Any]:
        rate = getattr(model.optimizer, "learning_rate", None) if trains else None
        rate = None if rate is None else tf.convert_to_tensor(rate)
        optimizers = optimizers_of(model) if trains else []
        with _losses_of(model) as losses, fused_steps(optimizers, weights):
            # Keras takes a bare list for `(x, y)`.
            only = len(batch) == 1 and not isinstance(batch[0], list | tuple)
            logs = getattr(model, step)(batch[0] if bare and only else batch)
        predicted = losses.get("predictions") if predictions else None
        if predicted is not None and all(
            map(_is_tensor_here, tf.nest.flatten(predicted))
        ):
            logs = {**logs, PREDICTIONS: predicted}
        return logs, _batch_loss(losses, logs), rate

    return _trace(run, data, f"{step} of model {model.name!r}")


def trace_function(function: Any, what: str) -> tuple[dict[str, Any], Trace]:
    """Traces a function of the user for a signature.

    Args:
        function: A `SignatureFunction`, a `tf.function` with an input signature, or a
            concrete function.
        what: How to call it in an error.

    Returns:
        The specs of its arguments by name, and the graph.

    Raises:
        ExportError: If the function does not say what it takes, or cannot be traced.
    """
    if isinstance(function, SignatureFunction):
        keyed = dict(function.inputs)

        def call_by_key(*tensors: Any) -> tuple[Any, None, None]:
            by_key = dict(zip(keyed, tensors, strict=True))
            return dict(function.function(**by_key)), None, None

        trace = _trace(call_by_key, tuple(keyed.values()), f"signature {what!r}")
        return keyed, trace
    concrete = function
    if hasattr(function, "get_concrete_function"):
        if getattr(function, "input_signature", None) is None:
            raise ExportError(
                f"The signature {what!r} is a tf.function that does not say what it "
                f"takes. Received: {function!r}",
                fix="decorate it with tf.function(input_signature=[...]), or pass "
                "function.get_concrete_function(...).",
            )
        try:
            concrete = function.get_concrete_function()
        except Exception as error:  # The user's own code runs here.
            failed = _failed(f"signature {what!r}", error)
            raise failed from error
    if not hasattr(concrete, "structured_input_signature"):
        raise ExportError(
            f"The signature {what!r} is no tf.function. Received: {function!r}",
            fix="make it one with predict_signature(function, specs), or decorate it "
            "with tf.function(input_signature=[...]).",
        )
    positional, named = concrete.structured_input_signature
    specs: dict[str, Any] = {}
    for place, spec in enumerate(tf.nest.flatten((positional, named))):
        if isinstance(spec, tf.TypeSpec):
            specs[getattr(spec, "name", None) or f"input_{place}"] = spec

    def call(*args: Any) -> tuple[Any, None, None]:
        return concrete(*args), None, None

    return specs, _trace(call, tuple(specs.values()), f"signature {what!r}")


def _trace(function: Callable[..., Any], specs: tuple[Any, ...], what: str) -> Trace:
    """Traces a function that returns outputs, and loss and learning rate or None."""

    def traced(*args: Any) -> Any:
        MarkedNames(tf.compat.v1.get_default_graph())
        return function(*args)

    try:
        concrete = tf.function(traced, autograph=False).get_concrete_function(*specs)
    except Exception as error:  # The user's own code runs here.
        raise _failed(what, error, specs) from error
    graph = graph_from_proto(concrete.graph.as_graph_def(add_shapes=True))
    _refuse_text_as_numbers(graph, specs, what)
    outputs, loss, rate = concrete.structured_outputs
    external = concrete.captured_inputs
    placeholders = [tensor.op.name for tensor in concrete.inputs]
    count = len(placeholders) - len(external)
    inline_calls(graph)
    return Trace(
        graph=graph,
        arguments=tuple(placeholders[:count]),
        captures=tuple(zip(placeholders[count:], external, strict=True)),
        outputs=tuple(_outputs(graph, outputs)),
        specs=tf.nest.map_structure(_spec, outputs),
        loss=next(_outputs(graph, loss), None),
        learning_rate=next(_outputs(graph, rate), None),
        effects=tuple(op.name for op in concrete.graph.control_outputs),
        variables=tuple(concrete.graph.variables),
    )


def _failed(what: str, error: Exception, specs: Any = ()) -> ExportError:
    fix = "make it run in a tf.function, as model.fit does without run_eagerly"
    findings: list[str] = []
    given = "inputs="
    if what.startswith(STEPS):
        fix += ', or leave its graph out: graphs=("predict",)'
        given = "inputs= and labels="
    if what.startswith((_CALL, *STEPS)):
        # Keras keeps the shapes of what a model was called on, and nothing of labels.
        fix = f"if it takes something else, pass {given}tf.TensorSpec(...); else {fix}"
        findings = [f"input {spec}" for spec in tf.nest.flatten(specs)]
    return ExportError(
        f"Tracing {what} failed: {type(error).__name__}: {error}",
        findings=findings,
        fix=f"{fix}.",
    )


def _refuse_text_as_numbers(graph: Graph, specs: Any, what: str) -> None:
    """Refuses graphs that take text for numbers: there is no kernel for such a cast.

    Keras does not keep in which dtype a model was called, only the shapes.

    Raises:
        ExportError: If there is such a cast; lists all of them.
    """
    bodies = [graph, *(function.graph for function in graph.functions.values())]
    casts = [
        node.name
        for body in bodies
        for node in body.nodes.values()
        if node.op == "Cast"
        and tf.string.as_datatype_enum
        in (node.attrs["SrcT"].type, node.attrs["DstT"].type)
    ]
    if casts:
        given = [f"input {spec}" for spec in tf.nest.flatten(specs)]
        raise ExportError(
            f"Tracing {what} gave casts between text and numbers, which no TensorFlow "
            "can run: an input was taken for numbers and is text.",
            findings=[*given, *(f"cast {name}" for name in casts)],
            fix="say what it takes: inputs=tf.TensorSpec([None, 1], tf.string).",
        )


def _outputs(graph: Graph, structure: Any) -> Iterator[TracedOutput]:
    """The tensors of a returned structure."""
    leaves = tf.nest.flatten(structure)
    for path, tensor in zip(structure_paths(structure), leaves, strict=True):
        if tensor is not None:
            parts = tf.nest.flatten(tensor, expand_composites=True)
            names = tuple(_returned(graph, part.name) for part in parts)
            yield TracedOutput(path, names, _spec(tensor))


def _returned(graph: Graph, tensor_name: str) -> str:
    """The name that a returned tensor has before the return.

    TensorFlow puts an `Identity` behind it that waits for all side effects.
    """
    node = graph.nodes[TensorName.parse(tensor_name).node]
    if node.op == "Identity" and "/" not in node.name:
        return str(node.inputs[0])
    return tensor_name


def _spec(tensor: Any) -> Any:
    return None if tensor is None else tf.type_spec_from_value(tensor)


@contextlib.contextmanager
def _losses_of(model: Any) -> Iterator[dict[str, Any]]:
    """Notes what `compute_loss` takes and returns, and what the metric loss is fed.

    The step's logs hold the metric's running mean; the loss of the batch passes by
    only here.
    """
    noted: dict[str, Any] = {}

    def note_result(key: str, method: Callable[..., Any]) -> Callable[..., Any]:
        takes = inspect.signature(method)

        def noting(*args: Any, **kwargs: Any) -> Any:
            given = takes.bind_partial(*args, **kwargs).arguments
            noted["predictions"] = given.get("y_pred")
            noted[key] = method(*args, **kwargs)
            return noted[key]

        return noting

    def note_argument(key: str, method: Callable[..., Any]) -> Callable[..., Any]:
        def noting(values: Any, *args: Any, **kwargs: Any) -> Any:
            noted[key] = values
            return method(values, *args, **kwargs)

        return noting

    def note_mean(key: str, metric: Any) -> Callable[..., Any]:
        result = metric.result

        def noting() -> Any:
            value = result()
            noted.setdefault("means", []).append((value, key))
            return value

        return noting

    replaced = [(model, "compute_loss", note_result("computed", model.compute_loss))]
    for place, metric in enumerate(model.metrics):
        key = "metric" if metric.name == "loss" else f"metric/{place}"
        update = getattr(type(metric), "update_state", None)
        # What others are fed is no number of the batch.
        if key == "metric" or update is keras.metrics.Mean.update_state:
            replaced += [
                (metric, "update_state", note_argument(key, metric.update_state)),
                (metric, "result", note_mean(key, metric)),
            ]
    for owner, name, method in replaced:
        vars(owner)[name] = method  # Not setattr: Keras would track it.
    try:
        yield noted
    finally:
        for owner, name, _ in replaced:
            vars(owner).pop(name, None)


def _batch_loss(noted: dict[str, Any], logs: Any) -> Any:
    """The loss of the batch: computed, or fed to the metric, or the log itself."""
    log = logs.get("loss") if isinstance(logs, dict) else None
    means = (key for value, key in noted.get("means", ()) if value is log)
    fed = noted.get(next(means, "metric"))
    for value in (noted.get("computed"), fed, log):
        if isinstance(value, int | float) or _is_tensor_here(value):
            loss = tf.convert_to_tensor(value)
            return loss if loss.shape.rank == 0 else tf.reduce_mean(loss)
    return None


def _is_tensor_here(value: Any) -> bool:
    """Whether a value is a tensor of the graph now traced, not of an inner one."""
    graph = tf.compat.v1.get_default_graph()
    return tf.is_tensor(value) and getattr(value, "graph", None) is graph
