"""The checked-in exports of real releases, against what those releases recorded."""

import numpy as np
import pytest
import tensorflow as tf

from keras_metagraph import load_from_meta_graph
from oracle.references import Export, exports, trainable_exports

# Adam scales the rounding of a gradient that is zero: an attention key's bias.
AFTER = 1e-4


def assert_equal_values(found, expected, tolerance, name):
    found = np.asarray(found)
    if expected.dtype.kind == "S":
        assert found.astype("S").tolist() == expected.tolist(), name
    else:
        np.testing.assert_allclose(found, expected, tolerance, tolerance, err_msg=name)


def load_for_inference(export: Export):
    inputs = {k: v for k, v in export.feeds.items() if v != export.is_training}
    model = load_from_meta_graph(
        export.source.path,
        tags=export.source.tags,
        inputs=inputs,
        outputs=export.fetches,
        rebuild="graph",
    )
    return model, {key: export.inputs[key] for key in inputs}


def load_for_training(export: Export, **kwargs):
    """A model with the inputs and labels of the recorded steps, flags baked in."""
    training = export.training
    known = set(export.feeds.values())
    inputs = {k: v for k, v in training.feeds.items() if v in known}
    inputs = inputs or {k: v for k, v in training.feeds.items() if k != "y"}
    labels = {k: v for k, v in training.feeds.items() if k not in inputs}
    edits = {f"{node}:0": value for node, value in training.edits.items()}
    model = load_from_meta_graph(
        training.source.path,
        tags=training.source.tags,
        inputs=inputs,
        labels=labels,
        loss=training.loss,
        train_op=training.train_op,
        feeds=edits | training.constants,
        rebuild="graph",
        **kwargs,
    )
    return model, inputs, labels


@pytest.mark.parametrize("export", exports(), ids=repr)
def test_predictions(export):
    model, inputs = load_for_inference(export)
    outputs = model(inputs)
    assert sorted(outputs) == sorted(export.outputs)
    for key, expected in export.outputs.items():
        assert_equal_values(outputs[key], expected, 1e-5, key)


@pytest.mark.parametrize("export", trainable_exports(), ids=repr)
def test_further_steps_by_the_train_op(export):
    model, inputs, labels = load_for_training(export)
    training = export.training
    losses = []
    for step in range(len(training.losses)):
        x = {key: training.arrays[key][step] for key in inputs}
        y = {key: training.arrays[key][step] for key in labels}
        size = len(next(iter(x.values())))
        history = model.fit(x, y, batch_size=size, shuffle=False, verbose=0)
        losses += history.history["loss"]
    np.testing.assert_allclose(losses, training.losses, rtol=1e-5)
    variables = model.meta_graph.variables
    for name, expected in {**training.after, **training.after_state}.items():
        np.testing.assert_allclose(
            variables[name].numpy(), expected, AFTER, AFTER, err_msg=name
        )


@pytest.mark.parametrize("export", trainable_exports(), ids=repr)
def test_further_steps_by_the_keras_optimizer(export):
    model, inputs, labels = load_for_training(export, compile="keras")
    training = export.training
    losses = []
    for step in range(len(training.losses)):
        x = {key: training.arrays[key][step] for key in inputs}
        y = {key: training.arrays[key][step] for key in labels}
        losses.append(model.train_on_batch(x, y))
        model.reset_metrics()
    np.testing.assert_allclose(losses, training.losses, rtol=1e-5)
    values = model.meta_graph.written_back(model.optimizer)
    for name, expected in {**training.after, **training.after_state}.items():
        np.testing.assert_allclose(values[name], expected, AFTER, AFTER, err_msg=name)
    print(f"{export}: {describe(model.optimizer)}")


def describe(optimizer):
    """The optimizer that was recovered, with what its class does not say."""
    inner = getattr(optimizer, "optimizers", [])
    if inner:
        return " + ".join(describe(each) for each in inner)
    rate = optimizer.get_config()["learning_rate"]
    rate = rate["class_name"] if isinstance(rate, dict) else f"{rate:.4g}"
    return f"{type(optimizer).__name__}({rate})"


@pytest.mark.parametrize("export", trainable_exports(), ids=repr)
def test_gradients_through_the_island(export):
    """Keras's gradient of the loss against the gradient tensors of the file."""
    model, inputs, labels = load_for_training(export)
    meta, training = model.meta_graph, export.training
    feeds = {name: training.arrays[key][0] for key, name in training.feeds.items()}
    gradients = gradient_tensors(meta)
    loss_model = meta.fetch(training.loss, inputs={**inputs, **labels})
    batch = {
        key: meta.executor.fit(name, feeds[name])
        for key, name in {**inputs, **labels}.items()
    }
    weights = {name: meta.variables[name].value for name in gradients}
    with tf.GradientTape() as tape:
        loss = loss_model(batch)
    found = tape.gradient(loss, weights)
    np.testing.assert_allclose(loss, training.losses[0], rtol=1e-5)
    expected = meta.run(gradients, {**feeds, **training.constants})
    for name in gradients:
        sparse = isinstance(found[name], tf.IndexedSlices)
        value = found[name].values if sparse else found[name]
        np.testing.assert_allclose(value, expected[name], 1e-5, 1e-6, err_msg=name)


def gradient_tensors(meta):
    """The gradient of each variable that the graph trains: the rows of a sparse one."""
    place = {
        "ApplyAdadelta": 6,
        "ApplyAdagrad": 3,
        "ApplyAdam": 9,
        "ApplyFtrl": 3,
        "ApplyGradientDescent": 2,
        "ApplyMomentum": 3,
        "ApplyRMSProp": 7,
    }
    found = {}
    for node in meta.graph.nodes.values():
        index = place.get(node.op.removeprefix("Resource"))
        if index is not None:
            found[node.inputs[0].node] = str(node.inputs[index])
    return found or clipped_gradient_tensors(meta)


def clipped_gradient_tensors(meta):
    """The same for BERT's optimizer, which is Python: what its clipping takes.

    The gradients stand in the order of the trainable variables.
    """
    nodes = meta.graph.nodes.values()
    norms = [node for node in nodes if node.name.startswith("global_norm/L2")]
    names = meta.collections["trainable_variables"]
    return {
        name.removesuffix(":0"): str(node.inputs[0])
        for name, node in zip(names, norms, strict=True)
    }
