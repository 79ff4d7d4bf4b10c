"""Where a Keras optimizer has the state of a graph's, for the way back."""

import dataclasses
from collections.abc import Callable
from typing import Any

import keras
import numpy as np

SMALLEST = float(np.finfo(np.float32).tiny)
"""TensorFlow flushes what is smaller to 0."""


@dataclasses.dataclass(frozen=True)
class Binding:
    """A variable of the graph, and where the Keras optimizer has its value.

    Attributes:
        name: Name of the variable of the graph.
        read: Makes its value of what the optimizer has now.
    """

    name: str
    read: Callable[[], Any]


@dataclasses.dataclass(frozen=True)
class Counter:
    """A counter of the graph, after the iterations of a Keras optimizer."""

    optimizer: Any
    start: int
    value: int
    increment: int

    def __call__(self) -> int:
        """The count."""
        passed = int(self.optimizer.iterations.numpy()) - self.start
        return self.value + passed * self.increment


@dataclasses.dataclass(frozen=True)
class Power:
    """A power of a decay, multiplied up in float32 as the graph does it."""

    optimizer: Any
    start: int
    value: Any
    base: float

    def __call__(self) -> Any:
        """The power."""
        power, base = np.float32(self.value), np.float32(self.base)
        for _ in range(int(self.optimizer.iterations.numpy()) - self.start):
            power = power * base
            if power < SMALLEST:
                return np.float32(0)
        return power


@dataclasses.dataclass(frozen=True)
class Slot:
    """A slot of the graph in a variable of a Keras optimizer.

    Keras's SGD keeps `-learning_rate * accumulator` where `MomentumOptimizer` keeps the
    accumulator.
    """

    optimizer: Any
    variable: Any
    scaled: bool

    def __call__(self) -> Any:
        """The slot's value, as the graph has it."""
        value = keras.ops.convert_to_numpy(self.variable)
        return (
            value / -np.float32(self.optimizer.learning_rate) if self.scaled else value
        )
