"""Deconvolution: the readings of many inferences as one sparse linear system in the powers of their phases."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np

from joulelab.analysis.edges import sources
from joulelab.analysis.solved import RAMP_S, Solved
from joulelab.calibration.activity import Timeline, seconds, timeline
from joulelab.calibration.certificate import calibrated
from joulelab.calibration.integrals import NS, Floats, Ints, steps
from joulelab.calibration.kernel import Timing
from joulelab.calibration.layout import TIMES, Free, Layout, Measured, times_of
from joulelab.calibration.readings import Readings
from joulelab.calibration.search import nearest_timing
from joulelab.calibration.system import System
from joulelab.calibration.threads import one_thread
from joulelab.errors import DataInvalid
from joulelab.quantities import Channel, Kind
from joulelab.recording import RunDir

__all__ = ["RAMP_S", "Deconvolved", "Solved", "deconvolved", "layout", "shown", "solve", "solve_layout"]

WEAK_S = 0.5
"""How far off a sensor's timing may be that nobody certified, beside its period and window: a standard deviation."""
PIECES = 10.0
"""A phase of more sensor periods and windows has several pieces."""
FEWEST = 10
"""Readings without which there is nothing to deconvolve."""


@dataclass(frozen=True)
class Deconvolved:
    """What a channel read, what the fit says that it should have read, and the power behind it.

    `t_ns`, `read_w`, `fitted_w` and `noise_u_w` [readings], in W, each at the middle of what it averages; `step_t_ns`
    [steps + 1] and `step_w` [steps] are the power as steps.
    """

    t_ns: Ints
    read_w: Floats
    fitted_w: Floats
    noise_u_w: Floats
    step_t_ns: Ints
    step_w: Floats
    timing: Timing
    lag_u_s: float
    window_u_s: float


def deconvolved(run: RunDir, name: str, channels: Mapping[str, Channel] | None = None) -> Deconvolved:
    """The power of a run behind the readings of one of its channels, described as in `channels` or by its certificates.

    DataInvalid where there is nothing to deconvolve.
    """
    source = next(sources(run, calibrated(run), [name]))
    source = replace(source, channel=(channels or {}).get(name, source.channel))
    found, active = source.readings(), timeline(run.journal)
    if len(found.values) < FEWEST or not len(active.edges_ns):
        raise DataInvalid(
            f"{run.path.name} has nothing to deconvolve on {name}: it needs inferences and their readings"
        )
    with one_thread():
        return shown(solve(source.channel, found, active, source.lost(found), certified=source.certified))


def solve(channel: Channel, found: Readings, timeline: Timeline, lost: Ints, *, certified: bool) -> Solved:
    """Set up the system of a channel's readings and solve it. `lost` [k, 2]: spans that no reading may have seen [ns].

    A `certified` sensor's timing is known as well as its model says, and the ramp of the power is found; otherwise the
    timing is found, and there is no ramp.
    """
    spacing_s = float(np.median(np.diff(found.taken_ns))) * NS
    pieces = timeline.cut(PIECES * (spacing_s + _told(channel).window_s))
    return solve_layout(channel, found, layout(found, pieces), lost, certified=certified)


def layout(found: Readings, timeline: Timeline) -> Layout:
    """A power for each label and, but for idle time, a rise. Seconds after the first reading."""
    edges_s = seconds(timeline.edges_ns, int(found.taken_ns[0]))
    return Layout.of_classes(edges_s, timeline.label, range(1, len(timeline.labels)), timeline.kind)


def solve_layout(channel: Channel, found: Readings, layout: Layout, lost: Ints, *, certified: bool) -> Solved:
    """`solve` for any description of what drew power, its edges in seconds after the first reading."""
    origin, told = int(found.taken_ns[0]), _told(channel)
    measured = _measured(channel, found, origin)
    spacing_s = float(np.median(np.diff(measured.t_s)))
    if not certified:
        told = nearest_timing(measured, layout, told, spacing_s, window=channel.kind is Kind.GAUGE)
    measured = _kept(measured, told, seconds(lost, origin))
    system = System(measured, layout, _free(channel, told, found, spacing_s, certified=certified))
    begin = told._replace(ramp_s=RAMP_S / 2, delay_s=told.delay_s - RAMP_S / 4) if certified else told
    return Solved(origin, system, system.fit(begin))


def _told(channel: Channel) -> Timing:
    sensor = channel.sensor
    return Timing(sensor.delay_s, sensor.window_s if channel.kind is Kind.GAUGE else 0.0, sensor.lowpass_s)


def _measured(channel: Channel, found: Readings, origin_ns: int) -> Measured:
    """Readings as power: a counter says the mean power between two updates."""
    t_s, sensor = seconds(found.taken_ns, origin_ns), channel.sensor
    if channel.kind is Kind.GAUGE:
        return Measured(t_s, found.values, None, sensor.resolution / np.sqrt(12))
    window_s = np.diff(t_s)
    gained = steps(found.values, sensor.wrap)
    sound = ~np.isnan(gained) & (window_s > 0)
    watts, window_s = gained[sound] / window_s[sound], window_s[sound]
    return Measured(t_s[1:][sound], watts, window_s, sensor.resolution / np.sqrt(6) / float(np.median(window_s)))


def _free(channel: Channel, begin: Timing, found: Readings, spacing_s: float, *, certified: bool) -> list[Free]:
    """The times to find: those of a certified sensor as known as they are, and the ramp; else with little to go by."""
    sensor, gauge = channel.sensor, channel.kind is Kind.GAUGE
    own, times = times_of(_told(channel)), times_of(begin)
    weak_s = WEAK_S + spacing_s + times["window_s"]
    clock_s = np.hypot(found.half_width_s / np.sqrt(3), found.age_s / np.sqrt(12))
    known = {"age_s": float(np.hypot(sensor.delay_u_s, clock_s)), "window_s": sensor.window_u_s}
    known["lowpass_s"] = sensor.lowpass_u_s
    if not certified:
        unknown = {"age_s": True, "window_s": gauge, "lowpass_s": sensor.lowpass_s > 0}
        names = [name for name in TIMES if unknown.get(name)]
        return [Free(name, own[name], weak_s) for name in names]
    fitted = [Free(name, own[name], known[name]) for name in TIMES if known.get(name)]
    return [*fitted, Free("ramp_s", 0.0, RAMP_S)]


def _kept(measured: Measured, timing: Timing, lost_s: Floats) -> Measured:
    """The readings that saw nothing of any of the `lost_s` [k, 2]."""
    reach = timing.reach_s if measured.window_s is None else timing.reach_s + measured.window_s
    sees, until = measured.t_s - reach, measured.t_s - timing.delay_s
    kept = np.ones(len(sees), bool)
    for begin, end in lost_s:
        kept &= (until <= begin) | (sees >= end)
    return measured.only(kept)


def shown(solved: Solved) -> Deconvolved:
    """What there is to draw of a solution."""
    fit, measured, layout = solved.fit, solved.system.measured, solved.system.layout
    ramp_s = 0.0 if measured.window_s is None else measured.window_s / 2
    middle = measured.t_s - fit.timing.lag_s - ramp_s
    steps_ns = solved.origin_ns + np.rint(layout.edges_s / NS).astype(np.int64)
    return Deconvolved(
        solved.origin_ns + np.rint(middle / NS).astype(np.int64),
        measured.watts,
        fit.fitted_w,
        fit.noise_u_w,
        steps_ns,
        (layout.level @ fit.levels + fit.deviation_w)[1:-1],
        fit.timing,
        fit.time_u_s("age_s") if "age_s" in fit.free else 0.0,
        fit.time_u_s("window_s") if "window_s" in fit.free else 0.0,
    )
