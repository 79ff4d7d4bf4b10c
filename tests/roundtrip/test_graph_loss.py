"""A model that trains on its graph's own loss is saved and goes on as it would have."""

import keras
import numpy as np
import pytest

from keras_metagraph import load_from_meta_graph, save_meta_graph
from keras_metagraph.training.train_op import TrainOp
from oracle.references import trainable_exports
from parity.test_recorded import load_for_training

EXPORTS = {repr(export): export for export in trainable_exports()}


def fit(model, export, inputs, labels, step):
    arrays = export.training.arrays
    x = {key: arrays[key][step] for key in inputs}
    y = {key: arrays[key][step] for key in labels}
    size = len(next(iter(x.values())))
    return model.fit(x, y, batch_size=size, verbose=0).history["loss"][0]


@pytest.fixture(params=["zoo/mlp_adam", "zoo/cnn_bn_momentum", "zoo/estimator_dnn"])
def trained(request):
    export = EXPORTS[request.param]
    model, inputs, labels = load_for_training(export, compile="keras")
    return model, lambda model, step: fit(model, export, inputs, labels, step)


def assert_goes_on(model, copy, step):
    for place in (2, 3):
        assert step(copy, place) == step(model, place)
    for name, variable in model.meta_graph.variables.items():
        np.testing.assert_array_equal(
            copy.meta_graph.variables[name].numpy(), variable.numpy(), err_msg=name
        )


def test_keras_file(trained, tmp_path):
    model, step = trained
    step(model, 0)
    model.save(tmp_path / "m.keras")
    copy = keras.saving.load_model(tmp_path / "m.keras")
    assert type(copy.optimizer) is type(model.optimizer)
    assert_goes_on(model, copy, step)


def test_meta_graph_of_another_optimizer(trained, tmp_path):
    model, step = trained
    model.compile(keras.optimizers.Nadam(0.01), model.meta_graph.loss())
    step(model, 0)
    copy = load_from_meta_graph(save_meta_graph(model, tmp_path / "m"))
    assert type(copy.optimizer) is keras.optimizers.Nadam
    assert_goes_on(model, copy, step)


def test_the_graph_trains_on_from_where_keras_stopped(trained):
    model, step = trained
    step(model, 0)
    meta = model.meta_graph
    start = meta.written_back(model.optimizer)
    losses = [step(model, place) for place in (1, 2)]
    model.compile(TrainOp(meta.interface.train_op, meta.interface.loss))
    model.island.assign(start)
    found = [step(model, place) for place in (1, 2)]
    np.testing.assert_allclose(found, losses, rtol=1e-6)
