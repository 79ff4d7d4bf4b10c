"""Finds what a user of a graph would have named: inputs, outputs, loss, train op."""

from keras_metagraph.loading.infer.interface import Interface
from keras_metagraph.loading.infer.optimizers import (
    OptimizerDescription,
    describe_optimizer,
)
from keras_metagraph.loading.infer.pipeline import infer_interface

__all__ = [
    "Interface",
    "OptimizerDescription",
    "describe_optimizer",
    "infer_interface",
]
