"""Trains a loaded graph with its own optimizer, as an optimizer of Keras.

The export was written by TensorFlow 1.15 after 20 steps of `MomentumOptimizer` under an
exponential decay. Class, slots, step and schedule are read off its update ops, so that
Keras makes the steps that TensorFlow 1 would have made; and what Keras knows to do with
an optimizer works.
"""

import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import tempfile
from pathlib import Path

import keras
import numpy as np

import keras_metagraph as kmg

EXPORT = Path(__file__).parents[1] / "tests/fixtures/zoo/cnn_bn_momentum/model-20.meta"

random = np.random.default_rng(7)
images = random.normal(size=(64, 8, 8, 3)).astype("float32")
labels = images.mean(axis=(1, 2)).argmax(axis=-1)


def train(model: keras.Model) -> list[float]:
    """Losses of four steps on the same batches, each before its update."""
    losses = []
    for start in range(0, 64, 16):
        batch = slice(start, start + 16)
        model.reset_metrics()
        losses.append(float(model.train_on_batch(images[batch], labels[batch])))
    return losses


by_graph = kmg.load_from_meta_graph(EXPORT, outputs="logits/BiasAdd:0")
by_keras = kmg.load_from_meta_graph(EXPORT, outputs="logits/BiasAdd:0", compile="keras")
optimizer = by_keras.optimizer
print(f"step {int(optimizer.iterations)} of {type(optimizer).__name__}:")
print(optimizer.get_config())

expected, found = train(by_graph), train(by_keras)
print("losses by the train op:      ", np.round(expected, 6))
print("losses by the Keras optimizer:", np.round(found, 6))
np.testing.assert_allclose(found, expected, rtol=1e-5)

# What Keras saves is the graph it came from, with the slots as they are now.
with tempfile.TemporaryDirectory() as folder:
    again = kmg.load_from_meta_graph(
        kmg.save_meta_graph(by_keras, Path(folder) / "model"),
        outputs="logits/BiasAdd:0",
    )
np.testing.assert_allclose(train(again), train(by_graph), rtol=1e-5)

# The loss of the graph takes any optimizer.
by_keras.compile(keras.optimizers.Lion(1e-3), by_keras.meta_graph.loss())
losses = [np.mean(train(by_keras)) for _ in range(5)]
print("with Lion:", np.round(losses, 4))
assert losses[-1] < losses[0]
