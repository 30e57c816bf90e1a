"""What a sensor does to the power that it looks at, from a run whose load has steps: a certificate of kind `sensor`."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from joulelab.calibration.activity import Timeline, seconds, timeline
from joulelab.calibration.averaging import INSTANTANEOUS, SURE, Averaging, averaging, averaging_of_counter
from joulelab.calibration.certificate import Certificate, certificate
from joulelab.calibration.integrals import NS, Ints
from joulelab.calibration.kernel import Timing
from joulelab.calibration.shape import Curve, Steps
from joulelab.calibration.taken import Taken, taken
from joulelab.calibration.timing import Problem, Shape, Start, TimingFit
from joulelab.calibration.updates import resolution
from joulelab.errors import DataInvalid
from joulelab.quantities import Kind
from joulelab.recording import RunDir
from joulelab.timebase import SECOND

ENOUGH = 2
"""So many readings that see a step pass are needed for each time that is fitted."""
FEWEST = 20
"""Readings without which nothing is tried."""
SEEN_NS = 5 * SECOND
"""No reading shows what was longer ago."""
MOST = 90_000
"""So many readings tell all."""
FINE = 50
"""A faster meter's power is averaged over this part of the spacing of the sensor's readings."""
FASTER = 5
"""A meter is faster than a sensor where it reads so many times as often."""
METHOD = "steps of power against readings, by variable projection"
TIMES = ("age_s", "window_s", "lowpass_s")


@dataclass(frozen=True)
class Source:
    """What the power really did: its shape, in seconds after `zero_ns` on the run's clock, known within `known_ns`.

    `age_u_s` is what its own times may be off by, together; `drifts`: on a clock that is not the run's.
    """

    shape: Shape
    about: str
    zero_ns: int
    known_ns: list[tuple[int, int]]
    age_u_s: float = 0.0
    drifts: bool = False

    def problem(self, read: Taken) -> Problem:
        inside = np.any([(read.t_ns >= start) & (read.t_ns <= stop) for start, stop in self.known_ns], axis=0)
        if inside.sum() < FEWEST:
            raise DataInvalid(f"{read.name} has {inside.sum()} readings of the load: play a longer one (ladder)")
        t_s = np.asarray((read.t_ns[inside] - self.zero_ns) * NS, np.float64)
        return Problem(t_s, read.watts[inside], self.shape).last(MOST)


def identify(run: RunDir, channel: str, against: str | None = None, of: RunDir | None = None) -> Certificate:
    """The sensor model of a power channel, from a run of `ladder`, `signature` or `wiring`, or from imported steps.

    Without `against` the power is taken to step with the load, so that a ramp of the device's power counts as lag of
    the sensor. `against` names a faster channel, whose readings are what the power did: then the lag is the sensor's
    own, behind that meter. It is one of the same run, or of the run `of`, recorded at the same time on another clock.
    DataInvalid, with what to change, where the readings do not follow the load or cannot tell how they average.
    """
    read = taken(run, channel)
    if len(read.watts) and np.ptp(read.watts) == 0:
        raise DataInvalid(f"{channel} always reads {read.watts[0]:g} W: it is no sensor of the load")
    source = measured(run, read, against, of or run) if against else assumed(run)
    problem = source.problem(read)
    counter = read.channel.kind is Kind.COUNTER
    found = (
        averaging_of_counter(problem, read.spacing_s, source.drifts) if counter else averaging(problem, source.drifts)
    )
    widest_s = _not_seen(problem, found) if found.model == INSTANTANEOUS else 0.0
    _judge(channel, found, widest_s, read.spacing_s)
    fit = found.fit
    about = {
        "against": against,
        "power": source.about,
        "averaging": found.model,
        "others are worse by": {name: round(by, 1) for name, by in found.worse.items()},
        "readings": len(problem.t_s),
        "swing_w": fit.swing_w,
        "scatter_w": fit.noise_w,
    }
    result = _times(read, fit, widest_s, source) | _at_rest(run, read, fit.timing.reach_s) | _cost(run, read)
    if read.period:
        result |= {"period_s": read.period.period_s, "period_u_s": read.period.u_s}
        if not counter:
            result["duty"] = min(result["window_s"] / read.period.period_s, 1.0)
    return certificate(run, "sensor", channel, METHOD, result, _covariance(fit), about)


def assumed(run: RunDir) -> Source:
    """Power that steps with the load. Of a sweep only the signatures count, whose phases are all alike."""
    done = timeline(run.journal).merged()
    if not len(done.edges_ns):
        raise DataInvalid(f"{run.path.name} has no load that a sensor could follow: play the protocol ladder")
    known = [(record["start"], record["stop"]) for record in run.records("signature")]
    if not known or not run.records("inference"):
        known = [(0, int(run.journal[-1]["t"]))]
    zero = int(done.edges_ns[0])
    label = _near(done, known)
    return Source(
        Steps(seconds(done.edges_ns, zero), label), "steps with the load: its ramp counts as lag", zero, known
    )


def _near(done: Timeline, known_ns: Sequence[tuple[int, int]]) -> Ints:
    """The labels of all stretches, numbered anew; those that no reading of a known span can have seen count as idle."""
    seen = np.zeros(len(done.label), bool)
    for start, stop in known_ns:
        seen[1:-1] |= (done.edges_ns[:-1] < stop) & (done.edges_ns[1:] > start - SEEN_NS)
    return np.unique(np.where(seen, done.label, 0), return_inverse=True)[1]


def measured(run: RunDir, read: Taken, against: str, of: RunDir) -> Source:
    """Power as a faster meter read it; on the run's clock by the wall-clock time of both, where it is another run's."""
    fast = taken(of, against)
    if fast.spacing_s * FASTER > read.spacing_s:
        raise DataInvalid(f"{against} is not {FASTER} times as fast as the sensor: name a faster meter, or none")
    shift = 0 if of is run else _epoch_ns(of) - _epoch_ns(run)
    t_ns = fast.t_ns + shift - round(fast.lag_s / NS)
    zero, stop = int(t_ns[0]), int(t_ns[-1])
    t_s = np.asarray((t_ns - zero) * NS, np.float64)
    curve = Curve.through(t_s, fast.watts, max(read.spacing_s / FINE, fast.spacing_s))
    age_u_s = float(np.linalg.norm([fast.bracket_u_s, fast.age_u_s, fast.channel.sensor.delay_u_s]))
    return Source(curve, f"as {against} read it", zero, [(zero, stop)], age_u_s, drifts=of is not run)


def _epoch_ns(run: RunDir) -> int:
    """The wall-clock time of the run's zero."""
    anchor = run.journal[0].get("anchor", {})
    if anchor.get("wall") is None:
        raise DataInvalid(f"{run.path.name} does not say when it was recorded, so that it has no time in common")
    return int(anchor["wall"]) - int(anchor["bench"])


def _not_seen(problem: Problem, found: Averaging) -> float:
    """The widest window that the readings of a sensor do not exclude, which seems to have none [s]."""
    spacing_s = float(np.median(np.diff(problem.t_s)))
    least = found.fit.readings * np.log(found.fit.squares)
    widest_s = 0.0
    for width_s in spacing_s * np.array([1 / 8, 1 / 4, 1 / 2, 1.0]):
        start = Timing(found.fit.age_s - width_s / 2, float(width_s))
        if found.fit.readings * np.log(problem.fit(Start(start, found.fit.rate)).squares) < least + SURE:
            widest_s = float(width_s)
    return widest_s


def _judge(channel: str, found: Averaging, widest_s: float, spacing_s: float) -> None:
    fit = found.fit
    if not fit.follows:
        raise DataInvalid(f"{channel} does not follow the load: is it the device's, and is the load heavy enough?")
    if fit.telling < ENOUGH * len(fit.free):
        raise DataInvalid(f"{channel} has {fit.telling:.0f} readings that see a step pass: play more steps (ladder)")
    if found.rival or widest_s >= spacing_s:
        other = found.rival or f"a window of {widest_s:.2g} s"
        raise DataInvalid(
            f"{channel} cannot tell {found.model} from {other}: play a ladder with longer levels, and with its update "
            "period as period"
        )


def _times(read: Taken, fit: TimingFit, widest_s: float, source: Source) -> dict[str, float]:
    """The times of the sensor model; `delay_u_s` is the mean age's. A counter's window is what lies between updates.

    Polled no faster than it updates, its ages scatter, which looks like a wider window.
    """
    timing = fit.timing
    window_u_s = np.linalg.norm([fit.u_s("window_s"), widest_s / np.sqrt(3), read.age_u_s])
    counter = read.channel.kind is Kind.COUNTER
    return {
        "window_s": 0.0 if counter else timing.window_s,
        "window_u_s": float(window_u_s),
        "lowpass_s": timing.lowpass_s,
        "lowpass_u_s": fit.u_s("lowpass_s"),
        "delay_s": timing.delay_s + (timing.window_s - read.spacing_s) / 2 if counter else timing.delay_s,
        "delay_u_s": float(np.linalg.norm([fit.u_s("age_s"), read.bracket_u_s, read.age_u_s, source.age_u_s])),
    }


def _covariance(fit: TimingFit) -> dict[str, Any]:
    names = [name for name in TIMES if name in fit.free]
    which = [fit.free.index(name) for name in names]
    return {"names": names, "matrix": fit.covariance[np.ix_(which, which)].tolist()}


def _at_rest(run: RunDir, read: Taken, reach_s: float) -> dict[str, float]:
    """The step in which values come, as far as they have one; and what is read while nothing runs, where that was seen
    for long enough: the mean power, the standard deviation of its means over the rests, and that of a reading.

    The latter is from neighbours, so that slow change does not count.
    """
    values = run.samples(read.name.partition(".")[0])[read.channel.name].to_numpy()
    step = resolution(values[~np.isnan(values)])
    rests = [(read.t_ns >= start) & (read.t_ns <= stop) for start, stop in _settled(run, reach_s)]
    longest = max((rest.sum() for rest in rests), default=0)
    rests = [rest for rest in rests if rest.sum() > max(1, longest / 2)]  # not those between square waves
    found = {"resolution": step} if step else {}
    if not rests:
        return found
    apart = np.concatenate([np.diff(read.watts[rest]) for rest in rests])
    counted = read.spacing_s / np.sqrt(2) if read.channel.kind is Kind.COUNTER else 1.0
    # By time: of a counter that is joules over seconds, however unevenly its updates were seen.
    means = np.array([np.average(read.watts[rest][1:], weights=np.diff(read.t_ns[rest])) for rest in rests])
    found |= {"noise_u": float(np.sqrt(np.mean(apart**2) / 2) * counted), "idle_w": float(means.mean())}
    return found | ({"idle_sd_w": float(means.std(ddof=1))} if len(means) > 1 else {})


def _settled(run: RunDir, reach_s: float) -> Iterator[tuple[int, int]]:
    """The second halves of the rests, less what still shows the load."""
    for record in run.records("idle"):
        start, stop = record["start"], record["stop"]
        if (from_ns := max((start + stop) // 2, start + round(reach_s / NS))) < stop:
            yield from_ns, stop


def _cost(run: RunDir, read: Taken) -> dict[str, float]:
    """How long the meter takes to be read, all its channels at once; nothing of a stream."""
    meter = read.name.partition(".")[0]
    if next(i.interval_ns for i in run.manifest.instruments if i.name == meter) is None:
        return {}
    before, after = (run.samples(meter)[column].to_numpy() for column in ("before_ns", "after_ns"))
    half, most = np.percentile((after - before) * NS, [50, 99])
    return {"call_p50_s": float(half), "call_p99_s": float(most)}
