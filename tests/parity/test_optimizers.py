"""Training that changes between TensorFlow 1.15.5 and Keras goes on as if it had not.

For each optimizer: fifty steps in TensorFlow 1.15.5 and fifty more in Keras, and the
mirror image, against a hundred in TensorFlow 1.15.5. `pytest -s` prints the table.
"""

import dataclasses
from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_metagraph.training import optimizers as own
from keras_metagraph.training.rules import slot_suffixes
from keras_metagraph.training.slots import optimizer_slots

HALF, WHOLE = 50, 100
TOLERANCE = 1e-5
DENSE = ("kernel", "bias")
ALL = ("embedding", *DENSE)
KINDS = ("dense", "sparse", "state")


@dataclasses.dataclass(frozen=True)
class Case:
    """An optimizer of TensorFlow 1 and the one of Keras that goes on for it.

    Attributes:
        tf1: The former, as an expression of `scripts/optimizers.py`.
        make: Makes the latter for a learning rate.
        rate: The learning rate.
        variables: What is trained: rows of `embedding` have sparse gradients.
        slots: By Keras's names of the slots, tf.keras's; those of `tf.train` are what
            `slot_suffixes` says.
        powers: The powers that are part of TensorFlow 1's state.
        schedulable: Whether the rate may be a schedule.
    """

    tf1: str
    make: Callable[[Any], Any]
    rate: float = 0.05
    variables: tuple[str, ...] = ALL
    slots: dict[str, str] = dataclasses.field(default_factory=dict)
    powers: tuple[str, ...] = ()
    schedulable: bool = True

    @property
    def tf_keras(self) -> str:
        """What tf.keras puts before the names of slots; empty for `tf.train`."""
        module, _, rest = self.tf1.partition(".")
        return f"{rest.partition('(')[0]}/" if module == "keras" else ""


BETA1 = ("beta1_power",)
BETAS = (*BETA1, "beta2_power")
KERAS_BETAS = {"beta1_power": "beta_1", "beta2_power": "beta_2"}
MOMENTS = {"momentum": "m", "velocity": "v"}
REGULARIZED = {
    "l1_regularization_strength": 0.01,
    "l2_regularization_strength": 0.02,
}
L1_L2 = "l1_regularization_strength=0.01, l2_regularization_strength=0.02"

CASES = {
    "GradientDescent": Case(
        "tf.train.GradientDescentOptimizer(rate)", own.TF1GradientDescent
    ),
    "Momentum": Case(
        "tf.train.MomentumOptimizer(rate, 0.9)",
        lambda rate: own.TF1Momentum(rate, 0.9),
        0.01,
    ),
    "Momentum, Nesterov": Case(
        "tf.train.MomentumOptimizer(rate, 0.9, use_nesterov=True)",
        lambda rate: own.TF1Momentum(rate, 0.9, use_nesterov=True),
        0.01,
    ),
    "Adam": Case("tf.train.AdamOptimizer(rate)", own.TF1Adam, powers=BETAS),
    "RMSProp": Case("tf.train.RMSPropOptimizer(rate)", own.TF1RMSProp),
    "RMSProp, momentum": Case(
        "tf.train.RMSPropOptimizer(rate, momentum=0.8, epsilon=1e-3)",
        lambda rate: own.TF1RMSProp(rate, momentum=0.8, epsilon=1e-3),
        0.01,
    ),
    "RMSProp, centered": Case(
        "tf.train.RMSPropOptimizer(rate, momentum=0.5, centered=True)",
        lambda rate: own.TF1RMSProp(rate, momentum=0.5, centered=True),
        0.01,
    ),
    "Adagrad": Case("tf.train.AdagradOptimizer(rate)", own.TF1Adagrad),
    "AdagradDA": Case(
        f"tf.train.AdagradDAOptimizer(rate, global_step, {L1_L2})",
        lambda rate: own.TF1AdagradDA(rate, **REGULARIZED),
        0.5,
    ),
    "ProximalAdagrad": Case(
        f"tf.train.ProximalAdagradOptimizer(rate, {L1_L2})",
        lambda rate: own.TF1ProximalAdagrad(rate, **REGULARIZED),
    ),
    "ProximalGradientDescent": Case(
        f"tf.train.ProximalGradientDescentOptimizer(rate, {L1_L2})",
        lambda rate: own.TF1ProximalGradientDescent(rate, **REGULARIZED),
    ),
    "Adadelta": Case(
        "tf.train.AdadeltaOptimizer(rate, epsilon=1e-4)",
        lambda rate: own.TF1Adadelta(rate, epsilon=1e-4),
        1.0,
    ),
    "Ftrl": Case("tf.train.FtrlOptimizer(rate)", own.TF1Ftrl, 0.2),
    "Ftrl, regularized": Case(
        f"tf.train.FtrlOptimizer(rate, -0.7, {L1_L2})",
        lambda rate: own.TF1Ftrl(rate, -0.7, **REGULARIZED),
        0.2,
    ),
    "Ftrl, shrinkage": Case(
        f"tf.train.FtrlOptimizer(rate, {L1_L2}, "
        "l2_shrinkage_regularization_strength=0.03)",
        lambda rate: own.TF1Ftrl(
            rate, **REGULARIZED, l2_shrinkage_regularization_strength=0.03
        ),
        0.2,
    ),
    "contrib AdaMax": Case("opt.AdaMaxOptimizer(rate)", own.TF1AdaMax, powers=BETA1),
    "contrib LazyAdam": Case(
        "opt.LazyAdamOptimizer(rate)", own.TF1LazyAdam, powers=BETAS
    ),
    "contrib Nadam": Case("opt.NadamOptimizer(rate)", own.TF1Nadam, powers=BETAS),
    "contrib AddSign": Case("opt.AddSignOptimizer(rate)", own.TF1AddSign),
    "contrib PowerSign": Case(
        "opt.PowerSignOptimizer(rate, base=1.5)",
        lambda rate: own.TF1PowerSign(rate, base=1.5),
    ),
    "contrib AdamW": Case(
        "opt.AdamWOptimizer(0.01, rate)",
        lambda rate: own.TF1AdamW(0.01, rate),
        powers=BETAS,
    ),
    "contrib MomentumW": Case(
        "opt.MomentumWOptimizer(0.01, rate, 0.9)",
        lambda rate: own.TF1MomentumW(0.01, rate, 0.9),
        0.01,
    ),
    "BERT AdamW": Case(
        "BertAdamW(rate, 0.02, ['bias'])",
        lambda rate: own.BertAdamW(
            rate, weight_decay_rate=0.02, exclude_from_weight_decay=["bias"]
        ),
    ),
    "ALBERT LAMB": Case(
        "BertLAMB(rate, 0.02, ['bias'])",
        lambda rate: own.BertLAMB(
            rate, weight_decay_rate=0.02, exclude_from_weight_decay=["bias"]
        ),
    ),
    "Ftrl and Adagrad": Case(
        "WideAndDeep(rate)",
        lambda rate: own.OptimizerGroup(
            [own.TF1Ftrl(rate), own.TF1Adagrad(rate)],
            {"embedding": 0, "kernel": 1, "bias": 1},
        ),
        0.2,
    ),
    "tf.keras SGD": Case("keras.SGD(rate)", own.TFKerasSGD),
    "tf.keras SGD, momentum": Case(
        "keras.SGD(rate, 0.9)",
        lambda rate: own.TFKerasSGD(rate, 0.9),
        0.01,
        slots={"momentum": "momentum"},
    ),
    "tf.keras SGD, Nesterov": Case(
        "keras.SGD(rate, 0.9, nesterov=True)",
        lambda rate: own.TFKerasSGD(rate, 0.9, nesterov=True),
        0.01,
        slots={"momentum": "momentum"},
    ),
    "tf.keras Adam": Case("keras.Adam(rate)", own.TFKerasAdam, slots=MOMENTS),
    "tf.keras AMSGrad": Case(
        "keras.Adam(rate, amsgrad=True)",
        lambda rate: own.TFKerasAdam(rate, amsgrad=True),
        slots={**MOMENTS, "velocity_hat": "vhat"},
    ),
    "tf.keras RMSprop": Case(
        "keras.RMSprop(rate)", own.TFKerasRMSprop, slots={"velocity": "rms"}
    ),
    "tf.keras RMSprop, centered": Case(
        "keras.RMSprop(rate, epsilon=0.01, centered=True)",
        lambda rate: own.TFKerasRMSprop(rate, epsilon=0.01, centered=True),
        slots={"velocity": "rms", "average_gradient": "mg"},
    ),
    "tf.keras RMSprop, momentum": Case(
        "keras.RMSprop(rate, momentum=0.8)",
        lambda rate: own.TFKerasRMSprop(rate, momentum=0.8),
        0.01,
        slots={"velocity": "rms", "momentum": "momentum"},
    ),
    "tf.keras Adagrad": Case(
        "keras.Adagrad(rate, epsilon=0.01)",
        lambda rate: own.TFKerasAdagrad(rate, epsilon=0.01),
        slots={"accumulator": "accumulator"},
    ),
    "tf.keras Adadelta": Case(
        "keras.Adadelta(rate, epsilon=1e-4)",
        lambda rate: own.TF1Adadelta(rate, epsilon=1e-4),
        1.0,
        slots={"accumulated_grad": "accum_grad", "accumulated_delta_var": "accum_var"},
    ),
    "tf.keras Adamax": Case(
        "keras.Adamax(rate)",
        lambda rate: own.TF1AdaMax(rate, epsilon=1e-7),
        slots={"momentum": "m", "norm": "v"},
    ),
    "tf.keras Nadam": Case(
        "keras.Nadam(rate)", own.TFKerasNadam, slots=MOMENTS, schedulable=False
    ),
    "tf.keras Ftrl": Case(
        "keras.Ftrl(rate)",
        own.TF1Ftrl,
        0.2,
        slots={"accumulator": "accumulator", "linear": "linear"},
    ),
    # Keras's own classes, as far as they are the same: for dense gradients.
    "Keras SGD": Case("tf.train.GradientDescentOptimizer(rate)", keras.optimizers.SGD),
    "Keras Adam": Case(
        "tf.train.AdamOptimizer(rate)",
        lambda rate: keras.optimizers.Adam(rate, epsilon=1e-8),
        variables=DENSE,
        powers=BETAS,
    ),
    "Keras Adam, beta_2=0.99": Case(
        "tf.train.AdamOptimizer(rate, beta2=0.99)",
        lambda rate: keras.optimizers.Adam(rate, beta_2=0.99, epsilon=1e-8),
        variables=DENSE,
        powers=BETAS,
    ),
    "Keras RMSprop": Case(
        "tf.train.RMSPropOptimizer(rate)",
        lambda rate: keras.optimizers.RMSprop(rate, epsilon=1e-10),
        variables=DENSE,
    ),
    "Keras RMSprop, centered": Case(
        "tf.train.RMSPropOptimizer(rate, momentum=0.5, centered=True)",
        lambda rate: keras.optimizers.RMSprop(
            rate, momentum=0.5, epsilon=1e-10, centered=True
        ),
        0.01,
        variables=DENSE,
    ),
    "Keras Adagrad": Case(
        "tf.train.AdagradOptimizer(rate)",
        lambda rate: keras.optimizers.Adagrad(rate, epsilon=0.0),
        variables=DENSE,
    ),
    "Keras Adadelta": Case(
        "tf.train.AdadeltaOptimizer(rate, epsilon=1e-4)",
        lambda rate: keras.optimizers.Adadelta(rate, epsilon=1e-4),
        1.0,
        variables=DENSE,
    ),
    "Keras Ftrl": Case(
        f"tf.train.FtrlOptimizer(rate, {L1_L2}, "
        "l2_shrinkage_regularization_strength=0.03)",
        lambda rate: keras.optimizers.Ftrl(
            rate, **REGULARIZED, l2_shrinkage_regularization_strength=0.03
        ),
        0.2,
        variables=DENSE,
    ),
    "Keras Adamax": Case(
        "opt.AdaMaxOptimizer(rate)",
        lambda rate: keras.optimizers.Adamax(rate, epsilon=1e-8),
        variables=DENSE,
        powers=BETA1,
    ),
    "Keras SGD, momentum": Case(
        "keras.SGD(rate, 0.9)",
        lambda rate: keras.optimizers.SGD(rate, 0.9),
        0.01,
        variables=DENSE,
        slots={"momentum": "momentum"},
    ),
    "Keras AMSGrad": Case(
        "keras.Adam(rate, amsgrad=True)",
        lambda rate: keras.optimizers.Adam(rate, amsgrad=True),
        variables=DENSE,
        slots={**MOMENTS, "velocity_hat": "vhat"},
    ),
}
RUNS = [
    (name, scheduled)
    for name, case in CASES.items()
    for scheduled in ((False, True) if case.schedulable else (False,))
]
OWN_RUNS = [run for run in RUNS if not run[0].startswith("Keras ")]


class Trained:
    """Variables and an optimizer in Keras, whose state has TensorFlow 1's names."""

    def __init__(self, name: str, scheduled: bool, data: dict[str, np.ndarray]) -> None:
        self.case = CASES[name]
        self.data = {k: v for k, v in data.items() if k.startswith("data/")}
        self.variables = {
            key: keras.Variable(data[f"start/{key}"], name=key)
            for key in self.case.variables
        }
        rate: Any = self.case.rate
        if scheduled:
            rate = keras.optimizers.schedules.ExponentialDecay(rate, 10, 0.9)
        self.optimizer = self.case.make(rate)
        self.optimizer.build(list(self.variables.values()))

    def optimizer_of(self, key: str) -> Any:
        """The optimizer of a variable, which may be one of a group."""
        if isinstance(self.optimizer, own.OptimizerGroup):
            return self.optimizer.optimizers[self.optimizer.assignments[key]]
        return self.optimizer

    def state(self) -> dict[str, Any]:
        """Variables of the optimizer and the model, by the names in TensorFlow 1."""
        slots = optimizer_slots(self.optimizer, list(self.variables.values()))
        found: dict[str, Any] = dict(self.variables)
        for key, own_slots in zip(self.variables, slots, strict=True):
            names = self.case.slots or slot_suffixes(self.optimizer_of(key))
            # All of them, so that none is left at what it starts with.
            assert own_slots.keys() <= names.keys()
            found |= {
                f"{self.case.tf_keras}{key}/{names[slot]}": variable
                for slot, variable in own_slots.items()
            }
        if self.case.tf_keras == "Nadam/":
            found["Nadam/momentum_cache"] = self.optimizer.momentum_cache
        for power in self.case.powers:
            if hasattr(self.optimizer, power):
                found[power] = getattr(self.optimizer, power)
        return found

    @property
    def step(self) -> str:
        """The name of the count of the steps."""
        return f"{self.case.tf_keras}iter" if self.case.tf_keras else "global_step"

    def restore(self, values: dict[str, np.ndarray]) -> None:
        """Takes over a state of TensorFlow 1."""
        for name, variable in self.state().items():
            variable.assign(values[name])
        for optimizer in {self.optimizer, *map(self.optimizer_of, self.variables)}:
            optimizer.iterations.assign(values[self.step])
        if self.case.tf_keras == "Adamax/":
            power = np.power(0.9, values[self.step] + 1.0)
            self.optimizer.beta1_power.assign(power)

    def values(self) -> dict[str, np.ndarray]:
        """The state, as TensorFlow 1 takes it over."""
        step = np.array(self.optimizer.iterations)
        found = {name: np.array(v) for name, v in self.state().items()}
        for power in self.case.powers:
            if power not in found:
                beta = getattr(self.optimizer, KERAS_BETAS[power])
                found[power] = np.float32(beta ** (step + 1.0))
        return {**found, "global_step": step, self.step: step}

    def train(self, start: int, stop: int) -> None:
        """Takes the steps from one to before the other."""
        weights = list(self.variables.values())

        @tf.function
        def train_step(ids, wanted, x, y):
            with tf.GradientTape() as tape:
                loss = 0.0
                if "embedding" in self.variables:
                    rows = tf.gather(self.variables["embedding"].value, ids)
                    loss += tf.reduce_mean(tf.square(tf.reduce_sum(rows, 1) - wanted))
                output = tf.matmul(x, self.variables["kernel"].value)
                output += self.variables["bias"].value
                loss += tf.reduce_mean(tf.square(output - y))
            gradients = tape.gradient(loss, [weight.value for weight in weights])
            self.optimizer.apply(gradients, weights)

        for step in range(start, stop):
            train_step(*(tf.constant(value[step]) for value in self.data.values()))


def differences(
    found: dict[str, np.ndarray], expected: dict[str, np.ndarray]
) -> dict[str, float]:
    """The largest of each kind, as a part of the largest number in the variable."""
    kinds = dict.fromkeys(KINDS, 0.0)
    for key, value in expected.items():
        if key in found and value.dtype.kind == "f":
            kind = {"embedding": "sparse", **dict.fromkeys(DENSE, "dense")}.get(key)
            size = max(np.max(np.abs(value)), np.finfo("float32").tiny)
            difference = np.max(np.abs(found[key] - value)) / size
            kinds[kind or "state"] = max(kinds[kind or "state"], float(difference))
    return kinds


@pytest.fixture(scope="module")
def data() -> dict[str, np.ndarray]:
    """A batch for each step; of the rows of the table, one is never used."""
    rng = np.random.default_rng(5)
    ids = rng.integers(0, 9, (WHOLE, 4, 3))
    ids[::7, 0] = 9  # seldom, and three times at once
    arrays = {
        "data/ids": ids.astype("int32"),
        "data/wanted": rng.normal(size=(WHOLE, 4, 2)),
        "data/x": rng.normal(size=(WHOLE, 4, 3)),
        "data/y": rng.normal(size=(WHOLE, 4, 2)),
        "start/embedding": rng.normal(size=(11, 2)),
        "start/kernel": rng.normal(size=(3, 2)),
        "start/bias": rng.normal(size=2),
    }
    return {
        k: v.astype("float32") if v.dtype.kind == "f" else v for k, v in arrays.items()
    }


def in_tf115(tf115, data, states, **steps):
    """All runs in one process; the state of each after each of the recorded steps."""
    cases = [
        {
            "name": f"{name}/{scheduled}",
            "optimizer": CASES[name].tf1,
            "rate": CASES[name].rate,
            "decay": 0.9 if scheduled else 0,
            "variables": CASES[name].variables,
            **steps,
        }
        for name, scheduled in RUNS
    ]
    given = {
        f"{name}/{scheduled}|{key}": value
        for (name, scheduled), state in states.items()
        for key, value in state.items()
    }
    results: dict[tuple[str, bool], dict[int, dict[str, np.ndarray]]] = {}
    for key, value in tf115("optimizers", {**data, **given}, {"cases": cases}).items():
        run, step, variable = key.split("|")
        name, scheduled = run.rsplit("/", 1)
        of_run = results.setdefault((name, scheduled == "True"), {})
        of_run.setdefault(int(step), {})[variable] = value
    return results


@pytest.fixture(scope="module")
def expected(tf115, data):
    """A hundred steps in TensorFlow 1.15.5, with the start and the middle."""
    return in_tf115(tf115, data, {}, start=0, stop=WHOLE, record=[0, HALF, WHOLE])


@pytest.fixture(scope="module")
def mirrored(tf115, data, expected):
    """Fifty steps in Keras, then fifty in TensorFlow 1.15.5."""
    states = {}
    for run in RUNS:
        trained = Trained(*run, data)
        if run not in OWN_RUNS:
            # Those of Keras start with other values than those of TensorFlow 1.
            trained.restore(expected[run][0])
        trained.train(0, HALF)
        states[run] = trained.values()
    return in_tf115(tf115, data, states, start=HALF, stop=WHOLE, record=[WHOLE])


@pytest.fixture(scope="module")
def table():
    """What was measured; printed at the end."""
    rows: dict[tuple[str, bool], dict[str, dict[str, float]]] = {}
    yield rows
    print("\n\n| | | TF 1.15.5, then Keras | | | Keras, then TF 1.15.5 | | |")
    print("|---|---|---|---|---|---|---|---|")
    print(f"| optimizer | rate | {' | '.join([*KINDS, *KINDS])} |")
    for (name, scheduled), row in rows.items():
        both = [row.get(key, {}) for key in ("on", "back")]
        figures = [f"{each.get(kind, np.nan):.0e}" for each in both for kind in KINDS]
        rate = "decayed" if scheduled else "constant"
        print(f"| {name} | {rate} | {' | '.join(figures)} |")


def check(name: str, found: dict[str, float]) -> None:
    """Compares what was measured with what is allowed."""
    # Keras has 1 - 0.999 exact, where TensorFlow 1 has it in float32, 1.3e-5 smaller.
    allowed = 4e-5 if name in ("Keras Adam", "Keras AMSGrad") else TOLERANCE
    assert max(found.values()) <= allowed, found


@pytest.mark.parametrize(("name", "scheduled"), OWN_RUNS)
def test_starts_as_in_tf115(name, scheduled, data, expected):
    trained = Trained(name, scheduled, data)

    for key, value in trained.values().items():
        np.testing.assert_array_equal(value, expected[name, scheduled][0][key], key)


@pytest.mark.parametrize(("name", "scheduled"), RUNS)
def test_goes_on_in_keras(name, scheduled, data, expected, table):
    trained = Trained(name, scheduled, data)
    trained.restore(expected[name, scheduled][HALF])

    trained.train(HALF, WHOLE)

    found = differences(trained.values(), expected[name, scheduled][WHOLE])
    table.setdefault((name, scheduled), {})["on"] = found
    check(name, found)


@pytest.mark.parametrize(("name", "scheduled"), RUNS)
def test_goes_on_in_tf115(name, scheduled, mirrored, expected, table):
    run = (name, scheduled)

    found = differences(mirrored[run][WHOLE], expected[run][WHOLE])

    table.setdefault(run, {})["back"] = found
    check(name, found)
