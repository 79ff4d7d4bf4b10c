"""`model.meta_graph.signatures`: the signatures of a file as Python callables."""

import contextlib
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import tensorflow as tf

from keras_metagraph.errors import SignatureError
from keras_metagraph.graph.ir import TensorName
from keras_metagraph.graph.variables import VARIABLE_OPS
from keras_metagraph.loading.signature_values import SignatureTensor
from keras_metagraph.session.executor import SessionExecutor, cone

# What tf.estimator calls the outputs of a metric.
_METRIC, _VALUE = "metrics/", "/value"
# What ParseExample says of a wrong feature (TF example_proto_fast_parsing.cc).
_FEATURE = re.compile(r"(?:Feature|Key): (.+?)(?: \(|,|\.  )")
# The line between a trace of the stack and the name of the node.
_REASON = re.compile(r"([^\n]+)\n\s*\[\[\{\{node")


class LoadedSignature:
    """A signature of a loaded graph, on the model's own variables.

    Call it with arrays, lists, tensors or strings: by keyword, as one dict, or by
    position in the order of the sorted keys. Numbers are cast where no value is lost.
    A sparse input is a `tf.SparseTensor`, a SciPy matrix, or the triple of indices,
    values and dense shape; a ragged one a `tf.RaggedTensor` or nested lists.

    A signature for training runs one step, and gives what was computed before its
    update. Of a metric, `metrics/NAME/value` is what was measured so far, and
    `metrics/NAME/update_op` has this batch in it.

    Args:
        name: Its key in the file.
        signature_def: The `SignatureDef`.
        executor: Runs the graph.
        constants: Values by tensor name that are fed too: training flags.
        train_op: Operations of a training step; none for other signatures.

    Attributes:
        name: Its key in the file.
        signature_def: The `SignatureDef`.
        method_name: Such as `"tensorflow/serving/predict"`.

    Example:
        ```python
        classify = model.meta_graph.signatures["serving_default"]
        classify.inputs  # {"inputs": TensorSpec(shape=(None,), dtype=tf.string)}
        classify(inputs=[example.SerializeToString()])["scores"]
        ```
    """

    def __init__(
        self,
        name: str,
        signature_def: Any,
        executor: SessionExecutor,
        constants: Mapping[str, Any] | None = None,
        train_op: Sequence[str] = (),
    ) -> None:
        self.name = name
        self.signature_def = signature_def
        self.method_name: str = signature_def.method_name
        self._executor = executor
        self._constants = dict(constants or {})
        self._train_op = tuple(train_op)
        self._inputs, self._outputs = (
            {
                key: SignatureTensor(key, info, executor.graph)
                for key, info in sorted(side.items())
            }
            for side in (signature_def.inputs, signature_def.outputs)
        )

    @property
    def inputs(self) -> dict[str, tf.TypeSpec]:
        """Dtypes and shapes of the inputs by key."""
        return {key: each.spec for key, each in self._inputs.items()}

    @property
    def outputs(self) -> dict[str, tf.TypeSpec]:
        """Dtypes and shapes of the outputs by key."""
        return {key: each.spec for key, each in self._outputs.items()}

    def __call__(self, *args: Any, **kwargs: Any) -> dict[str, Any]:
        """Runs the signature once.

        Args:
            *args: Inputs in the order of their sorted keys, or one dict of them.
            **kwargs: Inputs by key.

        Returns:
            NumPy arrays by output key; `tf.compat.v1.SparseTensorValue` and
            `tf.compat.v1.ragged.RaggedTensorValue` for sparse and ragged outputs, and
            `None` for operations.

        Raises:
            SignatureError: If inputs are missing, unknown, or of another dtype or
                shape (lists all of them); if a `tf.Example` lacks a feature or has it
                in another type; or if the graph refuses the values.
            UntrustedContentError: If the signature needs ops that are not run.
        """
        given, findings = self._bind(args, kwargs)
        feeds = dict(self._constants)
        for key, value in given.items():
            found, problem = self._inputs[key].feeds(value)
            feeds |= found
            findings += [f"input {key!r}: {problem}"] if problem else []
        if findings:
            raise SignatureError(
                f"The inputs do not fit the signature {self.name!r}, which takes "
                f"{self._described_inputs()}.",
                findings=findings,
                fix="pass each input by its key, with that dtype and shape.",
            )
        self._require(feeds)
        with _explained(self.name):
            values = self._run(feeds)
        return {key: each.value(values[key]) for key, each in self._outputs.items()}

    def __repr__(self) -> str:
        inputs, outputs = self._described_inputs(), ", ".join(self._outputs)
        return f"<LoadedSignature {self.name!r} ({inputs}) -> ({outputs})>"

    def _described_inputs(self) -> str:
        return ", ".join(map(str, self._inputs.values())) or "no inputs"

    def _bind(
        self, args: Sequence[Any], kwargs: Mapping[str, Any]
    ) -> tuple[dict[str, Any], list[str]]:
        """The values of known inputs by key, and what is missing or too much."""
        if len(args) == 1 and isinstance(args[0], Mapping):
            positional, extra = dict(args[0]), 0
        else:
            positional = dict(zip(self._inputs, args, strict=False))
            extra = len(args) - len(positional)
        given = {**positional, **kwargs}
        findings = [f"input {k!r}: given twice" for k in positional if k in kwargs]
        if extra:
            findings.append(f"{len(args)} inputs by position, {extra} too many")
        findings += [
            f"input {key!r}: missing"
            for key, each in self._inputs.items()
            if key not in given and not each.optional
        ]
        findings += [f"input {k!r}: unknown" for k in given if k not in self._inputs]
        return {k: v for k, v in given.items() if k in self._inputs}, findings

    def _require(self, feeds: Mapping[str, Any]) -> None:
        """Refuses outputs that the graph does not have, or has no values for."""
        graph, known = self._executor.graph, self._executor.variables
        findings = [
            f"output {key!r}: the graph has no tensor {name!r}"
            for key, each in self._outputs.items()
            for name in each.names
            if TensorName.parse(name).node not in graph.nodes
        ]
        if not findings:
            names = [n for each in self._outputs.values() for n in each.names]
            roots = [TensorName.parse(name) for name in (*names, *self._train_op)]
            needed, _ = cone(graph, roots, {TensorName.parse(name) for name in feeds})
            findings = [
                f"variable {name!r}: there is no value for it"
                for name in sorted(needed)
                if graph.nodes[name].op in VARIABLE_OPS and name not in known
            ]
        if findings:
            raise SignatureError(
                f"The signature {self.name!r} cannot be run.",
                findings=findings,
                fix="take another signature, or load the checkpoint that belongs to "
                "the graph.",
            )

    def _run(self, feeds: Mapping[str, Any]) -> dict[str, Any]:
        """Runs the graph: metrics so far, and then all the rest with its updates."""
        names = {key: each.names for key, each in self._outputs.items()}
        sofar = {k: v for k, v in names.items() if _is_value_of_metric(k)}
        rest = {k: v for k, v in names.items() if k not in sofar}
        values: dict[str, Any] = self._executor.run(sofar, feeds) if sofar else {}
        before = [n for k, v in rest.items() if not k.startswith(_METRIC) for n in v]
        fetches = {"outputs": rest, "train_op": list(self._train_op)}
        found = self._executor.run(fetches, feeds, before if self._train_op else ())
        values |= found["outputs"]
        return values


def _is_value_of_metric(key: str) -> bool:
    return key.startswith(_METRIC) and key.endswith(_VALUE)


@contextlib.contextmanager
def _explained(name: str) -> Iterator[None]:
    """Says of which signature, and which feature, TensorFlow's error is."""
    try:
        yield
    except (tf.errors.OpError, TypeError, UnicodeDecodeError) as error:
        message = _message(error)
        if message is None:
            raise
        found = _REASON.search(message)
        reason = found[1] if found else message.partition("\n")[0]
        feature = _FEATURE.search(message)
        of = f" at the feature {feature[1]!r} of a tf.Example" if feature else ""
        raise SignatureError(
            f"The signature {name!r} failed{of}.",
            findings=[reason],
            fix="pass values that the graph takes.",
        ) from error


def _message(error: BaseException | None) -> str | None:
    """What TensorFlow says; None of another error.

    It has bytes of the input in it. Where these are no text, the error that reaches
    Python is of their decoding, behind one of the call.
    """
    if isinstance(error, tf.errors.OpError):
        return str(error.message)
    if isinstance(error, UnicodeDecodeError):
        return error.object.decode("utf-8", "backslashreplace")
    return None if error is None else _message(error.__context__)
