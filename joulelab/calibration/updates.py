"""How often a sensor has something new to say, by when its value changes between polls; and in which steps."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from joulelab.calibration.integrals import NS, Floats, Ints

ENOUGH = 100
"""So many changes tell the period's place among its multiples; all of them tell the rest."""
LEAST = 12
DECIMALS = 10
NEAR, EXACT = 1e-3, 2.0**40
"""A number this near an integer is one, as far as floating point tells that: up to so large ones."""
PEAK = 0.8
"""A period explains the changes as well as its best fraction does where it reaches so much of that one's score."""

STALLED = 1.5
"""Polls this many times as far apart as usual have stalled."""


class Period(NamedTuple):
    """An update period and its standard uncertainty [s]; `jitter_s` is what changes scatter by about it."""

    period_s: float
    u_s: float
    jitter_s: float


def changes(before_ns: Ints, after_ns: Ints, values: Floats) -> tuple[Ints, Ints]:
    """When values changed, each between the poll before it began and the one that saw it ended [k]."""
    new = np.flatnonzero(np.diff(values) != 0) + 1
    return before_ns[new - 1], after_ns[new]


def in_time(earliest_ns: Ints, latest_ns: Ints) -> NDArray[np.bool_]:
    """Which changes [k] a poll saw when it was due. A stalled one tells too little of when the sensor updated: its
    change could be taken for the next update's, and all later ones with it.
    """
    between = latest_ns - earliest_ns
    return np.asarray(between <= STALLED * np.median(between)) if len(between) else np.zeros(0, bool)


def update_period(before_ns: Ints, after_ns: Ints, values: Floats) -> Period | None:
    """The period of a polled sensor's updates; None where it changes too seldom, or as fast as it is polled.

    An update that repeats the value before it does not show, so that changes lie a whole number of periods apart: the
    longest period of which all are multiples, found by their periodogram and then by a line through them.
    """
    earliest, latest = changes(before_ns, after_ns, values)
    seen = in_time(earliest, latest)
    earliest, latest = earliest[seen], latest[seen]
    poll_s = float(np.median(np.diff(before_ns))) * NS if len(before_ns) > 1 else np.inf
    if len(latest) < LEAST or float(np.median(np.diff(latest))) * NS < 1.5 * poll_s:
        return None
    t = ((earliest + latest) / 2 - latest[0]) * NS
    return _line(t, _coarse(t[:ENOUGH], poll_s))


def _coarse(t: Floats, poll_s: float) -> float:
    apart = float(np.median(np.diff(t)))
    frequency = np.arange(1 / (4 * apart), 1 / (1.5 * poll_s), 1 / (8 * (t[-1] - t[0])))
    score = np.abs(np.exp(2j * np.pi * np.outer(frequency, t)).mean(axis=1))
    peaks = np.flatnonzero(score >= PEAK * score.max())
    first = peaks[: int(np.argmax(np.append(np.diff(peaks), 2) > 1)) + 1]
    return float(1 / frequency[first[np.argmax(score[first])]])


def _line(t: Floats, period_s: float) -> Period | None:
    """Number the changes, each from the one before it, and fit a line; None where they do not lie on one."""
    number = np.concatenate([[0.0], np.cumsum(np.rint(np.diff(t) / period_s))])
    keep = np.ones(len(t), bool)
    for _ in range(3):
        slope, start = np.polyfit(number[keep], t[keep], 1)
        rest = t - start - slope * number
        keep = np.abs(rest) <= 4 * max(float(np.median(np.abs(rest))), 1e-9)
    jitter = float(rest[keep].std())
    if jitter > slope / 4:
        return None
    return Period(float(slope), jitter / float(number[keep].std() * np.sqrt(keep.sum())), jitter)


def resolution(values: Floats) -> float:
    """The greatest decimal step of which all differences of values are multiples; 0 where there is none."""
    largest = float(np.abs(values).max(initial=0.0))
    for decimals in range(DECIMALS):
        counts = values * 10.0**decimals
        whole = np.rint(counts)
        if np.abs(counts - whole).max(initial=0.0) < NEAR and largest * 10.0**decimals < EXACT:
            apart = np.diff(np.unique(whole)).astype(np.int64)
            return float(np.gcd.reduce(apart)) / 10**decimals if len(apart) >= LEAST else 0.0
    return 0.0
