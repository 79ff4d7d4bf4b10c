"""Makes MetaGraphs from checkpoints: of `tf.train.Checkpoint`, and `.weights.h5`.

The code that builds the model is there, its values are in a file. The model that is
exported keeps the values that it has.
"""

import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import tempfile

import keras
import numpy as np
import tensorflow as tf
from rich import print

import keras_metagraph as kmg


def build(units: int = 8) -> keras.Model:
    """The same model each time, with other initial values."""
    return keras.Sequential(
        [
            keras.Input((4,), name="x"),
            keras.layers.Dense(units, activation="relu", name="hidden"),
            keras.layers.Dense(1, name="score"),
        ]
    )


def predict_in_tf1(prefix: str, x: np.ndarray) -> np.ndarray:
    """Imports, restores and predicts as a TensorFlow 1 program."""
    tf1 = tf.compat.v1
    with tf1.Graph().as_default(), tf1.Session() as session:
        tf1.train.import_meta_graph(f"{prefix}.meta").restore(session, prefix)
        with open(f"{prefix}.meta", "rb") as file:
            meta = tf1.MetaGraphDef.FromString(file.read())
        (output,) = meta.signature_def["serving_default"].outputs.values()
        return session.run(output.name, {"x:0": x})


x = np.random.default_rng(7).normal(size=(64, 4)).astype("float32")
trained = build()
trained.compile("adam", "mse")
trained.fit(x, x[:, :1], epochs=3, verbose=2)
expected = trained.predict(x, verbose=0)

with tempfile.TemporaryDirectory() as folder:
    checkpoint = tf.train.Checkpoint(model=trained, optimizer=trained.optimizer)
    sources = [checkpoint.save(f"{folder}/ckpt"), f"{folder}/model.weights.h5"]
    trained.save_weights(sources[1])

    errors = []
    for number, source in enumerate(sources):
        prefix = f"{folder}/export{number}"
        kmg.export_meta_graph(build(), f"{prefix}.meta", checkpoint=source)
        errors.append(np.abs(predict_in_tf1(prefix, x) - expected).max())
        print(f"{os.path.basename(source)}: differs by {errors[-1]:.1e} at most")

    try:
        kmg.export_meta_graph(build(units=9), checkpoint=sources[0])
    except kmg.errors.CheckpointError as error:
        refusal = str(error)

print("[bold]a checkpoint of another model:[/bold]", refusal)
assert max(errors) < 1e-6
assert "hidden/kernel" in refusal
