"""The readings of a channel of a run as power, each at the time that the sensor made it, whatever it then averages."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from joulelab.calibration.clocks import clock_maps
from joulelab.calibration.integrals import NS, Floats, Ints, steps
from joulelab.calibration.readings import readings
from joulelab.calibration.updates import Period, update_period
from joulelab.errors import UserError
from joulelab.quantities import Channel, Kind, SensorModel
from joulelab.recording import RunDir


@dataclass(frozen=True)
class Taken:
    """A channel's `watts` [n] at `t_ns` [n]; a counter's are the mean power between two updates, at the later one.

    `period` is what polling showed of the updates, where it did. All times may be off together by the standard
    uncertainties `bracket_u_s`, and `age_u_s` where another run's polls may fall otherwise between the updates.
    """

    name: str
    channel: Channel
    t_ns: Ints
    watts: Floats
    period: Period | None
    bracket_u_s: float
    age_u_s: float

    @property
    def spacing_s(self) -> float:
        return float(np.median(np.diff(self.t_ns))) * NS

    @property
    def lag_s(self) -> float:
        """The mean age of what a reading shows, by the channel's sensor model."""
        sensor = self.channel.sensor
        averaging_s = (
            self.spacing_s / 2 if self.channel.kind is Kind.COUNTER else sensor.window_s / 2 + sensor.lowpass_s
        )
        return sensor.delay_s + averaging_s


def power_channel(run: RunDir, name: str) -> Channel:
    """A channel that gives power or energy; UserError where a run has none of that name."""
    channel = run.channels.get(name)
    if channel is None or not channel.gives_energy:
        known = ", ".join(n for n, c in run.channels.items() if c.gives_energy) or "none"
        raise UserError(f"{name!r} is no power channel of {run.path.name}; there are: {known}")
    return channel


def taken(run: RunDir, name: str) -> Taken:
    """The readings of a channel, polled or streamed; an update period that polling shows counts before a stated one."""
    channel, meter = power_channel(run, name), name.partition(".")[0]
    interval_ns = next(i.interval_ns for i in run.manifest.instruments if i.name == meter)
    samples = run.samples(meter)
    before, after, values = (samples[column].to_numpy() for column in ("before_ns", "after_ns", channel.name))
    read = ~np.isnan(values)
    period = update_period(before[read], after[read], values[read]) if interval_ns else None
    told = channel.sensor
    bare = SensorModel(
        period_s=period.period_s if period else told.period_s, resolution=told.resolution, wrap=told.wrap
    )
    found = readings(replace(channel, sensor=bare), interval_ns, samples, clock_maps(run).get(meter))
    doubts = found.half_width_s / np.sqrt(3), found.age_s / np.sqrt(12)
    if channel.kind is Kind.GAUGE:
        return Taken(name, channel, found.t_ns, found.values, period, *doubts)
    gained, apart = steps(found.values, told.wrap), np.diff(found.t_ns)
    new = (apart > 0) & ~np.isnan(gained)
    return Taken(name, channel, found.t_ns[1:][new], gained[new] / (apart[new] * NS), period, *doubts)
