"""Samples to phase energies, each with its standard uncertainty, or with the reason why there is none."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from joulelab.analysis.budget import TERMS, Signal, budget
from joulelab.calibration.integrals import NS, Floats, Ints, from_first, gained, integral, steps
from joulelab.calibration.readings import readings
from joulelab.quantities import Channel, Kind

OK = "ok"
BRIDGED = 0.05
"""The part of a phase that a gap in a gauge's readings may take up."""


@dataclass(frozen=True)
class Edges:
    """The edges of phases [ns], and the standard uncertainty [s] of the inner edge between prefill and decode.

    `boundary_u_s` is positive where the inner edge is the phase's stop and negative where it is its start: what the
    prefill gains by a later edge the decode loses.
    """

    start_ns: Ints
    stop_ns: Ints
    boundary_u_s: Floats


@dataclass(frozen=True)
class Attribution:
    """Energies [phases] in J, NaN where `status` says why, and the signed terms [phases] of their budget in J."""

    method: str
    energy_j: Floats
    budget: dict[str, Floats]
    status: NDArray[np.object_]

    @property
    def energy_u_j(self) -> Floats:
        """The combined standard uncertainty; the terms have causes that are independent of one another (GUM 5.1.2)."""
        return np.asarray(np.sqrt(np.sum([term**2 for term in self.budget.values()], axis=0)))


def attribute(
    channel: Channel,
    interval_ns: int | None,
    samples: Any,
    edges: Edges,
    gaps: Sequence[tuple[int, int]],
    overranges: Sequence[tuple[int, int]] = (),
) -> Attribution:
    """The energy of each phase on one channel, a power gauge [W] or an energy counter [J].

    `samples` is the `pyarrow.Table` of the channel's instrument, polled every `interval_ns` (None: it streams); `gaps`
    and `overranges` are what was journalled of it [ns], in order. A phase gets no energy where the readings cannot
    resolve it (it must hold a whole averaging window, however the sensor's updates fall), or where the meter was over
    its range or changed it.
    """
    sensor, gauge = channel.sensor, channel.kind is Kind.GAUGE
    method = "integrate" if gauge else "counter"
    found = readings(channel, interval_ns, samples)
    if len(found.t_ns) < 2:
        nothing = np.full(len(edges.start_ns), np.nan)
        return Attribution(method, nothing, dict.fromkeys(TERMS, nothing), np.full(len(nothing), "no readings", object))
    t, start, stop = from_first(found.t_ns, edges.start_ns, edges.stop_ns)
    signal = Signal(t, start, stop, found, max(sensor.period_s or 0.0, (interval_ns or 0) * NS))
    values = found.values
    energy = integral(t, start, stop, values) if gauge else gained(t, start, stop, steps(values, sensor.wrap))
    lost, over = (np.array(spans, np.int64).reshape(-1, 2) - found.t_ns[0] for spans in (gaps, overranges))
    status = _status(channel, signal, np.isnan(energy), lost)
    status[_meets(over, start, stop)] = "over the meter's range, or its range changed"
    energy = np.where(status == OK, energy, np.nan)
    return Attribution(method, energy, budget(channel, signal, edges.boundary_u_s, energy), status)


def _status(channel: Channel, signal: Signal, uncovered: NDArray[np.bool_], gaps: Ints) -> NDArray[np.object_]:
    resolved_s = signal.spacing_s + (channel.sensor.window_s if channel.kind is Kind.GAUGE else 0.0)
    status = np.full(len(uncovered), OK, object)
    status[(signal.stop - signal.start) * NS < resolved_s] = f"shorter than the sensor resolves ({resolved_s:g} s)"
    status[uncovered] = "not covered by readings"
    status[_cut(channel, signal, gaps)] = "a gap in the readings"
    return status


def _cut(channel: Channel, signal: Signal, gaps: Ints) -> NDArray[np.bool_]:
    """Which phases a gap cuts, journalled or not: one of more than a sensor period, since a shorter one loses nothing.

    A counter goes on counting, so that only a gap at an edge matters. A gauge's gap is bridged by a straight line where
    it is a small part of the phase; what that may err by is in the sampling term.
    """
    t, start, stop = signal.t, signal.start, signal.stop
    lossy = gaps[gaps[:, 1] - gaps[:, 0] > (channel.sensor.period_s or 0.0) / NS]
    last = np.flatnonzero(np.diff(t) > 2.5 * signal.spacing_s / NS)
    silent = np.stack([t[last], t[last + 1]], axis=1)
    if channel.kind is Kind.COUNTER:
        edges = [_meets(holes, edge, edge) for holes in (lossy, silent) for edge in (start, stop)]
        return np.asarray(np.any(edges, axis=0))
    cut = np.zeros(len(start), bool)
    for begin, end in (*lossy, *silent):
        cut |= np.minimum(end, stop) - np.maximum(begin, start) > BRIDGED * (stop - start)
    return cut


def _meets(holes: NDArray[Any], start: Floats, stop: Floats) -> NDArray[np.bool_]:
    """Whether one of the `holes` [k, 2], in order and disjoint, meets each span."""
    if not len(holes):
        return np.zeros(len(start), bool)
    following = np.searchsorted(holes[:, 1], start)
    first = np.minimum(following, len(holes) - 1)
    return np.asarray((following < len(holes)) & (holes[first, 0] <= stop))
