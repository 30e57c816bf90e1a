"""How a sensor sees power that changes in steps: the share of each stretch of time in each reading."""

from __future__ import annotations

from itertools import product
from math import factorial, prod
from typing import NamedTuple

import numpy as np
from scipy import sparse

from joulelab.calibration.integrals import Floats

TINY_S = 1e-6
"""Averages over less are none."""
FADED = 20.0
"""Time constants after which a low-pass has forgotten: e^-20 is 2e-9."""


class Timing(NamedTuple):
    """What lies between a step of the load and a reading of it, all in seconds.

    The power follows the load in a straight ramp of `ramp_s`; the sensor averages over `window_s` (boxcar), then
    through a first-order low-pass of `lowpass_s`, and reports that `delay_s` late.
    """

    delay_s: float = 0.0
    window_s: float = 0.0
    lowpass_s: float = 0.0
    ramp_s: float = 0.0

    @property
    def lag_s(self) -> float:
        """The mean age of what a reading shows."""
        return self.delay_s + self.window_s / 2 + self.lowpass_s + self.ramp_s / 2

    @property
    def reach_s(self) -> float:
        """The greatest age of what a reading shows."""
        return self.delay_s + self.window_s + FADED * self.lowpass_s + self.ramp_s


def seen(age_s: Floats, timing: Timing, order: int = 0) -> Floats:
    """What is seen of a unit step `age_s` ago; with `order` 1 of a unit slope that began then (2: and so on).

    The step response of the low-pass, integrated once for each average, since an average over a box is the difference
    of an integral at its ends.
    """
    boxes = [box for box in (timing.window_s, timing.ramp_s) if box > TINY_S]
    x = np.clip(age_s - timing.delay_s, 0.0, timing.reach_s - timing.delay_s)
    degree = order + len(boxes)
    found = np.zeros_like(x)
    for taken in product((0, 1), repeat=len(boxes)):
        late = sum(box for box, yes in zip(boxes, taken, strict=True) if yes)
        found += (-1) ** sum(taken) * _integral(np.maximum(x - late, 0.0), timing.lowpass_s, degree)
    found /= prod(boxes)
    if order == 0:
        return np.where(age_s >= timing.reach_s, 1.0, found)
    if order == 1:
        return np.where(age_s >= timing.reach_s, age_s - timing.lag_s, found)
    return found


def _integral(x: Floats, lowpass_s: float, degree: int) -> Floats:
    """The `degree`-fold integral from 0 to `x` of a low-pass's step response."""
    if lowpass_s <= TINY_S:
        return (x > 0).astype(np.float64) if degree == 0 else x**degree / factorial(degree)
    found = -np.expm1(-x / lowpass_s)
    for n in range(1, degree + 1):
        found = x**n / factorial(n) - lowpass_s * found
    return found


def shares(t_s: Floats, edges_s: Floats, timing: Timing) -> sparse.csr_array:
    """The share [n, m + 1] of each stretch between `edges_s` [m], ascending, in readings taken at `t_s` [n].

    The first stretch is all time before the first edge, the last all time after the last one. Rows add up to 1.
    """
    first, stop = (
        np.searchsorted(edges_s, t_s - timing.reach_s),
        np.searchsorted(edges_s, t_s - timing.delay_s, "right"),
    )
    many = stop - first
    row = np.repeat(np.arange(len(t_s)), many)
    edge = np.arange(many.sum()) - np.repeat(np.cumsum(many) - many - first, many)
    step = seen(t_s[row] - edges_s[edge], timing)
    # A step at an edge takes its share from the stretch before it and gives it to the one after it.
    rows = np.concatenate([np.arange(len(t_s)), row, row])
    columns = np.concatenate([first, edge, edge + 1])
    values = np.concatenate([np.ones(len(t_s)), -step, step])
    return sparse.csr_array((values, (rows, columns)), (len(t_s), len(edges_s) + 1))
