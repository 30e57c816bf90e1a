"""How late a sensor shows the workload, to a fraction of its sampling period, from the signatures of a run."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from joulelab.calibration.averaging import averaging
from joulelab.calibration.sensor import Source, assumed
from joulelab.calibration.taken import Taken, taken
from joulelab.calibration.timing import Start, TimingFit
from joulelab.errors import DataInvalid
from joulelab.recording import RunDir


@dataclass(frozen=True)
class Lag:
    """The mean age of what a channel's readings show of the load, and its standard uncertainty.

    `averaging` and `fit` are the model that explains best. `each`: the middle of each signature [ns], the lag that it
    shows by itself, and that one's standard uncertainty.
    """

    channel: str
    lag_s: float
    lag_u_s: float
    averaging: str
    fit: TimingFit
    each: list[tuple[int, float, float]]


def lag(run: RunDir, channel: str) -> Lag:
    """The lag of a power channel behind the workload, its averaging fitted with it (a low-pass that is not would bias
    it by about as much as half its constant).

    DataInvalid where the run has no signature, or the channel does not follow it.
    """
    played = [(record["start"], record["stop"]) for record in run.records("signature")]
    if not played:
        raise DataInvalid(f"{run.path.name} has no signature: play the protocol signature, or a sweep with one")
    read, source = taken(run, channel), assumed(run)
    found = averaging(source.problem(read))
    if not found.fit.follows:
        raise DataInvalid(f"{channel} does not follow the signature: is it the device's?")
    fit = found.fit
    each = [_alone(read, source, span, fit) for span in played]
    u_s = float(np.hypot(fit.u_s("age_s"), read.bracket_u_s))
    return Lag(channel, fit.age_s, u_s, found.model, fit, each)


def _alone(read: Taken, source: Source, span: tuple[int, int], fit: TimingFit) -> tuple[int, float, float]:
    part = Source(source.shape, source.about, source.zero_ns, [span]).problem(read)
    found = part.fit(Start(fit.timing))
    return (span[0] + span[1]) // 2, found.age_s, found.u_s("age_s")
