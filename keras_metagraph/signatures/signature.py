"""A signature: a function that servers can call, and what it takes."""

import dataclasses
import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from keras_metagraph.errors import MetaGraphError, SignatureError
from keras_metagraph.signatures.graph import graph_of
from keras_metagraph.signatures.values import bind_values

_CAUSES = (tf.errors.OpError, ValueError, TypeError)


@dataclasses.dataclass(frozen=True, eq=False)
class Signature:
    """An endpoint: tensors in by key, tensors out by key.

    `predict_signature`, `classify_signature`, `regress_signature` and the decorator
    `signature` make them. Whatever takes `signatures=` takes them, and exports the
    graph behind them.

    Args:
        method_name: How servers call it: `"tensorflow/serving/predict"`, or the same
            with `classify`, `regress`; or a name of one's own.
        inputs: Specs of what it takes, by input key.
        function: Takes tensors by input key as keywords; returns tensors by output
            key.
        name: What errors call it.
        model: The Keras model that it belongs to, if there is one.
        explain: Says what is wrong with the inputs that made the function fail, a
            line each; for inputs that hold serialized examples.

    Example:
        ```python
        signature = kmg.predict_signature(model)
        probabilities = signature(x)["output"]
        ```
    """

    method_name: str
    inputs: Mapping[str, Any]
    function: Callable[..., Mapping[str, Any]]
    name: str = "signature"
    model: Any = None
    explain: Callable[[Mapping[str, Any]], Sequence[str]] | None = None

    def __call__(self, *values: Any, **keyed: Any) -> dict[str, Any]:
        """Runs the signature.

        Args:
            *values: Inputs in the order of `inputs`: arrays, tensors or lists; or one
                dict of all inputs by key.
            **keyed: Inputs by key.

        Returns:
            Outputs by key: arrays; sparse and ragged tensors as they are.

        Raises:
            SignatureError: If inputs are missing, unknown, or of another dtype or
                shape, or if an example lacks a feature or has it in another type; or
                if the function cannot be traced.
        """
        tensors = bind_values(self.name, self.inputs, values, keyed)
        function = self._graph_function
        try:
            outputs = function(*tensors.values())
        except _CAUSES as error:
            raise self._failure(error, tensors) from error
        return {key: _array(value) for key, value in outputs.items()}

    def to_graph(
        self, key: str = "serving_default", *, target: str | None = "1.15"
    ) -> tuple[Any, Any]:
        """The `SignatureDef`, and the graph behind it.

        Args:
            key: The key of the signature, which is the scope of its nodes.
            target: `"1.15"`, or None for the ops of the TensorFlow that is installed.

        Returns:
            The `SignatureDef`, and the `GraphDef` with the tensors that it names. The
            values of variables are not in it.

        Raises:
            ExportError: If the function cannot be traced.
        """
        return graph_of(self, key, self.model, target)

    @functools.cached_property
    def _graph_function(self) -> Any:
        """The function as it is exported: a graph, whatever the batch."""
        keys = list(self.inputs)

        def by_key(*tensors: Any) -> dict[str, Any]:
            return dict(self.function(**dict(zip(keys, tensors, strict=True))))

        specs = tuple(self.inputs.values())
        function = tf.function(by_key, input_signature=specs, autograph=False)
        try:
            function.get_concrete_function()
        except MetaGraphError:
            raise
        except Exception as error:  # The user's own code runs here.
            raise SignatureError(
                f"The signature {self.name!r} cannot be traced: "
                f"{type(error).__name__}: {error}",
                fix="make it run in a tf.function, on what it says that it takes: "
                f"{dict(self.inputs)}.",
            ) from error
        return function

    def _failure(self, error: Exception, tensors: Mapping[str, Any]) -> SignatureError:
        """The error of a run, in words of the signature."""
        findings = self.explain(tensors) if self.explain is not None else ()
        message = " ".join(_message(error).split())
        inputs = " and ".join(repr(key) for key in tensors)
        return SignatureError(
            f"The signature {self.name!r} failed on its input {inputs}.",
            findings=findings or [f"{type(error).__name__}: {message}"],
            fix="pass what the findings ask for.",
        )


def _array(value: Any) -> Any:
    """A dense tensor as an array, a single text too; others as they are."""
    if not isinstance(value, tf.Tensor):
        return value
    return np.asarray(value.numpy(), dtype=value.dtype.as_numpy_dtype)


def _message(error: Exception) -> str:
    """What an error says; of one from a graph without the places in the code."""
    if isinstance(error, tf.errors.OpError):
        return str(error.message).strip().rpartition("\n\n")[2]
    return str(error)
