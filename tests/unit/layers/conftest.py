"""Graphs in a session of TensorFlow 1's kind, and in an island."""

import dataclasses
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
import pytest
import tensorflow as tf

from keras_metagraph.graph.from_proto import graph_from_proto
from keras_metagraph.graph.passes import repair
from keras_metagraph.layers.island import Island

v1 = tf.compat.v1


@pytest.fixture(autouse=True)
def _control_flow_of_tf1():
    v1.disable_control_flow_v2()
    yield
    v1.enable_control_flow_v2()


class GraphCase:
    """A graph with values for its variables, run by a session.

    Attributes:
        inputs: Names of the fed tensors, by input name.
        outputs: Names of the fetched tensors, by output name.
        values: Initial values of the variables.
        graph: The graph, repaired.
    """

    def __init__(self, build: Callable[[], tuple[dict, dict]]) -> None:
        with tf.Graph().as_default() as self._graph:
            inputs, outputs = build()
            self._trainable = v1.trainable_variables()
            self._variables = v1.global_variables()
            self.inputs = {key: tensor.name for key, tensor in inputs.items()}
            self.outputs = {key: tensor.name for key, tensor in outputs.items()}
            self.graph_def = self._graph.as_graph_def(add_shapes=True)
            # Built before anything runs: they add outputs to If and While.
            self._gradients = self._build_gradients(outputs.values())
            self._session = v1.Session()
            self._session.run(
                [v1.global_variables_initializer(), v1.tables_initializer()]
            )
            names = {v.op.name: v for v in self._variables}
            self.values = self._session.run(names) if names else {}
        self.graph = repair(graph_from_proto(self.graph_def))

    def records(self) -> list[dict[str, Any]]:
        """The variables as a configuration of an island has them."""
        trainable = {variable.op.name for variable in self._trainable}
        return [
            {
                "name": name,
                "dtype": value.dtype.name,
                "shape": value.shape,
                "trainable": name in trainable,
            }
            for name, value in self.values.items()
        ]

    def island(self, **options: Any) -> Island:
        """An island of the whole graph, with the session's initial values."""
        island = Island(
            self.graph, self.inputs, self.outputs, self.records(), **options
        )
        island.assign(self.values)
        return island

    def expected(self, feeds: dict[str, Any]) -> dict[str, Any]:
        """What the session gives."""
        return self._session.run(self.outputs, self._fed(feeds))

    def gradients(self, feeds: dict[str, Any]) -> dict[str, Any]:
        """Gradients of the sum of all squared outputs, as TensorFlow 1 builds them."""
        return self._session.run(self._gradients, self._fed(feeds))

    def variables_after(self) -> dict[str, Any]:
        """The values of the session's variables now."""
        return self._session.run({v.op.name: v for v in self._variables})

    def _build_gradients(self, outputs: Iterable[Any]) -> dict[str, Any]:
        squares = [
            tf.reduce_sum(tf.square(tensor))
            for tensor in outputs
            if tensor.dtype == tf.float32
        ]
        if not squares or not self._trainable:
            return {}
        found = tf.gradients(tf.add_n(squares), self._trainable)
        return {
            variable.op.name: tf.convert_to_tensor(gradient)
            for variable, gradient in zip(self._trainable, found, strict=True)
            if gradient is not None
        }

    def _fed(self, feeds: dict[str, Any]) -> dict[str, Any]:
        return {self.inputs[key]: value for key, value in feeds.items()}


@dataclasses.dataclass
class Check:
    """Compares an island with a session."""

    case: GraphCase

    def outputs(self, feeds: dict[str, Any], island: Island | None = None) -> None:
        """Compares all outputs."""
        found = (island or self.case.island())(tensors(feeds))
        for key, value in self.case.expected(feeds).items():
            same(found[key], value, key)

    def gradients(self, feeds: dict[str, Any]) -> None:
        """Compares the gradients of all trainable variables."""
        island = self.case.island()
        with tf.GradientTape() as tape:
            outputs = island(tensors(feeds))
            loss = tf.add_n(
                [
                    tf.reduce_sum(tf.square(tensor))
                    for tensor in outputs.values()
                    if tensor.dtype == tf.float32
                ]
            )
        expected = self.case.gradients(feeds)
        assert expected
        variables = {name: island.variable(name).value for name in expected}
        found = tape.gradient(loss, variables)
        for name, value in expected.items():
            assert found[name] is not None, name
            same(tf.convert_to_tensor(found[name]), value, name)


def tensors(feeds: dict[str, Any]) -> dict[str, Any]:
    """Feeds as a layer takes them."""
    return {key: tf.constant(value) for key, value in feeds.items()}


def same(found: Any, expected: Any, label: str = "") -> None:
    """Asserts that two arrays are equal, but for rounding."""
    found, expected = np.asarray(found), np.asarray(expected)
    assert found.shape == expected.shape, label
    if expected.dtype.kind == "O":
        assert found.tolist() == expected.tolist(), label
    else:
        np.testing.assert_allclose(found, expected, 1e-5, 1e-6, err_msg=label)


@pytest.fixture
def graph_case() -> type[GraphCase]:
    """Makes a graph and a session of a function that builds it."""
    return GraphCase


@pytest.fixture
def check() -> Callable[[Callable[[], tuple[dict, dict]]], Check]:
    """Makes a comparison of a function that builds a graph."""
    return lambda build: Check(GraphCase(build))
