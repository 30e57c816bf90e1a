"""Where the uncertainty of a phase's energy comes from, term by term (GUM, JCGM 100:2008)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from joulelab.analysis.solved import Energies
from joulelab.calibration.integrals import NS, Floats, between, steps
from joulelab.calibration.readings import Readings
from joulelab.quantities import Channel, Kind

TERMS = ("gain", "offset", "resolution", "noise", "sampling", "clock", "lag", "ramp", "start", "boundary")


@dataclass(frozen=True)
class Signal:
    """What a channel read at `t`, and the edges of the phases, in ns after the first reading.

    `spacing_s` is how often there is something new to read.
    """

    t: Floats
    start: Floats
    stop: Floats
    readings: Readings
    spacing_s: float


def budget(channel: Channel, signal: Signal, boundary_u_s: Floats, energy: Floats) -> dict[str, Floats]:
    """The terms [phases] in J, signed: first-order sensitivities times standard uncertainties (GUM 5.1.3).

    resolution: a steady signal errs the same way in every reading, so it does not average out (GUM F.2.2.1).
    sampling:   a step of power by D somewhere between readings h apart moves D * h, rectangular: D * h / sqrt(12). An
                averaging sensor and a counter lose nothing between readings; theirs is the step over each edge.
    clock, lag: readings that are all late by d shift the phase's energy by d * (P(stop) - P(start)). The truth of a
                bracket is rectangular over its width, the age of a reading over a period. A phase between two lower
                ones loses by its kink D(stop) - D(start), D the step at an edge, however its edges are late or blurred.
    boundary:   the inner edge moves P(edge) * u between prefill and decode.

    Ramp and start are 0 here: where the sensor follows the phase, it follows the shape of its power.
    """
    sensor, gauge, found = channel.sensor, channel.kind is Kind.GAUGE, signal.readings
    duration = (signal.stop - signal.start) * NS
    t, watts = _power(channel, signal.t, found.values)
    inner = np.interp(np.where(boundary_u_s > 0, signal.stop, signal.start), t, watts)
    slope, kink = _edges(channel, signal, t, watts)
    terms = {
        "gain": sensor.gain_u_rel * (energy - sensor.pivot * duration),
        "offset": sensor.offset_u * duration,
        "resolution": sensor.resolution / np.sqrt(12) * (duration if gauge else np.sqrt(2)),
        "noise": sensor.noise_u * (np.sqrt(duration * signal.spacing_s) if gauge else np.sqrt(2)),
        "sampling": _sampling(channel, signal, t, watts),
        "clock": slope * found.half_width_s / np.sqrt(3),
        "lag": _lag(channel, signal, slope, kink),
        "ramp": np.zeros(len(energy)),
        "start": np.zeros(len(energy)),
        "boundary": inner * boundary_u_s,
    }
    return {name: np.where(np.isnan(energy), np.nan, term) for name, term in terms.items()}


def slow_budget(channel: Channel, duration_s: Floats, found: Energies) -> dict[str, Floats]:
    """The terms of deconvolved phases: noise is what they share, its timing included; see `phase_energies`."""
    sensor, none = channel.sensor, np.zeros(len(duration_s))
    terms = {
        "gain": sensor.gain_u_rel * (found.energy_j - sensor.pivot * duration_s),
        "offset": sensor.offset_u * duration_s,
        "resolution": sensor.resolution / np.sqrt(12) * duration_s * (channel.kind is Kind.GAUGE),
        "noise": np.sqrt(np.asarray((found.shared * found.shared).sum(axis=1))),
    }
    return {name: terms.get(name, found.terms.get(name, none)) for name in TERMS}


def _power(channel: Channel, t: Floats, values: Floats) -> tuple[Floats, Floats]:
    """Power [W] at times [ns]; a counter gives the mean power between its readings."""
    if channel.kind is Kind.GAUGE:
        return t, values
    return (t[1:] + t[:-1]) / 2, steps(values, channel.sensor.wrap) / (np.diff(t) * NS)


def _edges(channel: Channel, signal: Signal, t: Floats, watts: Floats) -> tuple[Floats, Floats]:
    """How the energy [J] of phases moves with their edges: by the slope times s, and by half the kink times |s|."""
    edges, reach = np.stack([signal.start, signal.stop]), max(channel.sensor.window_s, signal.spacing_s) / NS
    before, after = np.interp(edges - reach, t, watts), np.interp(edges + reach, t, watts)
    start_w, stop_w = (before + after) / 2
    return stop_w - start_w, np.diff(after - before, axis=0)[0] / 2


def _lag(channel: Channel, signal: Signal, slope: Floats, kink: Floats) -> Floats:
    """An edge is blurred by the window, and by the straight lines between readings (triangular, half-width one)."""
    late_s = np.hypot(channel.sensor.delay_u_s, signal.readings.age_s / np.sqrt(12))
    blurred_s = np.hypot(channel.sensor.window_s / np.sqrt(12), signal.spacing_s / np.sqrt(6))
    return np.asarray(np.copysign(np.hypot(slope * late_s, kink * np.hypot(late_s, blurred_s)), slope))


def _sampling(channel: Channel, signal: Signal, t: Floats, watts: Floats) -> Floats:
    window_s = channel.sensor.window_s
    if channel.kind is Kind.COUNTER or window_s >= signal.spacing_s:
        reach_s = max(window_s, signal.spacing_s)
        edges, reach = np.stack([signal.start, signal.stop]), reach_s / NS
        step_w = np.interp(edges + reach, t, watts) - np.interp(edges - reach, t, watts)
        return np.asarray(np.hypot(*step_w) * reach_s / np.sqrt(12))
    moved = np.diff(watts)
    moved *= np.diff(t)
    moved *= moved
    return np.sqrt(between(t, signal.start, signal.stop, moved, lambda k, _left, _right: moved[k]) / 12) * NS
