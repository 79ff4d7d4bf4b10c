"""The registry of handlers."""

import pytest

from keras_metagraph.errors import DuplicateHandlerError
from keras_metagraph.layers import graph_function
from keras_metagraph.layers.graph_ops.registry import REGISTRY, OpRegistry


def test_finds_what_was_registered():
    registry = OpRegistry()

    @registry.register("A", "B")
    def handler(scope, node):
        return []

    assert registry.get("A") is registry.get("B") is handler
    assert registry.get("C") is None
    assert registry.ops() == {"A", "B"}


def test_refuses_a_second_handler_and_registers_nothing_of_it():
    registry = OpRegistry()
    registry.register("A")(lambda scope, node: [])
    with pytest.raises(DuplicateHandlerError, match="'A' is handled by"):
        registry.register("B", "A")(lambda scope, node: [])
    assert registry.ops() == {"A"}


def test_all_families_are_reached():
    modules = {module.__name__ for module in graph_function.HANDLER_FAMILIES}
    origins = {REGISTRY.get(op).__module__ for op in REGISTRY.ops()}
    assert origins == modules
