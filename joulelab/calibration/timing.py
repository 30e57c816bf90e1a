"""What lies between the power and a sensor's readings of it: times that are fitted beside the powers, which are linear.

Variable projection (Golub and Pereyra 1973): at each timing the powers are solved for, and only times are left to find.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from itertools import product
from typing import NamedTuple, Protocol

import numpy as np
from scipy import optimize

from joulelab.calibration.integrals import Floats
from joulelab.calibration.kernel import Timing

MOST_LAG_S = 2.5
"""Twice the slowest averaging window there is, and some."""
COARSE_S = 0.01
STEP_S = 5e-5
"""Over which derivatives by a time are taken."""
NONE_S, WINDOWS_S = (0.0,), (0.03, 0.1, 0.3, 1.0)
SEEN = 10.0
"""Readings follow the power where they swing so many times the standard error of a mean of them."""
ZOOMS, POINTS = 4, 41
LEAD_S = 0.05
"""So much earlier than its cause a reading may seem, by clocks that disagree."""
SAME = np.zeros(1)
RATES = np.linspace(-0.04, 0.04, 41)
"""Rates of another clock against this one: as far as an oscillator without a crystal goes."""


class Shape(Protocol):
    """The power that a sensor looks at, up to factors."""

    def shown(self, t_s: Floats, timing: Timing) -> Floats:
        """What readings taken at `t_s` [n] show of each power [n, c]."""
        ...


@dataclass(frozen=True)
class TimingFit:
    """The timing that fits, with the `covariance` of its `free` times: `age_s`, the mean age of what a reading shows
    (delay + window / 2 + lowpass), and `window_s`, `lowpass_s` or the other clock's `rate`.

    `noise_w` is the standard deviation of a reading, `swing_w` that of what it shows of changes in power. Noise of
    neighbouring readings may hang together: `readings` is how many independent ones they are worth. `telling` is about
    how many of them see a step pass, which tells the times.
    """

    timing: Timing
    free: tuple[str, ...]
    covariance: Floats
    levels: Floats
    squares: float
    noise_w: float
    swing_w: float
    readings: float
    telling: float
    rate: float

    @property
    def age_s(self) -> float:
        return self.timing.lag_s

    @property
    def follows(self) -> bool:
        """Whether the readings follow the power at all."""
        return bool(self.swing_w * self.readings**0.5 > SEEN * self.noise_w)

    def u_s(self, name: str) -> float:
        """The standard uncertainty of a time; 0 of one that was not fitted."""
        return float(np.sqrt(self.covariance[k, k])) if (k := self._index(name)) is not None else 0.0

    def _index(self, name: str) -> int | None:
        return self.free.index(name) if name in self.free else None


class Start(NamedTuple):
    """Where to look from: a timing, and the rate of the other clock that the power was read on, 0 where it is one."""

    timing: Timing
    rate: float = 0.0


class Model(NamedTuple):
    """The times to find, the age first; the others are those of `start`."""

    start: Start
    free: tuple[str, ...]

    def at(self, x: Floats) -> tuple[Timing, float]:
        """The timing and the rate of the other clock for values of the `free` times."""
        times = {
            **self.start.timing._asdict(),
            "rate": self.start.rate,
            **dict(zip(self.free, x.tolist(), strict=True)),
        }
        delay_s = times["age_s"] - times["window_s"] / 2 - times["lowpass_s"]
        return Timing(delay_s, times["window_s"], times["lowpass_s"]), times["rate"]


@dataclass(frozen=True)
class Problem:
    """Readings [n] `watts`, taken at `t_s`, of a power of this shape; they may drift in a straight line."""

    t_s: Floats
    watts: Floats
    shape: Shape

    def last(self, most: int) -> Problem:
        """The same with the last readings only."""
        return self if len(self.t_s) <= most else Problem(self.t_s[-most:], self.watts[-most:], self.shape)

    def columns(self, timing: Timing, rate: float = 0.0) -> Floats:
        return self.with_drift(self.shape.shown(self.t_s * (1 + rate), timing))

    def with_drift(self, columns: Floats) -> Floats:
        return np.column_stack([columns, self.t_s - self.t_s.mean()])

    def solve(self, columns: Floats) -> tuple[Floats, Floats]:
        """The powers and the residuals [n] in W."""
        powers, *_ = np.linalg.lstsq(columns, self.watts)
        return np.asarray(powers), np.asarray(self.watts - columns @ powers)

    def squares(self, columns: Floats) -> float:
        """The residual sum of squares by normal equations: quicker, and good enough to compare by."""
        right = columns.T @ self.watts
        powers, *_ = np.linalg.lstsq(columns.T @ columns, right)
        return float(self.watts @ self.watts - right @ powers)

    def coarse(self, windows_s: Sequence[float] = WINDOWS_S, rates: Floats = SAME) -> Start:
        """The boxcar, its lag up to `MOST_LAG_S`, and the other clock's rate that fit best on a grid."""
        some = slice(None, None, max(len(self.t_s) // 2000, 1))
        few = Problem(self.t_s[some], self.watts[some], self.shape)
        lags = np.arange(-LEAD_S, MOST_LAG_S, COARSE_S)
        reach = MOST_LAG_S + float(np.abs(rates).max() * np.abs(self.t_s).max())
        grid = np.arange(self.t_s[0] - reach, self.t_s[-1] + reach, COARSE_S / 2)
        best = (np.inf, Timing(), 0.0)
        for window_s in windows_s:
            shown = self.shape.shown(grid, Timing(-window_s / 2, window_s))
            for rate, lag_s in product(rates.tolist(), lags.tolist()):
                at = few.t_s * (1 + rate) - lag_s
                columns = few.with_drift(np.column_stack([np.interp(at, grid, seen) for seen in shown.T]))
                best = min(best, (few.squares(columns), Timing(lag_s - window_s / 2, window_s), rate))
        return Start(best[1], best[2])

    def fit(self, start: Start, free: Sequence[str] = ()) -> TimingFit:
        """The age and the times `free`, found from `start` on; the others are what they are there."""
        model = Model(start, ("age_s", *free))
        if not free:
            return self._found(model, *self._posterior(model))
        x = np.array(
            [start.timing.lag_s, *(start.rate if name == "rate" else getattr(start.timing, name) for name in free)]
        )
        least = [-np.inf if name in {"age_s", "rate"} else 0.0 for name in model.free]
        found = optimize.least_squares(
            partial(self._rest, model),
            x,
            partial(self._slopes, model),
            bounds=(least, np.inf),
            x_scale="jac",
            xtol=1e-7,
            max_nfev=40,
        )
        slopes = np.asarray(found.jac)
        return self._found(model, found.x, np.linalg.pinv(slopes.T @ slopes))

    def _rest(self, model: Model, x: Floats) -> Floats:
        return self.solve(self.columns(*model.at(x)))[1]

    def _telling(self, timing: Timing, rate: float, levels: Floats) -> float:
        """Over how many readings that is spread which would change were all taken a quarter of a reading earlier."""
        eighth_s = float(np.median(np.diff(self.t_s))) / 8
        later, earlier = (timing._replace(delay_s=timing.delay_s + by) for by in (eighth_s, -eighth_s))
        change = (self.columns(later, rate) - self.columns(earlier, rate)) @ levels
        return float(np.sum(change**2) ** 2 / np.sum(change**4)) if change.any() else 0.0

    def _slopes(self, model: Model, x: Floats) -> Floats:
        here = self._rest(model, x)
        return np.column_stack([(self._rest(model, x + STEP_S * unit) - here) / STEP_S for unit in np.eye(len(x))])

    def _posterior(self, model: Model) -> tuple[Floats, Floats]:
        """Mean and variance over noise variance of the age alone, from its likelihood: that of an instantaneous sensor
        has steps, where a derivative tells nothing.
        """
        half = 3 * COARSE_S
        mean, variance, noise = model.start.timing.lag_s, half**2, 1.0
        for _ in range(ZOOMS):
            ages = np.linspace(mean - half, mean + half, POINTS)
            squares = np.array([float(np.square(self._rest(model, np.array([age]))).sum()) for age in ages])
            noise = squares.min() / max(len(self.t_s) - 3, 1)
            weights = np.exp((squares.min() - squares) / (2 * noise))
            mean = float(np.average(ages, weights=weights))
            variance = float(np.average((ages - mean) ** 2, weights=weights)) + (ages[1] - ages[0]) ** 2 / 12
            half = 6 * variance**0.5
        return np.array([mean]), np.array([[variance / noise]])

    def _found(self, model: Model, x: Floats, inverse: Floats) -> TimingFit:
        timing, rate = model.at(x)
        columns = self.columns(timing, rate)
        levels, rest = self.solve(columns)
        squares = float(rest @ rest)
        variance = squares / (len(rest) - columns.shape[1] - len(x))
        worth = len(rest) / _together(rest, timing.reach_s / float(np.median(np.diff(self.t_s))))
        fitted = self.watts - rest
        return TimingFit(
            timing,
            model.free,
            inverse * variance * len(rest) / worth,
            levels,
            squares,
            variance**0.5,
            float(fitted.std()),
            worth,
            self._telling(timing, rate, levels),
            rate,
        )


def _together(rest: Floats, reach: float) -> float:
    """By how much neighbours' noise that hangs together widens a variance: 1 + 2 x the sum of its autocorrelation."""
    n = len(rest)
    most = int(min(max(reach, 1.0), n / 10))
    ahead = np.arange(1, most + 1)
    correlation = np.array([rest[k:] @ rest[:-k] for k in ahead]) / (rest @ rest)
    return max(1.0, 1 + 2 * float(((1 - ahead / (most + 1)) * correlation).sum()))
