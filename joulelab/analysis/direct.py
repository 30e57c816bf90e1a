"""The energies of phases that a sensor follows: gauges integrated, counters subtracted."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from joulelab.analysis.budget import TERMS, Signal, budget
from joulelab.analysis.edges import OK, Attribution, Edges, Source, meets, silent
from joulelab.calibration.integrals import NS, Ints, from_first, gained, integral, steps
from joulelab.calibration.readings import Readings
from joulelab.quantities import Channel, Kind

BRIDGED = 0.05
"""The part of a phase that a gap in a gauge's readings may take up."""


def direct(source: Source, found: Readings, edges: Edges) -> Attribution:
    """Gauges integrated, and differences of counters."""
    channel = source.channel
    sensor, gauge = channel.sensor, channel.kind is Kind.GAUGE
    method = np.full(len(edges.start_ns), "integrate" if gauge else "counter", object)
    if len(found.t_ns) < 2:
        nothing = np.full(len(edges.start_ns), np.nan)
        return Attribution(method, nothing, dict.fromkeys(TERMS, nothing), np.full(len(nothing), "no readings", object))
    t, start, stop = from_first(found.t_ns, edges.start_ns, edges.stop_ns)
    signal = Signal(t, start, stop, found, max(sensor.period_s or 0.0, (source.interval_ns or 0) * NS))
    values = found.values
    energy = integral(t, start, stop, values) if gauge else gained(t, start, stop, steps(values, sensor.wrap))
    lost = np.array(source.gaps, np.int64).reshape(-1, 2) - found.t_ns[0]
    refused = source.refused(edges.start_ns, edges.stop_ns)
    status = np.where(refused == OK, _status(channel, signal, np.isnan(energy), lost), refused)
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
    unheard = silent(t, signal.spacing_s)
    if channel.kind is Kind.COUNTER:
        edges = [meets(holes, edge, edge) for holes in (lossy, unheard) for edge in (start, stop)]
        return np.asarray(np.any(edges, axis=0))
    cut = np.zeros(len(start), bool)
    for begin, end in (*lossy, *unheard):
        cut |= np.minimum(end, stop) - np.maximum(begin, start) > BRIDGED * (stop - start)
    return cut
