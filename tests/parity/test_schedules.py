"""Learning rates of graphs that TensorFlow 1.15 wrote, against the rates it had."""

import numpy as np
import pytest
import tensorflow as tf

from keras_metagraph.graph.from_proto import graph_from_proto
from keras_metagraph.graph.passes import repair
from keras_metagraph.graph.variables import graph_variables
from keras_metagraph.loading.infer.schedules import infer_schedule

STEPS = sorted(
    {
        *(0, 1, 2, 5, 9, 10, 11, 19, 20, 21, 29, 30, 31, 39, 40, 41, 49, 50, 51, 52),
        *(59, 60, 61, 100, 119, 120, 121, 199, 200, 201, 1000, 100000),
    }
)
KINDS = {
    "constant": "float",
    "exponential": "ExponentialDecay",
    "staircase": "ExponentialDecay",
    "epochs": "ExponentialDecay",
    "halved": "ExponentialDecay",
    "fed_and_decayed": "ExponentialDecay",
    "natural": "NaturalExpDecay",
    "natural_stairs": "NaturalExpDecay",
    "inverse": "InverseTimeDecay",
    "inverse_stairs": "InverseTimeDecay",
    "decay_of_variables": "InverseTimeDecay",
    "polynomial": "PolynomialDecay",
    "power": "PolynomialDecay",
    "root": "PolynomialDecay",
    "piecewise": "PiecewiseConstantDecay",
    "by_case": "PiecewiseConstantDecay",
    "cosine": "CosineDecay",
    "cosine_to_0": "CosineDecay",
    "restarts": "CosineDecayRestarts",
    "restarts_lower": "CosineDecayRestarts",
    "linear_cosine": "LinearCosineDecay",
    "linear_cosine_4": "LinearCosineDecay",
    "bert": "LinearWarmup",
    "noam": "GraphSchedule",
    "by_cond": "GraphSchedule",
    "clipped": "GraphSchedule",
    "sum": "GraphSchedule",
    "variable_rate": "float",
}
VALUES = {"rate": 0.03, "lr": 0.01, "decay": 0.004}


@pytest.fixture(scope="module")
def rates(tf115, tmp_path_factory):
    folder = tmp_path_factory.mktemp("schedules")
    return folder, tf115("schedules", {}, {"folder": folder, "steps": STEPS})


def inferred(folder, name, kind, **arguments):
    data = (folder / f"{name}-{kind}.meta").read_bytes()
    meta = tf.compat.v1.MetaGraphDef.FromString(data)
    source = graph_from_proto(meta.graph_def)
    variables, graph = graph_variables(meta, source), repair(source)
    values = {
        name: np.full(v.shape, VALUES.get(name, 0), v.dtype.as_numpy_dtype)
        for name, v in variables.items()
    }
    update = next(n for n in graph.nodes.values() if "ApplyGradient" in n.op)
    run = graph.ancestors(["train_op"])
    rate = update.inputs[1]
    return infer_schedule(graph, variables, rate, values, written=run, **arguments)


@pytest.mark.parametrize("kind", ["ref", "resource"])
@pytest.mark.parametrize("name", [*KINDS, "cycle", "counting"])
def test_has_the_rates_of_the_graph(rates, name, kind):
    folder, recorded = rates

    found = inferred(folder, name, kind)

    steps = [step + found.offset for step in STEPS]
    value = found.value
    rate = [float(value(np.int64(s))) if callable(value) else value for s in steps]
    np.testing.assert_allclose(rate, recorded[f"{name}/{kind}"], rtol=3e-6, atol=1e-9)
    if name in KINDS:
        assert type(value).__name__ == KINDS[name]


@pytest.mark.parametrize("kind", ["ref", "resource"])
def test_refuses_a_random_rate_by_name(rates, kind):
    found = inferred(rates[0], "noisy", kind)

    assert found.value is None
    assert "NoisyLinearCosineDecay" in found.problem
    assert "RandomStandardNormal" in found.problem


def test_says_how_to_give_a_rate_that_is_fed(rates):
    found = inferred(rates[0], "fed", "ref")

    assert found.value is None
    assert "lr:0" in found.problem
    assert "feeds={'lr:0': 0.01}" in found.fix
    assert inferred(rates[0], "fed", "ref", feeds={"lr:0": 0.25}).value == 0.25
