"""Raw readings of one channel as a signal on the bench clock: centred on what they describe, each update once."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from joulelab.calibration.integrals import NS, Floats, Ints
from joulelab.quantities import Channel, Kind
from joulelab.timebase import SECOND


@dataclass(frozen=True)
class Readings:
    """Values [n] and the times [n] that they describe.

    `half_width_s` is the mean half of the brackets around them, `age_s` the range of what is unknown of their age.
    """

    t_ns: Ints
    values: Floats
    half_width_s: float
    age_s: float


def readings(channel: Channel, interval_ns: int | None, samples: Any) -> Readings:
    """The readings of `channel` in `samples`, a `pyarrow.Table` of its instrument that was polled every `interval_ns`
    (None: it streams, so that each reading is new).

    A reading lies in the middle of its bracket, less the sensor's delay and half its averaging window: a mean over a
    window is the power in the window's middle. Of a sensor that is polled faster than it updates, the updates count,
    each somewhere between the poll before it and the one that saw it; otherwise a reading is up to a period old.
    """
    before, after, values = (samples[name].to_numpy() for name in ("before_ns", "after_ns", channel.name))
    if samples[channel.name].null_count:
        read = ~np.isnan(values)
        before, after, values = before[read], after[read], values[read]
    sensor, period_ns = channel.sensor, (channel.sensor.period_s or 0.0) * SECOND
    polled_faster = interval_ns is not None and interval_ns < 0.7 * period_ns
    if polled_faster:
        new = updates(after, values, period_ns)
        before, after, values = before[np.maximum(new - 1, 0)], after[new], values[new]
    age_s = 0.0 if polled_faster or interval_ns is None else period_ns * NS
    shift_s = sensor.delay_s + age_s / 2 + (sensor.window_s / 2 if channel.kind is Kind.GAUGE else 0.0)
    half = (after - before) >> 1
    half_width_s = float(half.mean()) * NS if len(half) else 0.0
    return Readings(before + half - round(shift_s * SECOND), values, half_width_s, age_s)


def updates(t_ns: Ints, values: Floats, period_ns: float) -> NDArray[np.intp]:
    """Which readings [k] a sensor renewed: those whose value changed, and one a period while the value stands still.

    A standing value counts half a period late, so that a change soon after is not taken for a jump.
    """
    changed = np.diff(values, prepend=np.nan) != 0
    since = np.flatnonzero(changed)
    age = t_ns - t_ns[since][np.cumsum(changed) - 1]
    renewals = (age - period_ns / 2) // period_ns
    return np.flatnonzero(changed | ((renewals >= 1) & (np.diff(renewals, prepend=0) > 0)))
