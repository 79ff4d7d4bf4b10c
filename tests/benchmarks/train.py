"""Time of a training step of a loaded graph, against sessions of TensorFlow.

The graphs are bound by compute, and made with TensorFlow 1.15.5 when the program
starts: 13 blocks of convolution and batch normalization at 48 x 48, and two LSTM layers
of 256 units over 40 steps. Peers are `Session.run(train_op)` in 1.15.5, and in the
`compat.v1` of the TensorFlow that is installed. All of them train the same batch from
the same values, and their losses are compared.
"""

import os
import time
from collections.abc import Callable
from pathlib import Path

# Before TensorFlow is imported. oneDNN is as installed.
os.environ["CUDA_VISIBLE_DEVICES"] = ""
os.environ["KERAS_BACKEND"] = "tensorflow"
os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"

import numpy as np
import tensorflow as tf

import keras_metagraph as kmg
from benchmarks import report
from oracle.tf115 import run_tf115

_SCRIPT = "compute_bound_graphs"
_WARM_UP = 2
_KERAS = "Keras's step"
_TRAIN_OP = "the train_op"
_OLD_SESSION = "Session.run, 1.15.5"
_NEW_SESSION = f"Session.run, {tf.__version__}"
tf1 = tf.compat.v1

Steps = tuple[list[float], list[float]]


def batch(name: str, size: int) -> dict[str, np.ndarray]:
    """What all train on."""
    random = np.random.default_rng(7)
    shape = (48, 48, 3) if name == "conv" else (40, 64)
    return {
        "x": random.standard_normal((size, *shape), "float32"),
        "y": random.integers(0, 10, size),
    }


def timed_steps(step: Callable[[], float], steps: int) -> Steps:
    """Seconds of each step but the first, and the losses of all."""
    seconds, losses = [], []
    for _ in range(steps + _WARM_UP):
        start = time.perf_counter()
        losses.append(float(step()))
        seconds.append(time.perf_counter() - start)
    return seconds[_WARM_UP:], losses


def in_old_session(prefix: Path, size: int, steps: int) -> Steps:
    """TensorFlow 1.15.5, in its own process."""
    arrays = batch(prefix.name, size)
    found = run_tf115(_SCRIPT, arrays, {"prefix": prefix, "steps": steps})
    return found["seconds"].tolist(), found["losses"].tolist()


def in_new_session(prefix: Path, size: int, steps: int) -> Steps:
    """The same graph in a session of today's TensorFlow."""
    arrays = batch(prefix.name, size)
    feeds = {"x:0": arrays["x"], "y:0": arrays["y"]}
    with tf.Graph().as_default(), tf1.Session() as session:
        tf1.train.import_meta_graph(f"{prefix}.meta").restore(session, str(prefix))
        return timed_steps(lambda: session.run(["loss:0", "train_op"], feeds)[0], steps)


def by_train_op(prefix: Path, size: int, steps: int) -> Steps:
    """The loaded model, trained by the graph's own operations."""
    return _by_keras(prefix, size, steps, True)


def by_keras(prefix: Path, size: int, steps: int) -> Steps:
    """The loaded model, trained by the optimizer of Keras that was restored."""
    return _by_keras(prefix, size, steps, "keras")


def _by_keras(prefix: Path, size: int, steps: int, compile: bool | str) -> Steps:
    model = kmg.load_from_meta_graph(prefix, compile=compile, loss="loss:0")
    arrays = batch(prefix.name, size)
    return timed_steps(lambda: model.train_on_batch(arrays["x"], arrays["y"]), steps)


WAYS = {
    _KERAS: by_keras,
    _TRAIN_OP: by_train_op,
    _OLD_SESSION: in_old_session,
    _NEW_SESSION: in_new_session,
}


def measure(
    prefix: Path, size: int, steps: int, rounds: int
) -> dict[str, report.Series]:
    """Trains in each way, again and again."""
    found = {way: report.Series() for way in WAYS}
    expected = None
    for _ in range(rounds):
        for way, train in WAYS.items():
            seconds, losses = report.isolated(train, prefix, size, steps)
            found[way].seconds.extend(seconds)
            expected = losses if expected is None else expected
            np.testing.assert_allclose(losses, expected, rtol=1e-2)
    return found


def main() -> None:
    """See above."""
    given = report.arguments(__doc__.splitlines()[0])
    report.say_where()
    size, steps = (4, 2) if given.quick else (32, 10)
    with report.scratch(given.directory) as folder:
        run_tf115(_SCRIPT, args={"folder": folder, "small": given.quick})
        measured = {
            name: measure(folder / name, size, steps, given.rounds)
            for name in ("conv", "lstm")
            if name.startswith(given.only)
        }
    rows = [[way, *(str(each[way]) for each in measured.values())] for way in WAYS]
    report.table("A training step", ["", *measured], rows)
    pairs = [
        (ours, peer)
        for ours in (_KERAS, _TRAIN_OP)
        for peer in (_OLD_SESSION, _NEW_SESSION)
    ]
    report.ratios("A training step", pairs, measured)


if __name__ == "__main__":
    main()
