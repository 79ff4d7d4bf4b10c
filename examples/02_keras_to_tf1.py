"""Trains a Keras model, saves MetaGraphs by a callback, and goes on in TensorFlow 1.

The second half knows nothing of Keras: it finds its way by the signatures and
collections in the file. `tf.compat.v1` stands for TensorFlow 1.15 here, which runs the
same lines.
"""

import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import tempfile

import keras
import numpy as np
import tensorflow.compat.v1 as tf1
from rich import print

import keras_metagraph as kmg

keras.utils.set_random_seed(7)
random = np.random.default_rng(7)
x = random.normal(size=(256, 4)).astype("float32")
y = (x**2).sum(axis=1, keepdims=True)

model = keras.Sequential(
    [
        keras.Input((4,), name="x"),
        keras.layers.Dense(16, activation="relu", name="hidden"),
        keras.layers.Dropout(0.1),
        keras.layers.Dense(1, name="score"),
    ]
)
model.compile(keras.optimizers.Adam(0.01), "mse")


def continue_in_tf1(prefix: str, steps: int) -> list[float]:
    """Imports, restores and trains as a TensorFlow 1 program."""
    with tf1.Graph().as_default() as graph, tf1.Session() as session:
        saver = tf1.train.import_meta_graph(f"{prefix}.meta")
        saver.restore(session, prefix)
        print("variables:", [variable.name for variable in tf1.global_variables()])
        print("collections:", sorted(graph.collections))
        meta = tf1.MetaGraphDef()
        with open(f"{prefix}.meta", "rb") as file:
            meta.ParseFromString(file.read())
        train = meta.signature_def["train"]
        print("inputs of a step:", {k: info.name for k, info in train.inputs.items()})
        (label,) = [info.name for key, info in train.inputs.items() if key != "x"]
        fetches = [train.outputs["loss"].name, tf1.get_collection("train_op")[-1]]
        feeds = {train.inputs["x"].name: x, label: y}
        losses = [session.run(fetches, feeds)[0] for _ in range(steps)]
        hidden = session.run("hidden/Relu:0", {"x:0": x[:1]})
        print("hidden/Relu:0 of one row:", hidden.round(2))
        print("global_step:", session.run("global_step/Read/ReadVariableOp:0"))
        return losses


with tempfile.TemporaryDirectory() as folder:
    checkpoint = kmg.MetaGraphCheckpoint(f"{folder}/model", max_to_keep=2, verbose=1)
    model.fit(x, y, epochs=4, verbose=2, callbacks=[checkpoint])
    print("files:", sorted(os.listdir(folder)))
    prefix = f"{folder}/model-{int(model.optimizer.iterations)}"
    there = continue_in_tf1(prefix, 5)

here = [float(model.train_on_batch(x, y)) for _ in range(5)]
print("losses of the next steps, TensorFlow 1:", there)
print("losses of the next steps, Keras:       ", here)
assert np.allclose(there, here, rtol=1e-6)  # dropout included
