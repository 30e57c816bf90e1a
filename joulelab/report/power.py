"""Power channels as they are drawn: the signal that is integrated, or the mean power between a counter's updates."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from joulelab.calibration.clocks import read_channel
from joulelab.calibration.integrals import NS, Floats, Ints, steps
from joulelab.quantities import Kind
from joulelab.recording import RunDir

MEANS = 400
"""The most mean powers of a counter that one plot can show."""


class Line(NamedTuple):
    """Power [W] against bench time [ns]. `held`: a value holds until the next; otherwise straight lines join them."""

    t_ns: Ints
    watts: Floats
    held: bool


def read_power(run: RunDir, name: str, start: int, stop: int) -> Line:
    """The power of one channel, "instrument.channel", from `start` to `stop` [ns], one reading more on either side."""
    channel = run.channels[name]
    instrument = next(i for i in run.manifest.instruments if i.name == name.partition(".")[0])
    found = read_channel(run, name, channel)
    first, last = np.searchsorted(found.t_ns, (start, stop))
    near = slice(max(first - 1, 0), last + 1)
    if channel.kind is Kind.COUNTER:
        return _mean_power(found.t_ns[near], found.values[near], channel.sensor.wrap)
    period_ns = max(instrument.interval_ns or 0, (channel.sensor.period_s or 0.0) / NS)
    return _broken_at_holes(found.t_ns[near], found.values[near], period_ns)


def _mean_power(t_ns: Ints, joules: Floats, wrap: float | None) -> Line:
    if len(t_ns) < 2:
        return Line(t_ns, np.full(len(t_ns), np.nan), held=True)
    shown = np.arange(0, len(t_ns) - 1, len(t_ns) // MEANS + 1)
    gained = np.add.reduceat(steps(joules, wrap), shown)
    edges = t_ns[np.append(shown, len(t_ns) - 1)]
    return Line(edges, np.append(gained / (np.diff(edges) * NS), np.nan), held=True)


def _broken_at_holes(t_ns: Ints, watts: Floats, period_ns: float) -> Line:
    holes = np.flatnonzero(np.diff(t_ns) > 2.5 * period_ns) + 1
    return Line(np.insert(t_ns, holes, t_ns[holes] - 1), np.insert(watts, holes, np.nan), held=False)
