"""Serves a Keras classifier as Estimator did: from `tf.Example`s to classes and scores.

The same model has an endpoint of its own, and one on plain tensors. A session of
TensorFlow 1 finds all of them in the file.
"""

import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import tempfile

import keras
import numpy as np
import tensorflow as tf
from rich import print

import keras_metagraph as kmg

tf1 = tf.compat.v1


class Iris(keras.Model):
    """A functional model with a decorated method."""

    @kmg.signature(tf.TensorSpec([None, 4], tf.float32), name="features")
    def embed(self, x):
        """What the hidden layer gives."""
        return {"hidden": self.get_layer("hidden")(x)}


sizes = keras.Input((4,), name="sizes")
hidden = keras.layers.Dense(8, activation="relu", name="hidden")(sizes)
model = Iris(sizes, keras.layers.Dense(3, activation="softmax", name="kind")(hidden))

labels = ["setosa", "versicolor", "virginica"]
best = kmg.classify_signature(model, labels=labels, top_k=2)
signatures = {
    "serving_default": best,
    "predict": kmg.predict_signature(model, examples=True),
    "raw": kmg.predict_signature(model),
}

x = np.random.default_rng(7).random((3, 4), "float32")
serialized = [
    tf.train.Example(
        features=tf.train.Features(
            feature={
                "sizes": tf.train.Feature(float_list=tf.train.FloatList(value=row))
            }
        )
    ).SerializeToString()
    for row in x
]
print("Called here:", best(serialized))

with tempfile.TemporaryDirectory() as folder:
    prefix = kmg.save_meta_graph(model, f"{folder}/model", signatures=signatures)
    with tf1.Graph().as_default(), tf1.Session() as session:
        with open(f"{prefix}.meta", "rb") as file:
            meta_graph_def = tf1.MetaGraphDef.FromString(file.read())
        tf1.train.import_meta_graph(meta_graph_def).restore(session, prefix)
        found = {}
        for key, signature in meta_graph_def.signature_def.items():
            (given,) = signature.inputs.values()
            feed = serialized if given.dtype == tf.string.as_datatype_enum else x
            fetches = {name: info.name for name, info in signature.outputs.items()}
            found[key] = session.run(fetches, {given.name: feed})
            print("The session has", key, list(found[key]))

probabilities = model.predict(x, verbose=0)
np.testing.assert_allclose(found["raw"]["kind"], probabilities, rtol=1e-5)
np.testing.assert_allclose(found["predict"]["kind"], probabilities, rtol=1e-5)
assert found["features"]["hidden"].shape == (3, 8)
first = [labels[place].encode() for place in probabilities.argmax(axis=1)]
assert found["serving_default"]["classes"][:, 0].tolist() == first
