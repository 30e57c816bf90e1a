"""How a sensor sees power that changes in steps: the share of each stretch of time in each reading."""

from __future__ import annotations

from itertools import product
from math import factorial
from typing import NamedTuple

import numpy as np
from scipy import sparse

from joulelab.calibration.integrals import Floats, Ints

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


def seen(age_s: Floats, timing: Timing, order: int = 0, window_s: Floats | None = None) -> Floats:
    """What is seen of a unit step `age_s` ago; with `order` 1 of a unit slope that began then.

    The step response of the low-pass, integrated once for each average, since an average over a box is the difference
    of an integral at its ends. `window_s` [like `age_s`]: averaging windows of their own instead of the timing's one.
    """
    window = np.broadcast_to(timing.window_s if window_s is None else window_s, age_s.shape)
    boxes = [box for box in (window, np.broadcast_to(timing.ramp_s, age_s.shape)) if box.size and box.min() > TINY_S]
    reach = timing.reach_s - timing.window_s + window
    x = np.clip(age_s - timing.delay_s, 0.0, reach - timing.delay_s)
    degree = order + len(boxes)
    found = np.zeros_like(x)
    for taken in product((0, 1), repeat=len(boxes)):
        late = sum((box for box, yes in zip(boxes, taken, strict=True) if yes), np.zeros_like(x))
        found += (-1) ** sum(taken) * _integral(np.maximum(x - late, 0.0), timing.lowpass_s, degree)
    for box in boxes:
        found /= box
    whole = np.ones_like(x) if order == 0 else age_s - (timing.lag_s - timing.window_s / 2 + window / 2)
    return np.where(age_s >= reach, whole, found)


def _integral(x: Floats, lowpass_s: float, degree: int) -> Floats:
    """The `degree`-fold integral from 0 to `x` of a low-pass's step response."""
    if lowpass_s <= TINY_S:
        return (x > 0).astype(np.float64) if degree == 0 else x**degree / factorial(degree)
    found = -np.expm1(-x / lowpass_s)
    for n in range(1, degree + 1):
        found = x**n / factorial(n) - lowpass_s * found
    return found


class Columns(NamedTuple):
    """What readings [n] show of the stretches [m + 1] between edges, in shares of a reading.

    `level` of a stretch with power 1 throughout; `rise` of one whose power rises by 1 from its begin to its end, from
    -1/2 to 1/2, so that its mean is 0; `bend` of one whose power rises so by 1 up to its middle, and falls again.
    """

    level: sparse.csr_array
    rise: sparse.csr_array
    bend: sparse.csr_array


def columns(t_s: Floats, edges_s: Floats, timing: Timing, window_s: Floats | None = None) -> Columns:
    """The columns of the stretches between `edges_s` [m], ascending, for readings taken at `t_s` [n].

    The first stretch is all time before the first edge, the last all time after the last one; those two have no shape.
    The level's rows add up to 1. `window_s` [n]: the averaging windows of readings that each have their own, as the
    mean power between two updates of an energy counter has.
    """
    row, stretch = _meetings(t_s, edges_s, timing, window_s)
    edges = np.concatenate([edges_s[:1] - 1.0, edges_s, edges_s[-1:] + 1.0])
    begin, end = edges[stretch], edges[stretch + 1]
    own = None if window_s is None else window_s[row]
    first, last = stretch == 0, stretch == len(edges_s)
    began, ended = (seen(t_s[row] - edge, timing, 0, own) for edge in (begin, end))
    length = np.maximum(end - begin, TINY_S)
    middle, risen, fallen = (seen(t_s[row] - t, timing, 1, own) for t in ((begin + end) / 2, begin, end))
    level = np.where(first, 1.0, began) - np.where(last, 0.0, ended)
    rise = np.where(first | last, 0.0, (risen - fallen) / length - (began + ended) / 2)
    bend = np.where(first | last, 0.0, 2 * (risen - 2 * middle + fallen) / length - (began - ended) / 2)
    shape = len(t_s), len(edges_s) + 1
    return Columns(*(sparse.csr_array((values, (row, stretch)), shape) for values in (level, rise, bend)))


def shares(t_s: Floats, edges_s: Floats, timing: Timing) -> sparse.csr_array:
    """The share [n, m + 1] of each stretch between `edges_s` [m] in readings taken at `t_s` [n]; see `columns`."""
    return columns(t_s, edges_s, timing).level


def _meetings(t_s: Floats, edges_s: Floats, timing: Timing, window_s: Floats | None) -> tuple[Ints, Ints]:
    """Which readings see something of which stretches, as pairs."""
    reach = timing.reach_s if window_s is None else timing.reach_s - timing.window_s + window_s
    first = np.searchsorted(edges_s, t_s - reach)
    many = np.searchsorted(edges_s, t_s - timing.delay_s, "right") - first + 1
    row = np.repeat(np.arange(len(t_s)), many)
    return row, np.arange(many.sum()) - np.repeat(np.cumsum(many) - many - first, many)


def energies(start_s: Floats, stop_s: Floats, edges_s: Floats, follows: Timing) -> Columns:
    """The seconds of each stretch in the energy that is drawn from `start_s` to `stop_s` [k].

    Power that `follows` the load in a ramp, or as a low-pass does, draws some of a stretch's energy after its end: the
    mean power over a span is what an instantaneous meter that averages over just that span shows.
    """
    length = stop_s - start_s
    seconds = sparse.diags_array(length)
    found = columns(stop_s, edges_s, follows, length)
    return Columns(*((seconds @ part).tocsr() for part in found))
