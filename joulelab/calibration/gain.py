"""The gain and offset of one meter against another over a ladder of loads, with errors in both."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from scipy import stats

from joulelab.calibration.certificate import Certificate, Store, calibrated, certificate
from joulelab.calibration.integrals import Floats, Ints
from joulelab.calibration.levels import Means, Signal, level_means, levels, signal
from joulelab.calibration.line import york
from joulelab.errors import DataInvalid
from joulelab.quantities import SensorModel
from joulelab.recording import RunDir

METHOD = "levels of the load, line with errors in both (York 2004)"
FEWEST_LEVELS = 3
LEAST_SPAN = 0.2
"""The span of the levels over the highest of them, below which gain and offset cannot be told apart."""
DOUBT = 0.05
"""Where chance alone would scatter the levels so far from a line less often, the scatter counts as uncertainty."""


@dataclass(frozen=True)
class Gain:
    """A meter reads gain * truth + offset [W]. `covariance` [2, 2] is that of (gain, offset).

    Gain and offset err independently at the power `pivot` [W]: there a corrected power is uncertain by `offset_u` [W],
    away from it by `gain_u_rel` of the distance in addition. `chi_square` of the fit has `levels` - 2 degrees, `p` is
    its probability; `low_w` and `high_w` are the least and the greatest level.
    """

    gain: float
    offset: float
    covariance: Floats
    chi_square: float
    p: float
    levels: int
    low_w: float
    high_w: float

    @property
    def pivot(self) -> float:
        return float(-self.covariance[0, 1] / self.covariance[0, 0])

    @property
    def gain_u_rel(self) -> float:
        return float(np.sqrt(self.covariance[0, 0])) / self.gain

    @property
    def offset_u(self) -> float:
        along = self.covariance[0, 1] ** 2 / self.covariance[0, 0]
        return float(np.sqrt(max(self.covariance[1, 1] - along, 0.0))) / self.gain


def gain(run: RunDir, channel: str, against: str, store: Store | None = None) -> Certificate:
    """The gain of `channel` in `run` against the channel `against`, which is read with its own certificates.

    DataInvalid, with what to change, where the levels of the run cannot tell it or the reference has no accuracy.
    """
    channels = calibrated(run, store).channels
    raw = calibrated(run, store, without={"gain"}).channels[channel]
    meter, reference = signal(run, channel, raw), signal(run, against, channels[against])
    found = compare(meter, reference, levels(run, [channel.partition(".")[0], against.partition(".")[0]]))
    names = ("gain", "offset", "pivot", "gain_u_rel", "offset_u", "chi_square", "p", "levels", "low_w", "high_w")
    covariance = {"names": ["gain", "offset"], "matrix": found.covariance.tolist()}
    result = {name: getattr(found, name) for name in names}
    about = {"against": against, "against_scope": channels[against].scope}
    return certificate(run, "gain", channel, METHOD, result, covariance, about)


def compare(meter: Signal, reference: Signal, spans: Ints) -> Gain:
    """The gain of a meter against a reference whose readings lie on the same clock, from levels between `spans` [n, 2].

    DataInvalid where it cannot be told.
    """
    for each in (meter, reference):
        if len(each.t_ns) < 2:
            raise DataInvalid(f"{each.name} has no readings")
    sensor = reference.channel.sensor
    if not (sensor.gain_u_rel or sensor.offset_u):
        raise DataInvalid(f"{reference.name} states no accuracy, so that nothing can be certified against it")
    means = level_means((reference, meter), spans)
    _check(means, meter.name)
    return _with_reference(_fitted(means), sensor)


def _check(means: Means, name: str) -> None:
    many, watts = len(means.watts), means.watts[:, 0]
    if many < FEWEST_LEVELS:
        raise DataInvalid(
            f"{name}: {many} levels of the load are long enough for both meters, {FEWEST_LEVELS} are needed: "
            "give the protocol 'ladder' a longer 'hold' in lab.yaml"
        )
    if np.ptp(watts) < LEAST_SPAN * np.abs(watts).max():
        raise DataInvalid(
            f"{name}: the levels span {watts.min():.4g} to {watts.max():.4g} W, too little to tell gain from offset: "
            "load the device more, with longer prompts or more threads"
        )


def _fitted(means: Means) -> Gain:
    x, y = means.watts.T
    line, degrees = york(x, y, means.covariance), len(x) - 2
    scatter = line.chi_square / degrees
    p = float(stats.f.sf(scatter, degrees, np.sum(means.blocks - 1)))
    covariance = line.covariance * (max(scatter, 1.0) if p < DOUBT else 1.0)
    return Gain(line.slope, line.offset, covariance, line.chi_square, p, len(x), float(x.min()), float(x.max()))


def _with_reference(found: Gain, sensor: SensorModel) -> Gain:
    """The reference errs, too: it reads (1 + g) x + o - g * pivot, so that the gain is (1 + g) times what was found."""
    by_g = np.array([found.gain, -found.gain * sensor.pivot]) * sensor.gain_u_rel
    by_o = np.array([0.0, found.gain]) * sensor.offset_u
    return replace(found, covariance=found.covariance + np.outer(by_g, by_g) + np.outer(by_o, by_o))
