"""Steady levels of a load as the meters in front of it read them: mean powers with their covariance."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from joulelab.calibration.clocks import read_channel
from joulelab.calibration.integrals import NS, Floats, Ints, counter, integrate
from joulelab.quantities import Channel, Kind
from joulelab.recording import RunDir

UNSETTLED = 0.1
"""The part of a level that is left out at each end, whatever the sensors are."""
BLOCKS, FEWEST_BLOCKS = 10, 4


@dataclass(frozen=True)
class Signal:
    """What a power channel read: `values` [n] in W, of a counter in J, at `t_ns` [n].

    `name` is "instrument.channel".
    """

    name: str
    channel: Channel
    t_ns: Ints
    values: Floats

    @property
    def reach_s(self) -> float:
        """How far from its own time a reading may show what was."""
        sensor = self.channel.sensor
        return sensor.window_s / 2 + 5 * sensor.lowpass_s + 3 * sensor.delay_u_s + (sensor.period_s or 0.0)

    @property
    def spacing_s(self) -> float:
        return float(np.median(np.diff(self.t_ns))) * NS

    def watts(self, edges_ns: Ints) -> Floats:
        """Mean powers [W] between edges; NaN where the readings do not cover them."""
        start, stop = edges_ns[:-1], edges_ns[1:]
        if self.channel.kind is Kind.GAUGE:
            joules = integrate(self.t_ns, self.values, start, stop)
        else:
            joules = counter(self.t_ns, self.values, self.channel.sensor.wrap, start, stop)
        return np.asarray(joules / ((stop - start) * NS))

    def rounding_u(self, seconds: float) -> float:
        """Whole counts of a steady signal err alike however often it is read (GUM F.2.2.1) [W]."""
        rounding_u = self.channel.sensor.resolution / 12**0.5
        return rounding_u if self.channel.kind is Kind.GAUGE else rounding_u * 2**0.5 / seconds


def signal(run: RunDir, name: str, channel: Channel, shift_ns: int = 0) -> Signal:
    """What `channel`, called `name` in `run`, read there; `shift_ns` is added to the times."""
    found = read_channel(run, name, channel)
    return Signal(name, channel, found.t_ns + shift_ns, found.values)


def levels(run: RunDir, meters: Sequence[str]) -> Ints:
    """Start and stop [n, 2] of the steady loads and rests of a run, but those in which a meter missed readings.

    A level lasts half as long as the longest rest, or longer: the square waves that look for beats are none.
    """
    records = [record for record in run.journal if record["kind"] in {"idle", "load", "signature"}]
    spans = np.array([(record["start"], record["stop"]) for record in records], np.int64).reshape(-1, 2)
    length, rest = np.diff(spans)[:, 0], np.array([record["kind"] == "idle" for record in records], bool)
    keep = length > length[rest].max(initial=0) / 2
    for record in run.journal:
        if record["kind"] in {"gap", "overrange"} and record["instrument"] in meters:
            missed = record["stop"] - record["start"] > length / BLOCKS
            keep &= ~(missed & (spans[:, 0] < record["stop"]) & (spans[:, 1] > record["start"]))
    return np.asarray(spans[keep])


class Means(NamedTuple):
    """Mean powers [levels, meters] in W, their `covariance` [levels, meters, meters], and how many `blocks` [levels]
    they are the means of.
    """

    watts: Floats
    covariance: Floats
    blocks: Ints


def level_means(signals: Sequence[Signal], spans: Ints) -> Means:
    """The means of levels over the same time for all `signals`; a level too short for one of them is left out.

    The covariance is that of the means of blocks (Flyvbjerg, Petersen, J. Chem. Phys. 91 (1989)), so that readings may
    be correlated within a block and a wandering load, which all meters see, does not count as their error. So few
    blocks know their variance as Student's t does: (k - 1) / (k - 3).
    """
    found = [level for start, stop in spans if (level := _level(signals, int(start), int(stop)))]
    m = len(signals)
    watts = np.array([each[0] for each in found]).reshape(-1, m)
    covariance = np.array([each[1] for each in found]).reshape(-1, m, m)
    return Means(watts, covariance, np.array([each[2] for each in found], np.int64))


def _level(signals: Sequence[Signal], start: int, stop: int) -> tuple[Floats, Floats, int] | None:
    margin = max(UNSETTLED * (stop - start), *(each.reach_s / NS for each in signals))
    seconds = (stop - start - 2 * margin) * NS
    k = min(BLOCKS, int(seconds / max(2 * each.spacing_s for each in signals)))
    if k < FEWEST_BLOCKS:
        return None
    edges = np.linspace(start + margin, stop - margin, k + 1).astype(np.int64)
    blocks = np.array([each.watts(edges) for each in signals])
    if np.isnan(blocks).any():
        return None
    rounding = np.array([each.rounding_u(seconds) ** 2 for each in signals])
    return blocks.mean(axis=1), np.cov(blocks) / k * ((k - 1) / (k - 3)) + np.diag(rounding), k
