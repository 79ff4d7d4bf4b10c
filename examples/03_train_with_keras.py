"""Trains a loaded graph with Keras: another loss, another optimizer, frozen parts.

The export is that of a convolutional net with batch normalization, written by
TensorFlow 1.15. Its moving averages (`UPDATE_OPS`) and regularization losses go on
counting when Keras trains it.
"""

import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

from pathlib import Path

import keras
import numpy as np
from rich import print

import keras_metagraph as kmg

EXPORT = Path(__file__).parents[1] / "tests/fixtures/zoo/cnn_bn_momentum/model-20.meta"

keras.utils.set_random_seed(7)
random = np.random.default_rng(7)
images = random.normal(size=(256, 8, 8, 3)).astype("float32")
labels = images.mean(axis=(1, 2)).argmax(axis=-1)  # which colour prevails

model = kmg.load_from_meta_graph(EXPORT, outputs=["logits/BiasAdd:0"])
print(model.meta_graph.report)

# After compile, Keras trains; x and y are what any Keras model takes.
(output,) = model.output_names
model.compile(
    keras.optimizers.AdamW(3e-3),
    {output: keras.losses.SparseCategoricalCrossentropy(from_logits=True)},
    metrics={output: ["accuracy"]},
)
variables = model.meta_graph.variables  # by TensorFlow's names
before = {name: np.array(variable) for name, variable in variables.items()}
history = model.fit(images, {output: labels}, epochs=5, verbose=2).history

changed = [n for n, v in variables.items() if not np.array_equal(before[n], v)]
print("regularization losses:", [round(float(loss), 5) for loss in model.losses])
print("changed:", changed)
