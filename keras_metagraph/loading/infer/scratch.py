"""Runs parts of a graph on copies of its variables, to see what they compute."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from keras_metagraph.errors import MissingVariableError
from keras_metagraph.graph.ir import Graph, TensorName
from keras_metagraph.session.executor import SessionExecutor, cone


class Scratch:
    """A graph with copies of those of its variables that a run needs.

    Args:
        graph: A repaired graph.
        variables: Names of its variables.
        values: Arrays by variable name.
    """

    def __init__(
        self, graph: Graph, variables: Sequence[str], values: Mapping[str, Any]
    ) -> None:
        self._names = frozenset(variables)
        self._values = values
        self._executor = SessionExecutor(graph, {})

    def run(
        self,
        fetches: Sequence[str],
        feeds: Mapping[str, Any] | None = None,
        state: Mapping[str, Any] | None = None,
    ) -> list[Any]:
        """Runs tensors and operations once.

        Args:
            fetches: Names of tensors (`name:index`) and operations.
            feeds: Values by tensor name; those of tensors elsewhere do not matter.
            state: Values that variables have before the run.

        Returns:
            An array for each tensor, `None` for operations.

        Raises:
            MissingVariableError: If a variable that is needed has no value.
            SignatureError: If a placeholder that is needed is not fed.
            UntrustedContentError: If the fetches need ops that are not run.
        """
        nodes = self._executor.graph.nodes
        feeds = {
            name: value
            for name, value in (feeds or {}).items()
            if TensorName.parse(name).node in nodes
        }
        self._make(fetches, feeds, state or {})
        for name, value in (state or {}).items():
            if name in self._executor.variables:
                self._executor.variables[name].assign(value)
        found: list[Any] = self._executor.run(list(fetches), feeds)
        return found

    def value(self, variable: str) -> Any:
        """The value that a variable has after the last run."""
        return self._executor.variables[variable].numpy()

    def reset(self) -> None:
        """Gives all copies the values that they began with."""
        for name, variable in self._executor.variables.items():
            if name in self._values:
                variable.assign(self._values[name])

    def _make(
        self, fetches: Sequence[str], feeds: Mapping[str, Any], state: Mapping[str, Any]
    ) -> None:
        roots = [TensorName.parse(name) for name in fetches]
        fed = {TensorName.parse(name) for name in feeds}
        names, _ = cone(self._executor.graph, roots, fed)
        wanted = sorted(names & self._names - self._executor.variables.keys())
        missing = [n for n in wanted if n not in self._values and n not in state]
        if missing:
            raise MissingVariableError(
                "Variables that the graph's training reads have no value:",
                findings=missing,
                fix="load a checkpoint that has them.",
            )
        for name in wanted:
            value = np.asarray(state.get(name, self._values.get(name)))
            self._executor.variables[name] = tf.Variable(value, trainable=False)
