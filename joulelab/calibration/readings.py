"""Raw readings of one channel as a signal on the bench clock: centred on what they describe, each update once."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from joulelab.calibration.clock import ClockMap, arrivals
from joulelab.calibration.integrals import NS, Floats, Ints
from joulelab.calibration.updates import in_time
from joulelab.quantities import Channel, Kind, SensorModel
from joulelab.timebase import SECOND

RATE = 0.02
"""How far a sensor's period may be off its nominal one: that of an RC oscillator."""
PERIODIC = 50
"""Updates that one line must carry on average, to call a sensor periodic."""
TRIAL = 2000
"""So many updates first: where these are not periodic, to fit all would take a minute and be refused as well."""
SEEN = 0.7
"""Polls are apart by at most this share of a period where they show when a sensor updates."""


@dataclass(frozen=True)
class Readings:
    """Values [n] and the times `t_ns` [n] that they describe; the sensor made them at `taken_ns` [n].

    `half_width_s` is the mean half of the brackets around them, `age_s` the range of what is unknown of their age.
    """

    t_ns: Ints
    values: Floats
    half_width_s: float
    age_s: float
    taken_ns: Ints


def readings(channel: Channel, interval_ns: int | None, samples: Any, clock_map: ClockMap | None = None) -> Readings:
    """The readings of `channel` in `samples`, a `pyarrow.Table` of its instrument that was polled every `interval_ns`
    (None: it streams, so that each reading is new). `clock_map` is that of the clock that it is read through, if any.

    A reading lies in the middle of its bracket, less the sensor's delay, half its averaging window and its low-pass: a
    mean over a window is the power in the window's middle. Of a sensor that is polled faster than it updates, the
    updates count, each somewhere between the poll before it and the one that saw it, and all of them a period apart
    where that is possible; otherwise a reading is up to a period old.
    """
    before, after = _brackets(samples, interval_ns, clock_map)
    values = samples[channel.name].to_numpy()
    if samples[channel.name].null_count:
        read = ~np.isnan(values)
        before, after, values = before[read], after[read], values[read]
    sensor, period_ns = channel.sensor, (channel.sensor.period_s or 0.0) * SECOND
    polled_faster = interval_ns is not None and interval_ns < SEEN * period_ns
    if polled_faster:
        before, after, values = _updated(before, after, values, period_ns)
    age_s = 0.0 if polled_faster or interval_ns is None else period_ns * NS
    half = (after - before) >> 1
    half_width_s = float(half.mean()) * NS if len(half) else 0.0
    lag_s = sensor.delay_s + (sensor.window_s / 2 + sensor.lowpass_s if channel.kind is Kind.GAUGE else 0.0)
    taken = before + half - round(age_s / 2 * SECOND)
    values = _corrected(values, sensor, taken if channel.kind is Kind.COUNTER else None)
    return Readings(taken - round(lag_s * SECOND), values, half_width_s, age_s, taken)


def arrived(samples: Any) -> tuple[Ints, Ints, Ints] | None:
    """The instrument's own stamps [n] and the brackets [n] that their arrivals allow; None where it stamps nothing."""
    if "device_ns" not in samples.column_names or samples["device_ns"].null_count or not samples.num_rows:
        return None
    far, before, after = (samples[name].to_numpy() for name in ("device_ns", "before_ns", "after_ns"))
    return far, *arrivals(far, before, after)


def updates(t_ns: Ints, values: Floats, period_ns: float) -> NDArray[np.intp]:
    """Which readings [k] a sensor renewed: those whose value changed, and one a period while the value stands still.

    A standing value counts half a period late, so that a change soon after is not taken for a jump.
    """
    return np.flatnonzero(_renewed(t_ns, values, period_ns)[0])


def _corrected(values: Floats, sensor: SensorModel, counted_ns: Ints | None) -> Floats:
    """Readings without the sensor's gain and offset; a counter adds its offset up while time goes by."""
    if sensor.gain == 1.0 and sensor.offset == 0.0:
        return values
    elapsed_s = 1.0 if counted_ns is None else (counted_ns - counted_ns[:1]) * NS
    return np.asarray((values - sensor.offset * elapsed_s) / sensor.gain)


def _brackets(samples: Any, interval_ns: int | None, clock_map: ClockMap | None) -> tuple[Ints, Ints]:
    """The bench times [n] between which each reading was made, as narrow as its clock's map allows."""
    before, after = (samples[name].to_numpy() for name in ("before_ns", "after_ns"))
    stamps = arrived(samples) if clock_map is not None or interval_ns is None else None
    if stamps is None:
        return before, after
    far, earliest, latest = stamps
    if clock_map is None:
        bench, half = ClockMap.fit(*stamps).to_bench(far, (earliest, latest))
        return _around(bench, half, half, before, after)
    bench, half = clock_map.to_bench(far, (before, after))
    first, last = _around(bench, *_margins(half, after - before, clock_map.trips_ns, interval_ns), before, after)
    return np.maximum(first, before), np.minimum(last, after)


def _margins(half: Floats, widths: Ints, trips: Floats, interval_ns: int | None) -> tuple[Floats, Floats]:
    """How long before and after its stamp a reading may have been made, besides what is unknown of the stamp.

    Where it is polled, the far machine's stamp is of its begin, middle or end, and it took what its exchanges took
    longer than probes; a stream's line was written up to so long before it was stamped.
    """
    if interval_ns is None:
        return half + max(float(np.median(widths) - trips.min()), 0.0), half
    taken = max(float(np.median(widths) - np.median(trips)), 0.0)
    return half + taken, half + taken


def _around(bench: Ints, early: Floats, late: Floats, before: Ints, after: Ints) -> tuple[Ints, Ints]:
    """The margins around mapped stamps; where there is no map, the brackets as they are."""
    mapped = np.isfinite(early)
    early, late = (np.where(mapped, margin, 0.0) for margin in (early, late))
    first, last = bench - early.astype(np.int64), bench + late.astype(np.int64)
    return np.where(mapped, first, before), np.where(mapped, last, after)


def _updated(before: Ints, after: Ints, values: Floats, period_ns: float) -> tuple[Ints, Ints, Floats]:
    """The updates of a polled sensor with their brackets: as its polls saw them, or a period apart if that fits."""
    renewed, renewals = _renewed(after, values, period_ns)
    new = np.flatnonzero(renewed)
    low, high = before[np.maximum(new - 1, 0)], after[new]
    placed = _periodic(low, before[new], high, renewals[new], period_ns)
    if placed is None:
        return low, high, values[new]
    earliest, latest, sure = placed
    return earliest[sure], latest[sure], values[new][sure]


def _renewed(t_ns: Ints, values: Floats, period_ns: float) -> tuple[NDArray[np.bool_], Floats]:
    """Which readings [n] a sensor renewed, and how many periods after the last change of its value."""
    changed = np.diff(values, prepend=np.nan) != 0
    since = np.flatnonzero(changed)
    age = t_ns - t_ns[since][np.cumsum(changed) - 1]
    renewals = np.maximum((age - period_ns / 2) // period_ns, 0.0)
    return changed | (np.diff(renewals, prepend=0) > 0), renewals


def _periodic(
    low: Ints, asked: Ints, high: Ints, renewals: Floats, period_ns: float
) -> tuple[Ints, Ints, NDArray[np.bool_]] | None:
    """Brackets [n] of updates that are whole periods apart, and which [n] are sure; None where their polls contradict.

    Changes that a poll before, begun at `low`, and a poll after, from `asked` to `high`, enclose tell when a sensor
    updates; the other updates are so many periods later. A poll that comes late, while the sensor may have updated
    again, does not tell which update it saw.
    """
    changed = renewals == 0
    seen = changed & (high - low < period_ns)
    seen[:1] = False  # nobody saw the first value come
    seen[seen] = in_time(low[seen], high[seen])
    if seen.sum() < PERIODIC:
        return None
    middle = (low[seen] + high[seen]) / 2
    numbers = np.cumsum(np.rint(np.diff(middle, prepend=middle[0]) / period_ns))
    far = _far(numbers, period_ns)
    for some in (slice(TRIAL), slice(None)):
        fitted = ClockMap.fit(far[some], low[seen][some], high[seen][some], drift=RATE, round_trips=False)
        if fitted.pieces > max(1, len(far[some]) // PERIODIC):
            return None
    every, sure = _numbers(fitted, numbers, seen, asked, high, period_ns)
    last_change = np.maximum.accumulate(np.where(changed, np.arange(len(changed)), 0))
    times, half = fitted.to_bench(_far(every[last_change] + renewals, period_ns))
    times[seen] = np.clip(times[seen], low[seen], high[seen])
    sure = sure[last_change]
    if not np.isfinite(half).all() or (np.diff(times[sure]) <= 0).any():
        return None
    margin = half.astype(np.int64)
    return times - margin, times + margin, sure


def _numbers(
    fitted: ClockMap, numbers: Floats, seen: NDArray[np.bool_], asked: Ints, high: Ints, period_ns: float
) -> tuple[Floats, NDArray[np.bool_]]:
    """The numbers [n] of changes, and which [n] are sure: those `seen` have `numbers`, any other is the last update
    before its poll, which is sure where none came while that was under way.
    """
    nearest = np.maximum(np.cumsum(seen) - 1, 0)
    bench, half = (each[nearest] for each in fitted.to_bench(_far(numbers, period_ns)))
    earliest, latest = np.floor((asked - half - bench) / period_ns), np.floor((high + half - bench) / period_ns)
    return numbers[nearest] + np.where(seen, 0, earliest), seen | (earliest == latest)


def _far(numbers: Floats, period_ns: float) -> Ints:
    """Updates by number as stamps of a clock that ticks once a period."""
    return np.rint(numbers * period_ns).astype(np.int64)
