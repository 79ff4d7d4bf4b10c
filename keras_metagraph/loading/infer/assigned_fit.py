"""Which optimizer an update by plain ops is, judged by what it does.

The decays are measured with zero gradients, the rest with zero slots. What is measured
is put into the formula of each optimizer, and the formula is compared with the update
on random numbers.
"""

import dataclasses
import itertools
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from keras_metagraph.graph.ir import TensorName
from keras_metagraph.loading.infer.assigned import UpdateProbe
from keras_metagraph.loading.infer.schedule_fit import shortest

Array = Any
_EQUAL = 1e-4
Formula = Callable[[Array, list[Array], Array, float], tuple[Array, list[Array]]]
"""From the weight, its slots, the gradient and the rate to what is subtracted and the
new slots."""
_STEPS = (0, 1, 2, 5, 10, 100, 1000)


@dataclasses.dataclass(frozen=True)
class Fit:
    """An optimizer that computes what an update does.

    Attributes:
        name: As `tf.train` calls its class, or BERT's.
        numbers: Its hyper-parameters; `learning_rate` only where it is constant.
        rate: The tensor that is the learning rate, where that changes.
        slots: The role of each slot, in the order of the update's.
        lazy: Whether rows without a gradient stay as they are, slots included.
    """

    name: str
    numbers: dict[str, float]
    rate: TensorName | None
    slots: tuple[str, ...]
    lazy: bool = False


class _NoFitError(Exception):
    """The update is not of the family that is tried."""


def fit_update(probe: UpdateProbe, constants: Sequence[float]) -> Fit | None:
    """Finds the optimizer that computes what an update does.

    Args:
        probe: The update.
        constants: The numbers of its formula; what is measured becomes the nearest.

    Returns:
        The optimizer, or `None` if it is none that is known.
    """
    pool = sorted({*constants, *(1 - c for c in constants)})
    with np.errstate(all="ignore"):
        measured = _Measured(probe, pool)
        found = (_tried(family, measured) for family in _FAMILIES)
        return next((fit for fit in found if fit is not None), None)


def _tried(family: "Family", measured: "_Measured") -> Fit | None:
    """What a family makes of an update, if anything."""
    try:
        return family(measured)
    except _NoFitError:
        return None


class _Measured:
    """Numbers of an update, measured."""

    def __init__(self, probe: UpdateProbe, pool: Sequence[float]) -> None:
        self.probe = probe
        self._pool = [p for p in pool if np.isfinite(p)]
        self.zero = np.zeros(probe.shape)
        self.count = len(probe.update.slots)
        # A number that few elements agree on is measured several times.
        self.times = 1 if self.zero.size >= 8 else 3

    def constant(self, measure: Callable[[], Array], tolerance: float = 1e-4) -> float:
        """The one number that is measured at all elements."""
        runs = [np.ravel(measure()) for _ in range(self.times)]
        return self.one(np.concatenate(runs), tolerance)

    def one(self, values: Array, tolerance: float = 1e-4) -> float:
        """The one number that all of some measured values are."""
        flat = np.asarray(values, np.float64)
        value = float(np.median(flat))
        if not np.all(np.isfinite(flat)) or not np.allclose(
            flat, value, rtol=10 * tolerance, atol=1e-7
        ):
            raise _NoFitError
        near = [p for p in self._pool if abs(p - value) <= tolerance * abs(value)]
        if near:
            value = min(near, key=lambda p: abs(p - value))
        return shortest(value)

    def roles(self, step: int) -> dict[int, tuple[str, float, float]]:
        """For each slot: is it a mean of gradients or of squares, and the factors."""
        return {place: self._role(place, step) for place in range(self.count)}

    def _role(self, place: int, step: int) -> tuple[str, float, float]:
        def kept() -> Array:
            filled = [self.zero] * self.count
            filled[place] = np.abs(self.probe.numbers())
            _, after = self.probe(self.zero, filled, self.zero, step)
            return after[place] / filled[place]

        def added(power: int) -> Array:
            gradient = self.probe.numbers()
            _, after = self.probe(self.zero, [self.zero] * self.count, gradient, step)
            return after[place] / gradient**power

        factor = self.constant(kept)
        try:
            return "m", factor, self.constant(lambda: added(1))
        except _NoFitError:
            return "v", factor, self.constant(lambda: added(2))

    def moving_step(self, measure: Callable[[int], float]) -> tuple[int, float]:
        """A step at which the rate is not 0 (a warm-up begins with 0), and the rate."""
        for step in _STEPS:
            rate = measure(step)
            if rate and np.isfinite(rate):
                return step, rate
        raise _NoFitError

    def rate(
        self, measure: Callable[[int], float], correction: Callable[[int], float]
    ) -> tuple[float | None, TensorName | None]:
        """The learning rate: a number, or the tensor that has it at every step."""
        steps = [step for step in _STEPS if self._measures(measure, step)]
        rates = np.array([measure(step) / correction(step) for step in steps])
        if len(steps) < 3 or not np.all(np.isfinite(rates)):
            raise _NoFitError
        if np.allclose(rates, rates[0], rtol=_EQUAL):
            return self.one(rates), None
        scalars = [self.probe.scalars(step) for step in steps]
        for tensor in self.probe.update.scalars:
            values = np.array([each[tensor] for each in scalars])
            if np.allclose(values, rates, rtol=_EQUAL, atol=1e-9):
                return None, tensor
        raise _NoFitError

    def _measures(self, measure: Callable[[int], float], step: int) -> bool:
        """Whether the rate can be measured: a decay may have made it too small."""
        try:
            return bool(np.isfinite(measure(step)))
        except _NoFitError:
            return False

    def verify(
        self,
        formula: Callable[
            [Array, list[Array], Array, float], tuple[Array, list[Array]]
        ],
        measure: Callable[[int], float],
        squares: Sequence[int] = (),
    ) -> None:
        """Compares a formula with the update on random numbers."""
        steps = [step for step in (1, 10, 1000) if self._measures(measure, step)]
        rates = {step: measure(step) for step in steps}
        # What a decayed rate changes is lost in float32.
        least = 1e-9 * max(rates.values(), default=0.0)
        kept = [step for step, rate in rates.items() if rate >= least]
        if len(kept) < 2:
            raise _NoFitError
        for step, size in itertools.product(kept, (1.0, 1e-3)):
            self._compare(formula, rates[step], squares, step, size)

    def _compare(
        self,
        formula: Callable[
            [Array, list[Array], Array, float], tuple[Array, list[Array]]
        ],
        rate: float,
        squares: Sequence[int],
        step: int,
        size: float,
    ) -> None:
        gradient = size * self.probe.numbers()
        variable = self.probe.numbers()
        if not self.probe.exact and rate < 1e-2:
            variable = self.zero  # from a large number, a small change would be lost
        slots = [size * self.probe.numbers() for _ in range(self.count)]
        for place in squares:
            slots[place] = slots[place] ** 2
        change, after = self.probe(variable, slots, gradient, step)
        expected, kept = formula(variable, slots, gradient, rate)
        lost = 0.0 if self.probe.exact else 1e-6 * float(np.max(np.abs(variable)))
        for one, other in [(change, expected), *zip(after, kept, strict=True)]:
            bound = _EQUAL * float(np.max(np.abs(other), initial=0)) + lost
            if not np.allclose(one, other, rtol=1e-3, atol=bound):
                raise _NoFitError

    def is_lazy(self) -> bool:
        """Whether rows without a gradient stay as they are."""
        if not self.probe.sparse or self.probe.shape[0] < 2 or not self.count:
            return False
        slots = [np.abs(self.probe.numbers()) for _ in range(self.count)]
        _, after = self.probe(self.probe.numbers(), slots, self.probe.numbers(), 1, 1)
        return all(
            np.allclose(one[1:], other[1:], rtol=1e-6)
            for one, other in zip(after, slots, strict=True)
        )


def _numbers(rate: float | None, **numbers: float) -> dict[str, float]:
    return numbers if rate is None else {"learning_rate": rate, **numbers}


def _no_correction(step: int) -> float:
    del step
    return 1.0


def _descent(measured: _Measured) -> Fit:
    """`w - rate * (g + decay * w)`, which has no slots."""
    if measured.count:
        raise _NoFitError
    probe, zero = measured.probe, measured.zero

    def ratio(step: int) -> Array:
        gradient = probe.numbers()
        change, _ = probe(zero, [], gradient, step)
        return change / gradient

    def measure(step: int) -> float:
        return measured.constant(lambda: ratio(step))

    rate, tensor = measured.rate(measure, _no_correction)
    measured.verify(lambda w, s, g, r: (r * g, s), measure)
    return Fit("GradientDescent", _numbers(rate), tensor, ())


def _momentum(measured: _Measured) -> Fit:
    """One slot that gathers gradients, scaled or not."""
    if measured.count != 1:
        raise _NoFitError
    probe, zero = measured.probe, measured.zero

    def ratio(step: int) -> Array:
        change, after = probe(zero, [probe.numbers()], zero, step)
        return change / after[0]

    def subtracted(step: int) -> float:
        return measured.constant(lambda: ratio(step))

    step, _ = measured.moving_step(subtracted)
    ((kind, kept, added),) = measured.roles(step).values()
    if kind != "m":
        raise _NoFitError
    if abs(added - 1) < _EQUAL:
        return _plain_momentum(measured, kept, subtracted)
    return _keras_momentum(measured, kept)


def _plain_momentum(
    measured: _Measured, kept: float, measure: Callable[[int], float]
) -> Fit:
    """`a = momentum * a + g`, `w - rate * a`."""
    # Nesterov's subtracts rate * (g + momentum * a), here with g = 0.
    for nesterov in (False, True):
        factor = kept if nesterov else 1.0

        def own(step: int, factor: float = factor) -> float:
            return measure(step) / factor

        def formula(
            w: Array, s: list[Array], g: Array, r: float, nesterov: bool = nesterov
        ) -> tuple[Array, list[Array]]:
            gathered = kept * s[0] + g
            return r * (g + kept * gathered if nesterov else gathered), [gathered]

        try:
            measured.verify(formula, own)
        except _NoFitError:
            continue
        rate, tensor = measured.rate(own, _no_correction)
        numbers = _numbers(rate, momentum=kept)
        if nesterov:
            numbers["use_nesterov"] = True
        return Fit("Momentum", numbers, tensor, ("accum",), measured.is_lazy())
    raise _NoFitError


def _keras_momentum(measured: _Measured, kept: float) -> Fit:
    """`m = momentum * m - rate * g`, `w + m`."""
    probe, zero = measured.probe, measured.zero

    def ratio(step: int) -> Array:
        gradient = probe.numbers()
        _, after = probe(zero, [zero], gradient, step)
        return -after[0] / gradient

    def measure(step: int) -> float:
        return measured.constant(lambda: ratio(step))

    for nesterov in (False, True):

        def formula(
            w: Array, s: list[Array], g: Array, r: float, nesterov: bool = nesterov
        ) -> tuple[Array, list[Array]]:
            moved = kept * s[0] - r * g
            return -(kept * moved - r * g if nesterov else moved), [moved]

        try:
            measured.verify(formula, measure)
        except _NoFitError:
            continue
        rate, tensor = measured.rate(measure, _no_correction)
        numbers = _numbers(rate, momentum=kept)
        if nesterov:
            numbers["use_nesterov"] = True
        name = "keras SGD with momentum"
        return Fit(name, numbers, tensor, ("accum",), measured.is_lazy())
    raise _NoFitError


def _squares(measured: _Measured) -> Fit:
    """One slot of squares: Keras 2's RMSprop and Adagrad."""
    if measured.count != 1:
        raise _NoFitError
    probe, zero = measured.probe, measured.zero
    ((kind, kept, added),) = measured.roles(1).values()
    if kind != "v":
        raise _NoFitError
    averages = abs(added - (1 - kept)) < _EQUAL
    if not averages and not abs(added - kept) < _EQUAL:
        raise _NoFitError
    epsilon = _epsilon(measured, added)

    def ratio(step: int) -> Array:
        gradient = probe.numbers()
        change, after = probe(zero, [zero], gradient, step)
        return change * (np.sqrt(after[0]) + epsilon) / gradient

    def measure(step: int) -> float:
        return measured.constant(lambda: ratio(step))

    def formula(
        w: Array, s: list[Array], g: Array, r: float
    ) -> tuple[Array, list[Array]]:
        squares = kept * s[0] + added * g**2
        return r * g / (np.sqrt(squares) + epsilon), [squares]

    measured.verify(formula, measure, [0])
    rate, tensor = measured.rate(measure, _no_correction)
    numbers = _numbers(rate, epsilon=epsilon)
    if averages:
        return Fit("keras RMSprop", {**numbers, "rho": kept}, tensor, ("rms",))
    return Fit("Adagrad", numbers, tensor, ("accum",), measured.is_lazy())


def _epsilon(measured: _Measured, added: float) -> float:
    """What is added to the root: it alone is left where gradients are tiny."""
    probe, zero = measured.probe, measured.zero
    gradient = probe.numbers()
    large, _ = probe(zero, [zero], gradient, 1)
    rate = np.median(large / np.sign(gradient)) * np.sqrt(added)
    tiny, _ = probe(zero, [zero], 1e-16 * gradient, 1)
    return measured.one(np.ravel(rate * 1e-16 * gradient / tiny), 1e-3)


def _adam(measured: _Measured) -> Fit:
    """A slot of means and one of squares: Adam, BERT's and LAMB's."""
    if measured.count != 2:
        raise _NoFitError
    roles = measured.roles(1)
    places = {kind: place for place, (kind, _, _) in roles.items()}
    if places.keys() != {"m", "v"}:
        raise _NoFitError
    m, v = places["m"], places["v"]
    betas = []
    for place in (m, v):
        _, kept, added = roles[place]
        if abs(added - (1 - kept)) > _EQUAL:
            raise _NoFitError
        betas.append(kept)
    names = tuple("m" if place == m else "v" for place in range(2))
    return _AdamFit(measured, m, v, betas[0], betas[1]).find(names)


class _AdamFit:
    """Measures the rest of Adam and its relatives."""

    def __init__(
        self, measured: _Measured, m: int, v: int, beta1: float, beta2: float
    ) -> None:
        self._measured = measured
        self._probe = measured.probe
        self._m, self._v = m, v
        self._beta1, self._beta2 = beta1, beta2
        self._step, _ = measured.moving_step(lambda step: self._measure(step, 0.0))
        self._epsilon = self._find_epsilon()
        self._decay = 0.0

    def find(self, names: tuple[str, ...]) -> Fit:
        """The optimizer of the family, verified."""
        self._decay, lamb = self._find_decay()
        self._measured.verify(
            self._lamb if lamb else self._formula, self._rate, [self._v]
        )
        numbers = {"epsilon": self._epsilon}
        betas = {"beta1": self._beta1, "beta2": self._beta2}
        lazy = self._measured.is_lazy()
        if not lamb and not self._decay:
            try:
                rate, tensor = self._measured.rate(self._rate, self._correction)
                title = "LazyAdam" if lazy else "Adam"
                numbers = _numbers(rate, **betas, **numbers)
                return Fit(title, numbers, tensor, names, lazy)
            except _NoFitError:
                pass  # no correction of the bias, perhaps
        rate, tensor = self._measured.rate(self._rate, _no_correction)
        numbers = _numbers(rate, **betas, **numbers, weight_decay_rate=self._decay)
        return Fit("LAMB" if lamb else "BertAdamW", numbers, tensor, names, lazy)

    def _correction(self, step: int) -> float:
        """Adam's correction of the bias."""
        powers = (np.power(beta, step + 1) for beta in (self._beta1, self._beta2))
        first, second = powers
        return float(np.sqrt(1 - second) / (1 - first))

    def _slots(self, m: Array, v: Array) -> list[Array]:
        slots = [m, m]
        slots[self._m], slots[self._v] = m, v
        return slots

    def _measure(self, step: int, epsilon: float) -> float:
        """The rate, with no gradient and no weight."""
        zero = self._measured.zero

        def ratio() -> Array:
            m, v = self._probe.numbers(), np.abs(self._probe.numbers())
            change, _ = self._probe(zero, self._slots(m, v), zero, step)
            return change * (np.sqrt(self._beta2 * v) + epsilon) / (self._beta1 * m)

        return self._measured.constant(ratio, 1e-5)

    def _rate(self, step: int) -> float:
        return self._measure(step, self._epsilon)

    def _find_epsilon(self) -> float:
        zero = self._measured.zero
        rate = self._measure(self._step, 0.0)
        # Without squares, what is divided by is epsilon alone.
        m = 1e-6 * self._probe.numbers()
        change, _ = self._probe(zero, self._slots(m, zero), zero, self._step)
        if not np.all(np.isfinite(change)):
            return 0.0
        return self._measured.one(np.ravel(rate * self._beta1 * m / change), 1e-3)

    def _find_decay(self) -> tuple[float, bool]:
        """The weight decay, and whether the step is scaled by the weights (LAMB)."""
        zero, rate = self._measured.zero, self._rate(self._step)
        found = []
        for _ in range(self._measured.times):
            variable = self._probe.numbers()
            m, v = self._probe.numbers(), np.abs(self._probe.numbers())
            change, _ = self._probe(variable, self._slots(m, v), zero, self._step)
            update = self._beta1 * m / (np.sqrt(self._beta2 * v) + self._epsilon)
            found.append([update.ravel(), variable.ravel(), change.ravel()])
        first, second, change = np.concatenate(found, axis=1)
        if len(found) > 1 and self._measured.zero.size > 1:
            first, second, change = found[0]  # LAMB scales each probe by its own norms
        columns = np.stack([first, second], axis=1)
        (along, across), *_ = np.linalg.lstsq(columns, change, rcond=None)
        decay = across / along
        decay = self._measured.one(decay, 1e-3) if abs(decay) > 1e-6 else 0.0
        return decay, not np.isclose(along, rate, rtol=1e-3)

    def _formula(
        self, w: Array, s: list[Array], g: Array, rate: float
    ) -> tuple[Array, list[Array]]:
        m = self._beta1 * s[self._m] + (1 - self._beta1) * g
        v = self._beta2 * s[self._v] + (1 - self._beta2) * g**2
        update = m / (np.sqrt(v) + self._epsilon) + self._decay * w
        return rate * update, self._slots(m, v)

    def _lamb(
        self, w: Array, s: list[Array], g: Array, rate: float
    ) -> tuple[Array, list[Array]]:
        change, slots = self._formula(w, s, g, 1.0)
        return rate * change * np.linalg.norm(w) / np.linalg.norm(change), slots


Family = Callable[[_Measured], Fit]
_FAMILIES: tuple[Family, ...] = (_descent, _momentum, _squares, _adam)
