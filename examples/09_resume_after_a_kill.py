"""Kills a training twice, resumes it, and compares it with one that was left alone.

The program starts itself with the same `fit`. Two processes end by SIGKILL, in the
middle of epochs; this one goes on, and what comes out is the same to the last bit:
weights, optimizer and history.
"""

import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import itertools
import json
import signal
import subprocess
import sys
import tempfile

import keras
import numpy as np
from rich.console import Console
from rich.table import Table

import keras_metagraph as kmg


def train(folder: str, kill_after: int = 0) -> tuple[list[np.ndarray], str]:
    """Trains; returns the values of all variables, and the history."""
    keras.utils.set_random_seed(7)
    x = np.random.normal(size=(200, 8)).astype("float32")  # noqa: NPY002
    y = x.sum(axis=1, keepdims=True)
    batches = itertools.count(1)

    def count_down(batch: int, logs: dict) -> None:
        if next(batches) == kill_after:
            os.kill(os.getpid(), signal.SIGKILL)

    layers = keras.layers
    model = keras.Sequential(
        [
            keras.Input([8]),
            layers.Dense(16, "relu"),
            layers.Dropout(0.2),
            layers.Dense(1),
        ]
    )
    model.compile("adam", "mse", metrics=["mae"])
    callbacks = [
        kmg.MetaGraphCheckpoint(f"{folder}/model", save_freq=3, resume=True, verbose=1),
        keras.callbacks.ReduceLROnPlateau("loss", patience=1, min_delta=1.0),
        keras.callbacks.LambdaCallback(on_train_batch_end=count_down),
    ]
    history = model.fit(x, y, batch_size=20, epochs=3, callbacks=callbacks, verbose=0)
    variables = [*model.variables, *model.optimizer.variables]
    return [v.numpy() for v in variables], json.dumps(history.history)


if len(sys.argv) > 1:
    train(sys.argv[1], int(sys.argv[2]))
else:
    table = Table("training", "ended", "loss of its epochs", title_justify="left")
    with (
        tempfile.TemporaryDirectory() as alone,
        tempfile.TemporaryDirectory() as folder,
    ):
        expected, history = train(alone)
        table.add_row("left alone", "by itself", str(json.loads(history)["loss"]))
        for batches in ("14", "11"):
            ended = subprocess.run(
                [sys.executable, __file__, folder, batches], check=False
            )
            assert ended.returncode == -signal.SIGKILL
            table.add_row("killed", f"after {batches} batches", "")
        values, resumed = train(folder)
        table.add_row("resumed", "by itself", str(json.loads(resumed)["loss"]))
    assert resumed == history
    assert all(map(np.array_equal, values, expected))
    Console().print(table)
