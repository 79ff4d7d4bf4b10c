"""Writes a SavedModel with graphs to serve, train and evaluate, and runs all of them.

What runs them here is the loader of TensorFlow 1, in a session: one that knows nothing
of Keras.
"""

import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import tempfile
from pathlib import Path

import keras
import numpy as np
import tensorflow.compat.v1 as tf1

import keras_metagraph as kmg

rng = np.random.default_rng(7)
words = rng.choice([b"red", b"green", b"blue"], 64)
labels = (words == b"red").astype("int64")

word = keras.Input((), dtype="string", name="word")
ids = keras.layers.StringLookup(vocabulary=["red", "green", "blue"])(word)
hidden = keras.layers.Embedding(4, 8)(ids)
model = keras.Model(
    word, keras.layers.Dense(2, activation="softmax", name="is_red")(hidden)
)
model.compile(
    keras.optimizers.Adam(0.05), "sparse_categorical_crossentropy", metrics=["accuracy"]
)


def run(path: str, tag: str, key: str, steps: int, save: str = "") -> dict:
    """Loads the graph of a tag, and runs a signature of it."""
    with tf1.Graph().as_default() as graph, tf1.Session() as session:
        meta = tf1.saved_model.load(session, [tag], path)
        signature = meta.signature_def[key]
        given = {"word": words, "labels": labels}
        feeds = {info.name: given[k] for k, info in signature.inputs.items()}
        fetches = {k: info.name for k, info in signature.outputs.items()}
        train_op = graph.get_collection("saved_model_train_op")
        for _ in range(steps):
            outputs, _ = session.run([fetches, train_op], feeds)
        if save:
            tf1.train.Saver().save(session, save)
        return outputs


with tempfile.TemporaryDirectory() as folder:
    path = kmg.save_saved_model(
        Path(folder) / "1", {"serve": model, "train": model, "eval": model}
    )
    files = sorted(str(f.relative_to(path)) for f in Path(path).rglob("*.*"))
    served = run(path, "serve", "serving_default", steps=1)
    evaluated = run(path, "eval", "eval", steps=1)
    trained = run(path, "train", "train", steps=30, save=f"{folder}/run/model")
    loaded = kmg.load_from_meta_graph(f"{folder}/run/model")

# One checkpoint for three graphs, and the vocabulary as a file.
assert files == [
    "assets/string_lookup.txt",
    "saved_model.pb",
    "variables/variables.data-00000-of-00001",
    "variables/variables.index",
]
x = keras.ops.convert_to_tensor(words.tolist())
np.testing.assert_allclose(served["is_red"], model(x), rtol=1e-5)
np.testing.assert_allclose(
    evaluated["loss"], model.evaluate(x, labels, verbose=0)[0], rtol=1e-5
)
# The session trained, and Keras goes on with what it saved.
assert trained["loss"] < 0.5 * evaluated["loss"]
assert loaded.optimizer.iterations == 30
assert loaded.evaluate(x, labels, verbose=0, return_dict=True)["accuracy"] == 1.0
