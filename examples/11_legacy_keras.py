"""Goes on with a model of Keras 1: its H5 file becomes a Keras 3 model.

The file is written here as Keras 1.2 did: a list of layers, `output_dim`, `lr`, the old
`hard_sigmoid`, and the velocities of the optimizer.
"""

import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import json
import tempfile

import h5py
import numpy as np
from rich import print

import keras_metagraph as kmg

random = np.random.default_rng(7)
LAYERS = [
    {
        "class_name": "Dense",
        "config": {
            "name": "dense_1",
            "output_dim": 8,
            "init": "glorot_uniform",
            "activation": "hard_sigmoid",
            "batch_input_shape": [None, 4],
        },
    },
    {"class_name": "Dropout", "config": {"name": "dropout_1", "p": 0.0}},
    {"class_name": "Dense", "config": {"name": "dense_2", "output_dim": 1}},
]
OPTIMIZER = {"lr": 0.05, "momentum": 0.9, "decay": 0.0, "nesterov": False}
WEIGHTS = {
    "dense_1": {"dense_1_W:0": (4, 8), "dense_1_b:0": (8,)},
    "dropout_1": {},
    "dense_2": {"dense_2_W:0": (8, 1), "dense_2_b:0": (1,)},
}


def write_group(group, arrays):
    """Writes arrays, and their names in the order in which Keras made them."""
    group.attrs["weight_names"] = [name.encode() for name in arrays]
    for name, value in arrays.items():
        group[name] = value


with tempfile.TemporaryDirectory() as folder:
    path = f"{folder}/model.h5"
    kernels = {}
    with h5py.File(path, "w") as file:
        model = {"class_name": "Sequential", "config": LAYERS}
        optimizer = {"class_name": "SGD", "config": OPTIMIZER}
        training = {"optimizer_config": optimizer, "loss": "mse", "metrics": ["mae"]}
        file.attrs["keras_version"] = b"1.2.2"
        file.attrs["model_config"] = json.dumps(model)
        file.attrs["training_config"] = json.dumps(training)
        root = file.create_group("model_weights")
        root.attrs["layer_names"] = [name.encode() for name in WEIGHTS]
        slots = {"Variable:0": np.float32(120)}  # the steps, then what each weight has
        for name, shapes in WEIGHTS.items():
            arrays = {k: random.normal(size=s) * 0.3 for k, s in shapes.items()}
            kernels |= arrays
            write_group(root.create_group(name), arrays)
            for shape in shapes.values():
                slots[f"Variable_{len(slots) + 3}:0"] = np.zeros(shape, "float32")
        write_group(file.create_group("optimizer_weights"), slots)

    print(kmg.inspect_meta_graph(path))
    model = kmg.load_from_meta_graph(path)

x = random.normal(size=(64, 4)).astype("float32")
hidden = np.clip((x @ kernels["dense_1_W:0"] + kernels["dense_1_b:0"]) / 5 + 0.5, 0, 1)
expected = hidden @ kernels["dense_2_W:0"] + kernels["dense_2_b:0"]
np.testing.assert_allclose(model.predict(x, verbose=0), expected, 1e-5, 1e-5)
model.fit(x, x[:, :1], epochs=2, verbose=2)
assert int(model.optimizer.iterations) == 120 + 2 * 2
