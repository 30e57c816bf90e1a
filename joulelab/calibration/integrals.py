"""Energy between two edges: the exact integral of sampled power, and the difference of an energy counter."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Part = Callable[[Ints, Floats, Floats], Floats]

NS = 1e-9


def integrate(t_ns: Ints, watts: Floats, start_ns: Ints, stop_ns: Ints) -> Floats:
    """The integral [J] of the piecewise-linear signal through (`t_ns`, `watts`) from `start_ns` to `stop_ns` [phases].

    `t_ns` increases. NaN where a phase is not inside the signal.
    """
    return integral(*from_first(t_ns, start_ns, stop_ns), watts)


def counter(t_ns: Ints, joules: Floats, wrap: float | None, start_ns: Ints, stop_ns: Ints) -> Floats:
    """The energy [J] that a counter gained from `start_ns` to `stop_ns` [phases], interpolated at the edges.

    `wrap` is the range [J] at which it starts again from 0. NaN where a phase is not inside the readings, or where the
    counter was reset in it.
    """
    return gained(*from_first(t_ns, start_ns, stop_ns), steps(joules, wrap))


def from_first(t_ns: Ints, start_ns: Ints, stop_ns: Ints) -> tuple[Floats, Floats, Floats]:
    """Times as floats after the first, subtracted as integers because a float at 1e18 ns is 128 ns coarse."""
    t, start, stop = ((x - t_ns[0]).astype(np.float64) for x in (t_ns, start_ns, stop_ns))
    return t, start, stop


def integral(t: Floats, start: Floats, stop: Floats, watts: Floats) -> Floats:
    """`integrate` with times [ns] that floats can hold."""

    def part(k: Ints, left: Floats, right: Floats) -> Floats:
        return (interpolate(t, watts, k, left) + interpolate(t, watts, k, right)) * (right - left)

    doubled = watts[1:] + watts[:-1]
    doubled *= np.diff(t)
    return between(t, start, stop, doubled, part) * (NS / 2)


def gained(t: Floats, start: Floats, stop: Floats, gains: Floats) -> Floats:
    """What a counter with `gains` [n - 1] between its readings gained in each phase."""

    def part(k: Ints, left: Floats, right: Floats) -> Floats:
        return gains[k] * ((right - left) / (t[k + 1] - t[k]))

    return between(t, start, stop, gains, part)


def steps(joules: Floats, wrap: float | None) -> Floats:
    """What a counter gained between its readings [n - 1]; NaN where it was reset.

    A fall of more than half of the range is a wrap; a smaller one, or any where there is no range, is a reset.
    """
    gains = np.diff(joules)
    fell = np.flatnonzero(gains < 0)
    if len(fell):
        lost = gains[fell]
        gains[fell] = np.where(lost < -wrap / 2, lost + wrap, np.nan) if wrap else np.nan
    return gains


def interpolate(t: Floats, y: Floats, k: Ints, x: Floats) -> Floats:
    """The value at `x`, which lies in segment `k`."""
    return y[k] + (y[k + 1] - y[k]) * ((x - t[k]) / (t[k + 1] - t[k]))


def segments(t: Floats, start: Floats, stop: Floats) -> tuple[Ints, Ints, NDArray[np.bool_]]:
    """The segments that hold the start and the stop of each phase, and whether both exist."""
    first = np.searchsorted(t, start, "right") - 1
    last = np.searchsorted(t, stop, "left") - 1
    inside = (first >= 0) & (last < len(t) - 1) & (start < stop)
    return np.clip(first, 0, len(t) - 2), np.clip(last, 0, len(t) - 2), inside


def between(t: Floats, start: Floats, stop: Floats, whole: Floats, part: Part) -> Floats:
    """Sum over each phase: `whole` [n - 1] for the segments inside, `part(segment, left, right)` for the cut ones.

    Each phase is summed by itself: differences of one cumulative sum would lose a short phase in a long run.
    """
    if len(t) < 2:
        return np.full(len(start), np.nan)
    first, last, inside = segments(t, start, stop)
    spans = last > first + 1
    pairs = np.stack([np.where(spans, first + 1, last), last], axis=1).ravel()
    middle = np.where(spans, np.add.reduceat(whole, pairs)[::2] if len(pairs) else 0.0, 0.0)
    with np.errstate(divide="ignore", invalid="ignore"):
        head = part(first, start, np.minimum(stop, t[first + 1]))
        tail = np.where(last > first, part(last, t[last], stop), 0.0)
    return np.where(inside, head + middle + tail, np.nan)
