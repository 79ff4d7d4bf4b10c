"""Goes on with a model that TensorFlow 1.15 saved in the middle of its training.

The export in the repository is inspected, loaded, evaluated, trained on with its own
train op, saved by the callback and loaded again; a table at the end says what happened.
"""

import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import tempfile
from pathlib import Path

import keras
import numpy as np
from rich.console import Console
from rich.table import Table

import keras_metagraph as kmg

EXPORT = Path(__file__).parents[1] / "tests/fixtures/zoo/mlp_adam"

console = Console()
table = Table(title="What happened", title_justify="left")
for title in ("stage", "step", "loss", "accuracy", "files"):
    table.add_column(title)

with np.load(EXPORT / "reference.npz") as recorded:  # what TensorFlow 1.15 did
    fed, answer = recorded["in/x"], recorded["out/logits"]
    x, y = recorded["train_x"].reshape(-1, 12), recorded["train_y"].ravel()
    losses = recorded["train_losses"]  # of its next 8 steps, without dropout


def note(stage: str, model: keras.Model, folder: Path | None = None) -> float:
    """Evaluates a model, and writes a line about it into the table."""
    step = int(model.optimizer.iterations)
    loss = model.evaluate(x, y, verbose=0)
    classes = model.meta_graph.run("classes:0", {"x:0": x})
    files = sorted(p.name for p in folder.glob(f"*-{step}.*")) if folder else []
    row = (stage, str(step), f"{loss:.4f}", f"{np.mean(classes == y):.0%}")
    table.add_row(*row, "\n".join(files))
    return loss


console.rule("What the file holds; nothing of it is run")
console.print(kmg.inspect_meta_graph(EXPORT))

console.rule("The steps that TensorFlow 1.15 took next")
twin = kmg.load_from_meta_graph(EXPORT, feeds={"is_training:0": False})
steps = twin.fit(x, y, batch_size=16, shuffle=False, verbose=0)
console.print(
    f"mean loss {losses.mean():.7f} there, {steps.history['loss'][0]:.7f} here"
)

console.rule("Training with the graph's own train op, dropout on")
model = kmg.load_from_meta_graph(EXPORT)
model.summary()
error = np.abs(model.predict(fed, verbose=0)["logits"] - answer).max()
loaded = note("loaded", model, EXPORT)

with tempfile.TemporaryDirectory() as folder:
    run = Path(folder) / "run"
    checkpoint = kmg.MetaGraphCheckpoint(run / "model", verbose=1)
    model.fit(x, y, batch_size=16, epochs=3, callbacks=[checkpoint], verbose=2)
    trained = note("trained on, saved", model, run)

    again = kmg.load_from_meta_graph(run)  # the newest checkpoint in the folder
    reloaded = note("loaded again", again)
    again.fit(x, y, batch_size=16, epochs=3, verbose=0)
    note("trained on", again)

console.print(table)
assert error < 1e-5
assert np.isclose(steps.history["loss"][0], losses.mean(), rtol=1e-5)
assert trained < loaded
assert reloaded == trained
assert int(again.optimizer.iterations) == 20 + 2 * 3 * 8
