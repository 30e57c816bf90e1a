"""How exact the energy of a phase is, against exact rational arithmetic on the same readings."""

from __future__ import annotations

from collections.abc import Iterator
from fractions import Fraction
from itertools import pairwise

import numpy as np

from benchmarks.row import Row
from joulelab.calibration.integrals import NS, Floats, Ints, integrate

BOOT_NS = 30 * 86_400 * 10**9
"""A clock that has counted for a month."""
READINGS = 100_000
PHASES = 200


def exactness() -> Iterator[Row]:
    """The integral of piecewise-linear power, against exact rational arithmetic."""
    rng = np.random.default_rng(1)
    t = BOOT_NS + np.cumsum(rng.integers(200_000, 1_800_000, READINGS))
    watts = rng.uniform(0.5, 30.0, READINGS)
    start, stop = _edges(rng, t)
    truth = [_exact(t, watts, *edges) for edges in zip(start, stop, strict=True)]
    ours = _worst(integrate(t, watts, start, stop), truth)
    alternative = {"cumulative trapezoid in float seconds": _worst(_straightforward(t, watts, start, stop), truth)}
    yield Row("integral of piecewise-linear power, worst relative error", ours, "1", 1e-9, "lower", alternative)


def _edges(rng: np.random.Generator, t: Ints) -> tuple[Ints, Ints]:
    """Phases anywhere between the readings, from 10 us to 10 s long."""
    length = (10 ** rng.uniform(4, 10, PHASES)).astype(np.int64)
    start = rng.integers(t[0], t[-1] - length)
    return start, start + length


def _exact(t: Ints, watts: Floats, start: int, stop: int) -> Fraction:
    first, last = np.searchsorted(t, start, "right") - 1, np.searchsorted(t, stop, "left")
    knots = [(int(t[k]), Fraction(float(watts[k]))) for k in range(first, last + 1)]
    total = Fraction(0)
    for (t0, w0), (t1, w1) in pairwise(knots):
        left, right = max(t0, int(start)), min(t1, int(stop))
        middle = Fraction(left + right - 2 * t0, 2 * (t1 - t0))
        total += (w0 + (w1 - w0) * middle) * (right - left)
    return total / 10**9


def _straightforward(t: Ints, watts: Floats, start: Ints, stop: Ints) -> Floats:
    seconds = t * NS
    joules = np.r_[0.0, np.cumsum((watts[1:] + watts[:-1]) / 2 * np.diff(seconds))]
    return np.asarray(np.interp(stop * NS, seconds, joules) - np.interp(start * NS, seconds, joules))


def _worst(found: Floats, truth: list[Fraction]) -> float:
    return max(abs(float((Fraction(float(e)) - exact) / exact)) for e, exact in zip(found, truth, strict=True))
