"""Graphs that TensorFlow 1.15 trained go on in Keras, with their optimizers."""

import re
import warnings

import keras
import numpy as np
import pytest

import keras_metagraph
from keras_metagraph.errors import LoweringError
from keras_metagraph.graph.variables import graph_variables
from keras_metagraph.loading.optimizers import keras_optimizers
from keras_metagraph.training.graph_loss import GraphLoss, LossStep

BEFORE, AFTER = 5, 8
KINDS = ("dense", "sparse-resource")
# The class for dense gradients, and the one for sparse ones.
CASES = {
    "adadelta": ("Adadelta", "TF1Adadelta"),
    "adagrad": ("Adagrad", "TF1Adagrad"),
    "adagrad_da": ("TF1AdagradDA", "TF1AdagradDA"),
    "adam": ("Adam", "TF1Adam"),
    "bert": ("BertAdamW", "BertAdamW"),
    "clip_global": ("TF1Adam", "TF1Adam"),
    "clip_global_momentum": ("SGD", "TF1Momentum"),
    "clip_norm": ("TF1Adam", "TF1Adam"),
    "clip_value": ("TF1Adam", "TF1Adam"),
    "contrib_layers": ("TF1Adam", "TF1Adam"),
    "ftrl": ("Ftrl", "TF1Ftrl"),
    "gd": ("SGD", "TF1GradientDescent"),
    "lamb": ("BertLAMB", "BertLAMB"),
    "lazy_adam": ("TF1Adam", "TF1LazyAdam"),
    "momentum": ("SGD", "TF1Momentum"),
    "nesterov": ("SGD", "TF1Momentum"),
    "proximal_adagrad": ("TF1ProximalAdagrad", "TF1ProximalAdagrad"),
    "proximal_gd": ("TF1ProximalGradientDescent", "TF1ProximalGradientDescent"),
    "rmsprop_centered": ("RMSprop", "TF1RMSProp"),
    "rmsprop_momentum": ("RMSprop", "TF1RMSProp"),
    "scaled_and_clipped": ("TF1Adam", "TF1Adam"),
    "scaled_loss": ("SGD", "TF1Momentum"),
    "scheduled_adam": ("TF1Adam", "TF1Adam"),
    "scheduled_gd": ("SGD", "TF1GradientDescent"),
    "scheduled_momentum": ("TF1Momentum", "TF1Momentum"),
    "scheduled_rmsprop": ("RMSprop", "TF1RMSProp"),
}
RESOURCE_ONLY = {
    "decayed": "TF1GradientDescent",
    "keras_adam": "TF1Adam",
    "keras_momentum": "TFKerasSGD",
    "keras_scheduled": "TF1Adam",
    "slow_and_fast": "OptimizerGroup",
    "wide_and_deep": "OptimizerGroup",
}
NOT_CARRIED = {
    "clip_average": "none of tf.clip_by_",
    "clip_by_hand": "once rows with the same index are added",
    "clip_unevenly": "none of tf.clip_by_",
    "decayed_adam": "weight decay of [0.01]",
    "multiplied": "multiplied by {'output/bias': 2.0}",
    "noise": "noise is added to the gradients",
}


@pytest.fixture(scope="module")
def trained(tf115, tmp_path_factory):
    folder = tmp_path_factory.mktemp("optimizers")
    settings = {"folder": folder, "before": BEFORE, "after": AFTER}
    arrays = tf115(
        "optimizer_graphs",
        {},
        {**settings, "cases": [*CASES, "own_unknown"], "kinds": KINDS},
    )
    arrays |= tf115(
        "optimizer_graphs",
        {},
        {**settings, "cases": list(RESOURCE_ONLY), "kinds": ["sparse-resource"]},
    )
    arrays |= tf115(
        "optimizer_graphs",
        {},
        {**settings, "cases": list(NOT_CARRIED), "kinds": ["sparse-resource"]},
    )
    return folder, arrays


class Continued:
    """A graph with its Keras optimizer."""

    def __init__(self, trained, case, kind):
        folder, self.arrays = trained
        self.key = f"{case}/{kind}"
        self.source = "ids" if kind.startswith("sparse") else "x"
        self.model = keras_metagraph.load_from_meta_graph(
            folder / f"{case}-{kind}" / "model",
            inputs={"x": f"{self.source}:0"},
            outputs={"output": "output/BiasAdd:0"},
            labels={"y": "y:0"},
            loss="loss:0",
            train_op="train_op",
        )
        handle = self.model.meta_graph
        self.values = {
            name: keras.ops.convert_to_numpy(v) for name, v in handle.variables.items()
        }
        (self.phase,) = keras_optimizers(
            handle.graph,
            graph_variables(handle.meta_graph_def, handle.graph),
            handle.interface,
            self.values,
            handle.variables,
        )

    def write_back(self):
        return self.phase.write_back(self.model.meta_graph.variables)

    def train(self):
        phase = self.phase
        loss = GraphLoss([LossStep(phase.loss, phase.variables, phase.operations)])
        self.model.compile(phase.optimizer, loss, jit_compile=False)
        losses = []
        for at in range(BEFORE, BEFORE + AFTER):
            batch = {"x": self.arrays[self.source][at]}, {"y": self.arrays["y"][at]}
            losses.append(self.model.train_on_batch(*batch))
            self.model.reset_metrics()
        return losses

    def check(self):
        before = self.write_back()
        for name, value in before.items():
            np.testing.assert_allclose(
                value, self.values[name], rtol=1e-6, err_msg=name
            )
        losses = self.train()
        expected = self.arrays[f"{self.key}/loss"]
        np.testing.assert_allclose(losses, expected, rtol=1e-5)
        state = {
            name: keras.ops.convert_to_numpy(self.model.meta_graph.variables[name])
            for name in self.phase.variables
        } | self.write_back()
        for name, value in state.items():
            recorded = self.arrays[f"{self.key}/v/{name}"]
            bound = 1e-5 * np.max(np.abs(recorded), initial=0.1)
            np.testing.assert_allclose(
                value, recorded, rtol=1e-5, atol=bound, err_msg=name
            )


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("case", CASES)
def test_goes_on_with_the_same_optimizer(trained, case, kind):
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        continued = Continued(trained, case, kind)

    assert type(continued.phase.optimizer).__name__ == CASES[case][kind != "dense"]
    assert continued.phase.optimizer.iterations == BEFORE
    continued.check()


@pytest.mark.filterwarnings("ignore:The training of the graph goes on in Keras")
@pytest.mark.parametrize("case", RESOURCE_ONLY)
def test_goes_on_where_tensorflow_1_has_a_race_with_references(trained, case):
    continued = Continued(trained, case, "sparse-resource")

    assert type(continued.phase.optimizer).__name__ == RESOURCE_ONLY[case]
    continued.check()


@pytest.mark.parametrize("case", NOT_CARRIED)
def test_tells_what_is_not_carried(trained, case):
    with pytest.warns(UserWarning, match=re.escape(NOT_CARRIED[case])):
        continued = Continued(trained, case, "sparse-resource")

    assert any(NOT_CARRIED[case] in text for text in continued.phase.findings)


@pytest.mark.parametrize("kind", ["dense", "sparse-resource"])
def test_refuses_an_optimizer_that_it_does_not_know(trained, kind):
    with pytest.raises(LoweringError, match="output/kernel, output/bias"):
        Continued(trained, "own_unknown", kind)
