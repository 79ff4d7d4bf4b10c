"""Maps op types to the functions that build them.

What has no handler is imported as it is. A handler is for what plain TensorFlow 2 does
not do the same way: control flow with a gradient, variables, tensor arrays.
"""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from keras_metagraph.errors import DuplicateHandlerError
from keras_metagraph.graph.ir import Node

if TYPE_CHECKING:
    from keras_metagraph.layers.graph_ops.builder import Scope

Handler = Callable[["Scope", Node], Sequence[Any]]
"""Builds a node; returns the values of its outputs."""


class OpRegistry:
    """A set of handlers by op type."""

    def __init__(self) -> None:
        self._handlers: dict[str, Handler] = {}

    def register(self, *ops: str) -> Callable[[Handler], Handler]:
        """Returns a decorator that registers a function for `ops`.

        Raises:
            DuplicateHandlerError: If an op has a handler already.
        """

        def decorate(handler: Handler) -> Handler:
            for op in ops:
                if op in self._handlers:
                    raise DuplicateHandlerError(
                        f"The op {op!r} is handled by {_origin(self._handlers[op])}; "
                        f"{_origin(handler)} would shadow it.",
                        fix="register the op once.",
                    )
            self._handlers.update(dict.fromkeys(ops, handler))
            return handler

        return decorate

    def get(self, op: str) -> Handler | None:
        """The handler of an op type, or `None` where it is imported as it is."""
        return self._handlers.get(op)

    def ops(self) -> frozenset[str]:
        """The op types that have handlers."""
        return frozenset(self._handlers)


def _origin(handler: Handler) -> str:
    return f"{handler.__module__}.{getattr(handler, '__qualname__', handler)}"


REGISTRY = OpRegistry()
"""The handlers of this package."""
