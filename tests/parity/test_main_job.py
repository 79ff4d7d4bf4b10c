"""The main job: a file of TensorFlow 1 trains in Keras, and TensorFlow 1 goes on."""

import numpy as np
import pytest

from keras_metagraph import MetaGraphCheckpoint
from oracle.references import Export, trainable_exports
from parity.test_recorded import load_for_training


@pytest.mark.parametrize("trainer", [True, "keras"], ids=["train_op", "keras"])
@pytest.mark.parametrize("export", trainable_exports(), ids=repr)
def test_tensorflow_1_goes_on_from_what_the_callback_wrote(
    export: Export, trainer, tmp_path, tf115
):
    """By the train op of the graph, or by the Keras optimizer that is read off it."""
    training = export.training
    half = len(training.losses) // 2
    model, inputs, labels = load_for_training(export, compile=trainer)
    callback = MetaGraphCheckpoint(tmp_path / "model", save_freq="epoch")
    losses = []
    for step in range(half):
        x = {key: training.arrays[key][step] for key in inputs}
        y = {key: training.arrays[key][step] for key in labels}
        history = model.fit(
            x,
            y,
            batch_size=len(next(iter(x.values()))),
            shuffle=False,
            verbose=0,
            callbacks=[callback] if step == half - 1 else [],
        )
        losses += history.history["loss"]
    (meta,) = tmp_path.glob("*.meta")
    steps = {name: training.arrays[key] for key, name in training.feeds.items()}
    rest = tf115(
        "session",
        {f"step/{name}": values[half:] for name, values in steps.items()},
        {
            "meta": meta,
            "checkpoint": meta.with_suffix(""),
            "loss": training.loss,
            "train_op": training.train_op,
            "constants": training.constants,
            "edits": training.edits,
        },
    )
    losses += rest["losses"].tolist()
    np.testing.assert_allclose(losses, training.losses, rtol=1e-5)
    for name, expected in {**training.after, **training.after_state}.items():
        found = rest[f"after/{name}"]
        np.testing.assert_allclose(found, expected, 1e-4, 1e-4, err_msg=name)
