"""Which schedule of Keras a learning rate is, judged by its values.

The programs of ten years write one and the same formula with many different ops. So
the constants of a formula are put into every schedule there is, and what agrees with
the formula at all steps that could tell is what it is.
"""

import functools
import itertools
import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import keras
import numpy as np

from keras_metagraph.training.schedules import (
    LinearCosineDecay,
    LinearWarmup,
    NaturalExpDecay,
)

Array = Any
_schedules = keras.optimizers.schedules
_LAST_STEP = 2**31 - 2  # of an int32 counter
_FAR = (10, 17, 100, 101, 1000, 4321, 10**4, 10**5, 10**6, 10**7)
_CLOSE, _EQUAL = 1e-4, 3e-6
_MOST = 8  # constants that are tried; formulas have fewer


def steps_to_compare(constants: Sequence[float], now: int = 0) -> list[int]:
    """Steps at which schedules made of `constants` would differ.

    Args:
        constants: The numbers of a formula.
        now: The step that the optimizer is at.

    Returns:
        Ascending steps: the first ones, those around the constants and their
        multiples, and far ones.
    """
    steps = {0, 1, 2, 3, 5, 7, *_FAR, *range(now, now + 4)}
    for constant in constants:
        if math.isfinite(constant) and 1 < constant < _LAST_STEP:
            for factor in (0.5, 1, 2, 3, 7):
                near = round(constant * factor)
                steps |= {near - 1, near, near + 1}
    return sorted(step for step in steps if 0 <= step <= _LAST_STEP)


def agrees(schedule: Any, steps: Sequence[int], rates: Array) -> bool:
    """Whether a Keras schedule has some rates at some steps, to float32's accuracy."""
    found = np.array([float(schedule(np.int64(step))) for step in steps])
    return _equal(found, rates, _EQUAL)


def fit(steps: Sequence[int], rates: Array, constants: Sequence[float]) -> Any:
    """The number or Keras schedule that has some rates at some steps.

    Args:
        steps: Ascending steps, the first of them 0.
        rates: Their rates, `(steps,)`.
        constants: The numbers of the formula.

    Returns:
        A float, a schedule, or `None` where no known schedule has these rates.

    Example:
        >>> steps = steps_to_compare([0.1, 100, 0.5])
        >>> rates = 0.1 * 0.5 ** (np.array(steps) / 100)
        >>> fit(steps, rates, [0.1, 100, 0.5])
        ExponentialDecay(...)
    """
    if not np.all(np.isfinite(rates)):
        return None
    if np.all(rates == rates[0]):
        return shortest(rates[0])
    at, pool = np.array(steps, np.float64), _pool(constants)
    with np.errstate(all="ignore"):
        found = _first(_candidates(at, rates, pool), steps, rates)
        return found or _first(_warm_ups(at, rates, pool), steps, rates)


def shortest(value: Any) -> float:
    """A float32 as the shortest number that is rounded to it: 0.3."""
    return float(str(np.float32(value)))


def _pool(constants: Sequence[float]) -> list[float]:
    """The numbers to try: most formulas leave out those that change nothing."""
    finite = [abs(shortest(c)) for c in constants if math.isfinite(c)]
    return list(dict.fromkeys(finite))[:_MOST]


def _first(candidates: Iterator[Any], steps: Sequence[int], rates: Array) -> Any:
    return next((c for c in candidates if agrees(c, steps, rates)), None)


def _equal(found: Array, expected: Array, tolerance: float) -> bool:
    scale = np.abs(expected)
    error = np.abs(found - expected)
    return bool(np.all(error <= tolerance * scale + 1e-7 * np.max(scale)))


def _candidates(
    at: Array, rates: Array, pool: list[float], start: float | None = None
) -> Iterator[Any]:
    """Schedules that have nearly these rates.

    Args:
        at: Steps, `(steps,)`.
        rates: Their rates.
        pool: Numbers to try.
        start: The rate at step 0, where that is not the first of `rates`.
    """
    start = shortest(rates[0]) if start is None else start
    for family in _FAMILIES:
        for function, schedule in family(start, shortest(rates[-1]), pool):
            if _equal(function(at), rates, _CLOSE):
                yield schedule()
    boundaries = _boundaries(at, rates, pool)
    if boundaries:
        yield boundaries


Formula = Callable[[Array], Array]
Family = Iterator[tuple[Formula, Callable[[], Any]]]


def _exponential(start: float, end: float, pool: list[float]) -> Family:
    del end
    for steps, rate, stairs in itertools.product(pool, pool, (False, True)):
        if not steps or not rate:
            continue
        passed = functools.partial(_passed, steps=steps, stairs=stairs)
        yield (
            functools.partial(_power_of, start, rate, passed),
            functools.partial(
                _schedules.ExponentialDecay, start, _whole(steps), rate, stairs
            ),
        )
        yield (
            functools.partial(_power_of, start, math.exp(-rate), passed),
            functools.partial(NaturalExpDecay, start, _whole(steps), rate, stairs),
        )


def _inverse_time(start: float, end: float, pool: list[float]) -> Family:
    del end
    for steps, rate, stairs in itertools.product(
        _with(pool, 1.0), _with(pool, 1.0), (False, True)
    ):
        if not steps or not rate:
            continue
        passed = functools.partial(_passed, steps=steps, stairs=stairs)
        yield (
            functools.partial(_over, start, rate, passed),
            functools.partial(
                _schedules.InverseTimeDecay, start, _whole(steps), rate, stairs
            ),
        )


def _polynomial(start: float, end: float, pool: list[float]) -> Family:
    for steps, power in itertools.product(pool, _with(pool, 1.0, 2.0, 0.5)):
        if not steps:
            continue
        yield (
            functools.partial(_falling, start, steps, end, power),
            functools.partial(
                _schedules.PolynomialDecay, start, _whole(steps), end, power
            ),
        )
        for low in _with(pool, 0.0):
            yield (
                functools.partial(_cycling, start, steps, low, power),
                functools.partial(
                    _schedules.PolynomialDecay, start, _whole(steps), low, power, True
                ),
            )


def _power_of(start: float, rate: float, passed: Formula, s: Array) -> Array:
    return start * rate ** passed(s)


def _over(start: float, rate: float, passed: Formula, s: Array) -> Array:
    return start / (1 + rate * passed(s))


def _falling(start: float, n: float, end: float, power: float, s: Array) -> Array:
    return (start - end) * (1 - np.minimum(s, n) / n) ** power + end


def _cycling(start: float, n: float, end: float, power: float, s: Array) -> Array:
    length = n * np.where(s == 0, 1, np.ceil(s / n))
    return (start - end) * (1 - s / length) ** power + end


def _half_wave(start: float, n: float, alpha: float, s: Array) -> Array:
    cosine = 0.5 * (1 + np.cos(np.pi * np.minimum(s, n) / n))
    return start * ((1 - alpha) * cosine + alpha)


def _cosine(start: float, end: float, pool: list[float]) -> Family:
    floor = shortest(end / start) if start else 0.0
    floors = [*(p for p in pool if abs(p - floor) < 1e-6), floor]
    for steps, alpha in itertools.product(pool, floors):
        if not steps:
            continue
        yield (
            functools.partial(_half_wave, start, steps, alpha),
            functools.partial(_schedules.CosineDecay, start, _whole(steps), alpha),
        )


def _linear_cosine(start: float, end: float, pool: list[float]) -> Family:
    del end
    for steps, periods, alpha, beta in itertools.product(
        pool, _with(pool, 0.5), _with(pool, 0.0), _with(pool, 0.001)
    ):
        rate = shortest(start / (alpha + 1 + beta))
        if not steps or rate not in pool:
            continue
        arguments = (rate, steps, periods, alpha, beta)
        yield (
            functools.partial(_linear_cosine_rate, arguments),
            functools.partial(LinearCosineDecay, *arguments),
        )


def _linear_cosine_rate(arguments: tuple[float, ...], s: Array) -> Array:
    rate, steps, periods, alpha, beta = arguments
    done = np.minimum(s, steps) / steps
    cosine = 0.5 * (1 + np.cos(2 * np.pi * periods * done))
    return rate * ((alpha + 1 - done) * cosine + beta)


def _restarts(start: float, end: float, pool: list[float]) -> Family:
    del end
    for steps, longer, lower, alpha in itertools.product(
        pool, _with(pool, 2.0, 1.0), _with(pool, 1.0), _with(pool, 0.0)
    ):
        if not steps or longer < 1:
            continue
        arguments = (start, steps, longer, lower, alpha)
        yield (
            functools.partial(_restarting, arguments),
            functools.partial(_schedules.CosineDecayRestarts, *arguments),
        )


def _restarting(arguments: tuple[float, ...], s: Array) -> Array:
    start, steps, longer, lower, alpha = arguments
    done = s / steps
    if longer == 1:
        count = np.floor(done)
        done = done - count
    else:
        count = np.floor(np.log(1 - done * (1 - longer)) / np.log(longer))
        done = (done - (1 - longer**count) / (1 - longer)) / longer**count
    cosine = 0.5 * lower**count * (1 + np.cos(np.pi * done))
    return start * ((1 - alpha) * cosine + alpha)


_FAMILIES = (
    _polynomial,
    _exponential,
    _inverse_time,
    _cosine,
    _linear_cosine,
    _restarts,
)


def _boundaries(at: Array, rates: Array, pool: list[float]) -> Any:
    """The piecewise constant schedule that changes where a constant says so."""
    del pool  # their neighbours are among the steps
    changes = np.flatnonzero(rates[1:] != rates[:-1])
    if not len(changes) or np.any(at[changes + 1] - at[changes] != 1):
        return None
    last = [int(at[place]) for place in changes]
    values = [rates[place] for place in changes] + [rates[-1]]
    return _schedules.PiecewiseConstantDecay(last, [shortest(v) for v in values])


def _warm_ups(at: Array, rates: Array, pool: list[float]) -> Iterator[Any]:
    """Schedules that rise in a line first, as BERT's does."""
    if rates[0] != 0 or at[1] != 1:
        return
    for steps in sorted(p for p in pool if p > 1):
        warm = at < steps
        target = shortest(rates[1] * steps)
        if not _equal(target * at[warm] / steps, rates[warm], _CLOSE):
            continue
        near = [p for p in pool if p and abs(p - target) <= 1e-5 * p]
        target = near[0] if near else target
        rest, settled = at[~warm], rates[~warm]
        if np.all(settled == settled[0]):
            yield LinearWarmup(shortest(settled[0]), _whole(steps), target)
            continue
        for after in _candidates(rest, settled, pool, target):
            yield LinearWarmup(after, _whole(steps), target)


def _passed(step: Array, steps: float, stairs: bool) -> Array:
    return np.floor(step / steps) if stairs else step / steps


def _with(pool: Sequence[float], *usual: float) -> list[float]:
    return list(dict.fromkeys([*usual, *pool]))


def _whole(value: float) -> float:
    return int(value) if value == int(value) else value
