"""Keras trains a graph's own loss: all else that the train op does is done as well."""

import json

import keras
import numpy as np
import pytest

from keras_metagraph import load_from_meta_graph
from keras_metagraph.graph.variables import graph_variables
from keras_metagraph.loading.infer import describe_optimizer
from keras_metagraph.training.graph_loss import GraphLoss, LossStep

STEPS = 5
RATE = 0.1  # of the gradient descent in all graphs


def train(kind, seed, tf115, directory):
    """A graph that TensorFlow 1.15 trained, its data, and what came of it."""
    random = np.random.default_rng(seed)
    arrays = {
        "x": random.standard_normal((6, 3), "float32"),
        "y": random.standard_normal(6, "float32"),
    }
    prefix = directory / kind
    args = {"kind": kind, "prefix": prefix, "steps": STEPS}
    return prefix, arrays, tf115("training_graphs", arrays, args)


@pytest.fixture(params=["averages", "recurrent", "adversarial"])
def trained(request, tf115, tmp_path):
    return train(request.param, 2, tf115, tmp_path)


def load(prefix, found):
    names = found["operations"].astype(str).tolist()
    model = load_from_meta_graph(
        prefix, inputs={"x": "x:0"}, labels={"y": "y:0"}, train_op=names
    )
    return model, names


def assert_trains_alike(model, arrays, found):
    history = model.fit(
        {"x": arrays["x"]}, {"y": arrays["y"]}, epochs=STEPS, batch_size=6, verbose=0
    ).history
    np.testing.assert_allclose(history["loss"], found["loss0"], rtol=1e-5)
    for place, tensor in enumerate(found["losses"].astype(str)[1:], 1):
        node = tensor.partition(":")[0]
        np.testing.assert_allclose(history[node], found[f"loss{place}"], rtol=1e-5)
    for name, variable in model.meta_graph.variables.items():
        expected = found[f"after/{name}"]
        np.testing.assert_allclose(variable.numpy(), expected, 1e-5, 1e-6, err_msg=name)


@pytest.fixture(params=["actor_critic", "autoencoder"])
def networks(request, tf115, tmp_path):
    """Networks with losses of their own: in one run, or in turn with shared weights."""
    return train(request.param, 3, tf115, tmp_path)


def test_losses_train_their_own_variables_by_their_own_optimizers(networks, tmp_path):
    prefix, arrays, found = networks
    model, _ = load(prefix, found)
    optimizer = model.meta_graph.optimizer()
    model.compile(optimizer, model.meta_graph.loss())

    data = {"x": arrays["x"]}, {"y": arrays["y"]}
    history = model.fit(*data, epochs=STEPS - 1, batch_size=6, verbose=0).history
    values = model.meta_graph.written_back(optimizer)
    model.save(tmp_path / "model.keras")
    again = keras.saving.load_model(tmp_path / "model.keras")
    last = again.fit(*data, batch_size=6, verbose=0).history

    losses = [*history["loss"], *last["loss"]]
    np.testing.assert_allclose(losses, found["loss0"], rtol=1e-5)
    assert values.keys() == model.meta_graph.variables.keys()
    for path, variable in again.meta_graph.variables.items():
        if variable.trainable:
            np.testing.assert_allclose(
                variable.numpy(), found[f"after/{path}"], 1e-5, 1e-6, err_msg=path
            )


def test_what_keras_trained_goes_on_in_the_graph(networks):
    prefix, arrays, found = networks
    model, _ = load(prefix, found)
    optimizer = model.meta_graph.optimizer()
    model.compile(optimizer, model.meta_graph.loss())
    data = {"x": arrays["x"]}, {"y": arrays["y"]}
    model.fit(*data, epochs=STEPS, batch_size=6, verbose=0)

    values = model.meta_graph.written_back(optimizer)

    for name in model.meta_graph.variables:
        np.testing.assert_allclose(
            values[name], found[f"after/{name}"], 1e-5, 1e-6, err_msg=name
        )


def test_losses_of_one_run_survive_serialization(networks):
    prefix, _, found = networks
    model, _ = load(prefix, found)
    loss = model.meta_graph.loss()
    config = json.loads(json.dumps(loss.get_config()))
    assert GraphLoss.from_config(config).steps == loss.steps


def test_train_ops_run_in_the_order_they_are_named(trained):
    prefix, arrays, found = trained
    model, _ = load(prefix, found)
    assert_trains_alike(model, arrays, found)


def test_an_optimizer_of_keras_takes_the_part_of_the_graphs(trained):
    prefix, arrays, found = trained
    model, names = load(prefix, found)
    meta = model.meta_graph
    variables = graph_variables(meta.meta_graph_def, meta.graph)
    steps = []
    for name, loss in zip(names, found["losses"].astype(str), strict=True):
        (optimizer,) = describe_optimizer(meta.graph, variables, [name])
        steps.append(LossStep(loss, optimizer.variables, (name,)))
    model.compile(keras.optimizers.SGD(RATE), GraphLoss(steps))
    assert_trains_alike(model, arrays, found)
