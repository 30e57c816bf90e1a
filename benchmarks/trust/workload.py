"""The workload of the sensor study, on a simulated sensor, with its truth: short prefills, long decodes, idle gaps."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from joulelab.analysis.attribution import Edges
from joulelab.calibration.activity import Span, Timeline
from joulelab.calibration.integrals import Floats, Ints
from joulelab.quantities import Channel
from joulelab.recording.samples import schema
from joulelab.simulation import chance
from joulelab.simulation.profile import Meter
from joulelab.simulation.sensor import Sensor
from joulelab.simulation.trace import Trace
from joulelab.timebase import SECOND

LEAD_S = 3.0
"""Idle before the first inference and after the last."""


@dataclass(frozen=True)
class Workload:
    """Inferences that follow one another after idle gaps of `gap_s` and up to `jitter_s` more.

    `rise_rel`: by how much the decode's power grows from its begin to its end. `onset_w`: so much more in the first
    `onset_s` of an inference. `ramp_s`: the power follows the load in a straight ramp. `spread_rel`: the standard
    deviation of a phase's power from one inference to another.
    """

    inferences: int
    prefill_s: float = 0.25
    decode_s: float = 1.5
    gap_s: float = 0.5
    jitter_s: float = 0.1
    idle_w: float = 80.0
    prefill_w: float = 600.0
    decode_w: float = 330.0
    rise_rel: float = 0.0
    onset_w: float = 0.0
    onset_s: float = 0.15
    ramp_s: float = 0.0
    spread_rel: float = 0.0


class Played(NamedTuple):
    """`edges` [n, 3]: start, first token and stop of each inference [ns]; `joules` [n, 2]: what its two phases drew.

    `samples` is the table of the sensor's instrument, polled every `interval_ns`.
    """

    edges: Ints
    joules: Floats
    samples: Any
    interval_ns: int


def play(workload: Workload, channel: Channel, interval_s: float, seed: int, phase_s: float | None = None) -> Played:
    """Play the workload in front of one specimen of a sensor: its errors are drawn from `seed`, as the workload's are.

    Polls begin at a random time, or `phase_s` after 0.
    """
    rng = np.random.default_rng(np.random.SeedSequence((seed, 0)))
    gaps = workload.gap_s + workload.jitter_s * rng.random(workload.inferences)
    starts = LEAD_S + np.cumsum(gaps + workload.prefill_s + workload.decode_s) - workload.prefill_s - workload.decode_s
    told = starts[:, None] + np.array([0.0, workload.prefill_s, workload.prefill_s + workload.decode_s])
    edges = np.rint(told * SECOND).astype(np.int64)
    trace = _trace(workload, edges, 1 + workload.spread_rel * rng.standard_normal((workload.inferences, 2)))
    begin = rng.uniform(0, interval_s) if phase_s is None else phase_s
    polls = np.rint(np.arange(begin, edges[-1, -1] / SECOND + LEAD_S, interval_s) * SECOND).astype(np.int64)
    meter = Meter(channel, round(interval_s * SECOND), 0, 20e-6, "the sensor study")
    stamps, values = Sensor(meter, chance.key(seed, channel.name)).read(trace, polls)
    table = pa.table([polls, polls, stamps, values], schema=schema([channel.name]))
    joules = np.diff(trace.energy(edges.ravel()).reshape(edges.shape), axis=1)
    return Played(edges, joules, table, meter.interval_ns)


def edges_of(played: Played, late_s: float = 0.0) -> Edges:
    """The prefills, then the decodes, as a server tells them whose inner edges are `late_s` too late."""
    start, first, stop = played.edges.T + np.array([[0], [round(late_s * SECOND)], [0]])
    spans: list[Span] = []
    for begin, inner, end in zip(start.tolist(), first.tolist(), stop.tolist(), strict=True):
        spans += [(begin, inner, ("prefill",)), (inner, end, ("decode",))]
    begins, ends = np.concatenate([start, first]), np.concatenate([first, stop])
    boundary_u_s = np.repeat([late_s, -late_s], len(start))
    return Edges(begins, ends, boundary_u_s, np.tile(np.arange(len(start)), 2), Timeline.of(spans))


def _trace(workload: Workload, edges: Ints, luck: Floats) -> Trace:
    """The power that was drawn, piecewise linear: where there is no ramp, a step takes 1 us."""
    t, watts = _load(workload, edges, luck)
    ramp_ns = max(round(workload.ramp_s * SECOND), 1000)
    knots = np.unique(np.concatenate([t[1:], t[1:] + ramp_ns]))
    joules = _energy(t, watts, knots), _energy(t, watts, knots - ramp_ns)
    trace = Trace(-10 * SECOND, workload.idle_w)
    for knot, power in zip(knots.tolist(), ((joules[0] - joules[1]) / ramp_ns * SECOND).tolist(), strict=True):
        trace.append(knot, power)
    trace.append(int(edges[-1, -1]) + 60 * SECOND, workload.idle_w)
    return trace


def _load(workload: Workload, edges: Ints, luck: Floats) -> tuple[Ints, Floats]:
    """The load as steps: the power [n] from each time [n] on. A rising decode is a staircase of 1 % of its length."""
    steps: list[tuple[int, float]] = []
    for (start, first, stop), (prefill, decode) in zip(edges.tolist(), luck, strict=True):
        onset = start + round(workload.onset_s * SECOND)
        stairs = np.linspace(first, stop, 101 if workload.rise_rel else 2)
        marks = sorted({start, first, min(onset, stop), *np.rint(stairs).astype(int).tolist()})
        for here, after in pairwise(marks):
            middle = (here + after) / 2
            rising = 1 + workload.rise_rel * ((middle - first) / (stop - first) - 0.5)
            base = workload.prefill_w * prefill if middle < first else workload.decode_w * decode * rising
            steps.append((here, base + workload.onset_w * (middle < onset)))
        steps.append((stop, workload.idle_w))
    t, watts = zip(*steps, strict=True)
    return np.array([-10 * SECOND, *t], np.int64), np.array([workload.idle_w, *watts])


def _energy(t: Ints, watts: Floats, at: NDArray[np.int64]) -> Floats:
    """The energy [J] of steps up to some times."""
    joules = np.concatenate([[0.0], np.cumsum(watts[:-1] * np.diff(t))]) / SECOND
    k = np.maximum(np.searchsorted(t, at, "right") - 1, 0)
    return np.asarray(joules[k] + watts[k] * (at - t[k]) / SECOND)
