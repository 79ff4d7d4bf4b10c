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

import keras_metagraph as kmg

EXPORT = Path(__file__).parents[1] / "tests/fixtures/zoo/cnn_bn_momentum/model-20.meta"

keras.utils.set_random_seed(7)
random = np.random.default_rng(7)
images = random.normal(size=(256, 8, 8, 3)).astype("float32")
labels = images.mean(axis=(1, 2)).argmax(axis=-1)  # which colour prevails

model = kmg.load_from_meta_graph(EXPORT, outputs={"logits": "logits/BiasAdd:0"})
print(model.meta_graph.report, end="\n\n")


def train(epochs: int) -> tuple[dict[str, list[float]], list[str]]:
    """Trains, and says which variables changed, by their names in TensorFlow."""
    variables = model.meta_graph.variables
    before = {n: keras.ops.convert_to_numpy(v) for n, v in variables.items()}
    history = model.fit(images, {"logits": labels}, epochs=epochs, verbose=2).history
    after = {n: keras.ops.convert_to_numpy(v) for n, v in variables.items()}
    return history, [n for n in before if not np.array_equal(before[n], after[n])]


def compile_for_keras() -> None:
    """From here on Keras trains the model, no longer the train op of the graph."""
    model.compile(
        keras.optimizers.Adam(3e-3),
        {"logits": keras.losses.SparseCategoricalCrossentropy(from_logits=True)},
        metrics={"logits": ["accuracy"]},
    )


for variable in model.trainable_variables:  # first the last layer only
    variable.trainable = variable is model.meta_graph.variables["logits/kernel"]
compile_for_keras()
_, changed = train(epochs=2)
print("changed at first:", ", ".join(changed), end="\n\n")
assert "logits/kernel" in changed
assert "conv2d/kernel" not in changed

for name in ("conv2d/kernel", "logits/bias"):  # then more of it
    model.meta_graph.variables[name].trainable = True
compile_for_keras()
history, changed = train(epochs=6)
print("changed then:", ", ".join(changed))
print("regularization losses:", len(model.losses))
assert {"conv2d/kernel", "batch_normalization/moving_mean"} <= set(changed)
assert len(model.losses) == 2
assert history["loss"][-1] < history["loss"][0]
