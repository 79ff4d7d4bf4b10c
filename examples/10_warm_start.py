"""Starts a Keras model from a checkpoint of TensorFlow 1 that knows other names.

The checkpoint is that of a text classifier with moving averages and an old vocabulary.
The new model has its layers elsewhere, another vocabulary, and a head of its own.
"""

import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import tempfile
from pathlib import Path

import keras
import numpy as np
import tensorflow.compat.v1 as tf1

import keras_metagraph as kmg

OLD = ["the", "cat", "sat"]
NEW = ["sat", "dog", "the"]
AVERAGE = "ExponentialMovingAverage"
rng = np.random.default_rng(7)

# What a program of TensorFlow 1 left behind.
shapes = {
    "clf/words/table": (3, 4),
    "clf/dense_1/kernel": (4, 5),
    "clf/dense_1/bias": (5,),
}
values = {name: rng.normal(size=shape) for name, shape in shapes.items()}
averages = {f"{name}/{AVERAGE}": value + 0.5 for name, value in values.items()}
stored = {
    name: value.astype("float32") for name, value in {**values, **averages}.items()
}

words = keras.Input((3,), dtype="int32", name="words")
embedded = keras.layers.Embedding(4, 4, name="embedding")(words)  # One is for others.
pooled = keras.layers.GlobalAveragePooling1D()(embedded)
hidden = keras.layers.Dense(5, name="hidden")(pooled)
model = keras.Model(words, keras.layers.Dense(2, name="head")(hidden), name="new")
head = model.get_layer("head").kernel.numpy()

assignment_map = {
    "clf/words/table": "embedding/embeddings",  # a name to a name
    "clf/dense_1/": model.get_layer("hidden"),  # a scope to a layer
}
vocabularies = {
    "embedding/embeddings": tf1.train.VocabInfo(
        new_vocab=NEW, new_vocab_size=3, num_oov_buckets=1, old_vocab=OLD
    )
}

with tempfile.TemporaryDirectory() as folder:
    with tf1.Graph().as_default(), tf1.Session() as session:
        variables = {name: tf1.Variable(value) for name, value in stored.items()}
        session.run(tf1.global_variables_initializer())
        prefix = tf1.train.Saver(variables).save(session, str(Path(folder) / "clf"), 9)
    settings = {"vocabularies": vocabularies, "ema": True}
    kmg.warm_start(model, prefix, assignment_map, **settings, dry_run=True)  # prints
    report = kmg.warm_start(model, prefix, assignment_map, **settings)

table = stored[f"clf/words/table/{AVERAGE}"]
np.testing.assert_array_equal(
    model.get_layer("embedding").embeddings.numpy(),
    np.stack([table[2], np.zeros(4), table[0], np.zeros(4)]),  # sat, dog, the, others
)
kernel = model.get_layer("hidden").kernel.numpy()
np.testing.assert_array_equal(kernel, stored[f"clf/dense_1/kernel/{AVERAGE}"])
np.testing.assert_array_equal(model.get_layer("head").kernel.numpy(), head)
assert report.untouched == ("head/kernel", "head/bias")
assert report.matched[0].note == "2 of 4 rows from the old vocabulary"
