"""What the graph of a function tells of its outputs."""

import functools
from typing import Any

from keras_metagraph.errors import SignatureError, nearest
from keras_metagraph.export.signatures import PREDICT
from keras_metagraph.export.trace import Trace, TracedOutput, trace_function
from keras_metagraph.graph.ir import TensorName
from keras_metagraph.signatures.signature import Signature
from keras_metagraph.signatures.target import Target

_PASS_ON = frozenset(
    {"Cast", "ExpandDims", "Identity", "Reshape", "Squeeze", "StopGradient"}
)


class TracedTarget:
    """A function, and what its graph tells of its outputs.

    Args:
        found: The function.
    """

    def __init__(self, found: Target) -> None:
        self.found = found
        self._keys: list[str] = []

    @functools.cached_property
    def outputs(self) -> dict[str, TracedOutput]:
        """Its outputs by key, in the order in which it gives them."""
        by_key = {output.path[0]: output for output in self._trace.outputs}
        return {key: by_key[key] for key in self._keys}

    @functools.cached_property
    def _trace(self) -> Trace:
        found = self.found

        def run(**tensors: Any) -> dict[str, Any]:
            outputs = found.outputs(tensors)
            self._keys = list(outputs)  # tf.nest sorts them
            return outputs

        function = Signature(PREDICT, found.inputs, run, found.name)
        return trace_function(function, found.name)[1]

    def only_output(self, key: str | None) -> str:
        """The key of the one output that is meant.

        Raises:
            SignatureError: If there is none of that name, or if there are several.
        """
        if key is None and len(self.outputs) == 1:
            return next(iter(self.outputs))
        if key in self.outputs:
            return str(key)
        problem = "several outputs"
        if key is not None:
            problem = f"no output {key!r}{nearest(key, self.outputs)}"
        raise SignatureError(
            f"{self.found.name!r} has {problem}.",
            findings=[f"there is {known!r}" for known in self.outputs],
            fix="pass output= with one of these.",
        )

    def last_op(self, key: str) -> str:
        """The op that an output comes from; what only passes values on is left out."""
        graph = self._trace.graph
        node = graph.nodes[TensorName.parse(self.outputs[key].tensors[0]).node]
        while node.op in _PASS_ON:
            node = graph.nodes[node.inputs[0].node]
        return node.op

    def check(self, findings: list[str], what: str) -> None:
        """Raises what was found, if anything was."""
        if findings:
            raise SignatureError(
                f"{self.found.name!r} cannot be {what}.",
                findings=findings,
                fix="change what the findings name.",
            )
