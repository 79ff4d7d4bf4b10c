"""A program that trains, may be killed, and is started again unchanged.

    python resume_program.py KIND DIRECTORY BATCH

With BATCH above 0 it kills itself after so many batches. Else it writes what came out
to `DIRECTORY/result.npz`.
"""
# ruff: noqa: NPY002 - what is seeded by keras.utils.set_random_seed is tested here

import json
import os
import random
import signal
import sys
import threading

import keras
import numpy as np
import tensorflow as tf

from keras_metagraph import MetaGraphCheckpoint

LAYERS = keras.layers
EPOCHS, BATCH_SIZE, SAMPLES = 3, 12, 117  # 10 batches, the last one of 9


class Killed(BaseException):
    """Ends a run where SIGKILL would, but not the process."""


class Kill(keras.callbacks.Callback):
    """Ends the run after some batches."""

    def __init__(self, batch, by_signal):
        super().__init__()
        self.batch, self.by_signal = batch, by_signal
        self.count = 0

    def get_state(self):
        return None

    def set_state(self, state):
        self.count = 0

    def on_train_batch_end(self, batch, logs=None):
        self.count += 1
        if self.count == self.batch:
            if self.by_signal:
                os.kill(os.getpid(), signal.SIGKILL)
            raise Killed


class Noise(LAYERS.Layer):
    """Draws from Keras's default random generator."""

    def call(self, x, training=False):
        return x + 0.01 * keras.random.normal(keras.ops.shape(x)) if training else x


class Batches(keras.utils.PyDataset):
    """Orders its samples anew at the end of each epoch."""

    def __init__(self, x, y, **kwargs):
        super().__init__(**kwargs)
        self.x, self.y = x, y
        self.order = np.arange(len(x))
        self.rng = np.random.default_rng(3)

    def __len__(self):
        return -(-len(self.x) // BATCH_SIZE)

    def __getitem__(self, index):
        part = self.order[index * BATCH_SIZE :][:BATCH_SIZE]
        return self.x[part], self.y[part]

    def on_epoch_end(self):
        self.rng.shuffle(self.order)
        np.random.shuffle(self.order)


class Augmented(Batches):
    """Draws for every batch, in the thread that reads ahead."""

    def __init__(self, x, y):
        super().__init__(x, y)
        self.drawing, self.ended = threading.Lock(), False

    def __getitem__(self, index):
        x, y = super().__getitem__(index)
        with self.drawing:
            if self.ended:
                return x, y
            return x + np.random.normal(size=x.shape).astype("float32"), y

    def end(self):
        with self.drawing:
            self.ended = True


def make_model(kind):
    layers = [LAYERS.Dense(4), LAYERS.Dropout(0.3), LAYERS.Dense(1)]
    if kind in ("arrays", "callbacks", "unbuilt"):
        layers[1:1] = [LAYERS.BatchNormalization(), Noise()]
    if kind != "unbuilt":
        layers.insert(0, keras.Input([8]))
    model = keras.Sequential(layers)
    schedule = keras.optimizers.schedules.CosineDecay(1e-2, 100)
    optimizer = keras.optimizers.Adam(schedule, use_ema=kind == "average")
    if kind == "callbacks":
        optimizer = keras.optimizers.SGD(0.05, momentum=0.9)
    metrics = [keras.metrics.RootMeanSquaredError()]
    steps = 3 if kind == "executions" else 1
    model.compile(optimizer, "mse", metrics=metrics, steps_per_execution=steps)
    return model


def make_data(kind):
    """Arguments of `fit`."""
    x = np.random.normal(size=(SAMPLES, 8)).astype("float32")
    noise = np.random.normal(size=(SAMPLES, 1))
    y = (2 * x[:, :1] + 0.3 * noise).astype("float32")
    rows = tf.data.Dataset.from_tensor_slices((x, y)).shuffle(50)
    one = {
        "x": x,
        "y": y,
        "batch_size": BATCH_SIZE,
        "validation_data": (x[:30], y[:30]),
    }
    made = {
        "dataset": lambda: rows.batch(BATCH_SIZE).prefetch(2),
        "endless": lambda: rows.repeat().batch(BATCH_SIZE + 1),
        "unknown": lambda: rows.filter(lambda a, b: a[0] < 1.5).batch(BATCH_SIZE),
        "python": lambda: _from_python(x, y),
        "py_dataset": lambda: Batches(x, y),
        "workers": lambda: Batches(x, y, workers=2),
        "augmented": lambda: Augmented(x, y),
    }
    if kind in made:
        one |= {"x": made[kind](), "y": None, "batch_size": None}
        one["shuffle"] = kind == "py_dataset"
    if kind == "endless":
        one["steps_per_epoch"] = 10
    if kind == "weights":
        one["sample_weight"] = np.linspace(0.5, 1.5, SAMPLES).astype("float32")
    if kind == "classes":
        labels = (y > 0).astype("int64")
        one |= {"y": labels, "class_weight": {0: 1.0, 1: 3.0}, "validation_data": None}
    return one


def _from_python(x, y):
    specs = (tf.TensorSpec([8]), tf.TensorSpec([1]))
    rows = tf.data.Dataset.from_generator(
        lambda: zip(x, y, strict=True), output_signature=specs
    )
    return rows.shuffle(50).batch(BATCH_SIZE)


def train(kind, directory, batch=0, *, by_signal=False, **arguments):
    """Trains; returns all that two equal runs have in common."""
    keras.utils.set_random_seed(7)
    data = make_data(kind)
    model = make_model(kind)
    arguments = {"save_freq": 4, "graphs": ["predict"], **arguments}
    saved = MetaGraphCheckpoint(f"{directory}/model", resume=True, **arguments)
    callbacks = [saved]
    if kind == "callbacks":
        plateau = keras.callbacks.ReduceLROnPlateau(
            patience=1, factor=0.5, min_delta=0.1
        )
        stop = keras.callbacks.EarlyStopping(
            patience=2, restore_best_weights=True, min_delta=0.3
        )
        best = MetaGraphCheckpoint(
            f"{directory}/best", save_best_only=True, graphs=["predict"]
        )
        log = keras.callbacks.CSVLogger(f"{directory}/log.csv")
        callbacks = [plateau, best, saved, stop, log]
    kill = Kill(batch, by_signal)
    epochs = 6 if kind == "callbacks" else EPOCHS
    try:
        history = model.fit(
            callbacks=[*callbacks, kill], epochs=epochs, verbose=0, **data
        )
    finally:  # as a process that is killed closes its files and ends its threads
        if kind == "callbacks" and log.csv_file is not None:
            log.csv_file.close()
        if kind == "augmented":
            data["x"].end()
    values = {f"model {i}": v.numpy() for i, v in enumerate(model.variables)}
    slots = enumerate(model.optimizer.variables)
    values |= {f"optimizer {i}": v.numpy() for i, v in slots}
    drawn = [random.random(), np.random.random(), float(keras.random.uniform(()))]
    values["random numbers"] = np.array(drawn)
    values["history"] = np.array(json.dumps([history.history, history.epoch]))
    values["batches of this process"] = np.array(kill.count)
    if kind == "callbacks":
        with open(f"{directory}/log.csv", encoding="utf-8") as file:
            values["log"] = np.array(file.read())
        best = [name for name in os.listdir(directory) if name.startswith("best-")]
        values["best"] = np.array(sorted(best))
    return values


if __name__ == "__main__":
    _, kind, directory, batch = sys.argv
    np.savez(
        f"{directory}/result.npz",
        **train(kind, directory, int(batch), by_signal=True),
    )
