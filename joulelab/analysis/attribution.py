"""Samples to phase energies, each with its standard uncertainty, or with the reason why there is none."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from joulelab.analysis.budget import slow_budget
from joulelab.analysis.deconvolution import FEWEST, solve
from joulelab.analysis.direct import direct
from joulelab.analysis.edges import OK, Attribution, Edges, Source
from joulelab.analysis.solved import Energies, phase_energies
from joulelab.calibration.integrals import NS, Floats, Ints
from joulelab.calibration.readings import Readings
from joulelab.errors import UserError
from joulelab.quantities import Channel, Kind
from joulelab.registry import nearest

__all__ = ["OK", "Attribution", "Edges", "Source", "attribute", "attribute_source"]

METHODS = ("integrate", "counter", "deconvolve")
UNSEEN = 0.5
"""The part of a phase that a gap may take up where the phase is known from its like, too."""
UNDETERMINED = 0.25
"""A greater relative standard uncertainty is no measurement."""
TOO_SLOW = "too slow a sensor: repeat the phase back to back, add repeats, or use a faster meter"
RAMP_OR_LAG = "lag and ramp of the power look alike: certify the sensor against a faster meter, or repeat back to back"


def attribute(
    channel: Channel,
    interval_ns: int | None,
    samples: Any,
    edges: Edges,
    gaps: Sequence[tuple[int, int]],
    overranges: Sequence[tuple[int, int]] = (),
    method: str | None = None,
) -> Attribution:
    """The energy of each phase on one channel; see `Source` and `attribute_source`."""
    return attribute_source(Source(channel.name, channel, interval_ns, samples, gaps, overranges), edges, method)


def attribute_source(source: Source, edges: Edges, method: str | None = None) -> Attribution:
    """The energy of each phase on one channel.

    A phase gets no energy where the readings cannot resolve it (without deconvolution it must hold a whole averaging
    window, however the sensor's updates fall; with it, it must come out to `UNDETERMINED`), or where the meter was over
    its range or changed it. All phases of an inference are attributed alike: those of short ones, or of all inferences
    where `method` says so, by deconvolution. UserError where there is no such method.
    """
    if method not in {None, *METHODS}:
        raise UserError(f"{method!r} is no method{nearest(str(method), METHODS)}")
    found = source.readings()
    followed = direct(source, found, edges)
    slow = _slow(source, edges, method)
    if edges.timeline is None or not slow.any() or len(found.values) < FEWEST:
        return followed
    return _deconvolved(source, found, edges, slow, followed)


def _slow(source: Source, edges: Edges, method: str | None) -> NDArray[np.bool_]:
    """Which phases to deconvolve."""
    if edges.inference is None:
        return np.zeros(len(edges.start_ns), bool)
    own = edges.inference >= 0
    followed = "integrate" if source.channel.kind is Kind.GAUGE else "counter"
    if method in {"deconvolve", followed}:
        return own & (method == "deconvolve")
    shortest = np.full(edges.inference.max(initial=-1) + 1, np.inf)
    np.minimum.at(shortest, edges.inference[own], ((edges.stop_ns - edges.start_ns) * NS)[own])
    return own & (np.append(shortest, np.inf)[edges.inference] < source.slow_s)


def _deconvolved(
    source: Source, found: Readings, edges: Edges, slow: NDArray[np.bool_], followed: Attribution
) -> Attribution:
    """What was `followed`, with the `slow` phases deconvolved."""
    assert edges.timeline is not None
    lost = source.lost(found)
    solved = solve(source.channel, found, edges.timeline, lost, certified=source.certified)
    start, stop, boundary_u_s = edges.start_ns[slow], edges.stop_ns[slow], edges.boundary_u_s[slow]
    energies = phase_energies(solved, start, stop, boundary_u_s)
    terms = slow_budget(source.channel, np.asarray((stop - start) * NS), energies)
    status = _slow_status(source, energies, terms, lost, start, stop)
    energy, shared = np.where(status == OK, energies.energy_j, np.nan), energies.shared
    rows = sparse.csr_array(
        (np.ones(len(start)), (np.flatnonzero(slow), np.arange(len(start)))), (len(slow), len(start))
    )
    known = sparse.diags_array((status == OK).astype(float))

    def into(whole: NDArray[Any], part: NDArray[Any]) -> NDArray[Any]:
        whole = whole.copy()
        whole[slow] = part
        return whole

    return Attribution(
        into(followed.method, np.full(len(start), "deconvolve", object)),
        into(followed.energy_j, energy),
        {name: into(followed.budget[name], np.where(status == OK, term, np.nan)) for name, term in terms.items()},
        into(followed.status, status),
        sparse.csr_array(rows @ known @ shared),
    )


def _slow_status(
    source: Source, found: Energies, terms: dict[str, Floats], lost: Ints, start: Ints, stop: Ints
) -> NDArray[np.object_]:
    """Why a deconvolved phase has no energy, with what to change."""
    status = np.full(len(start), OK, object)
    known = UNDETERMINED * np.maximum(found.energy_j, 0.0)
    doubt = np.sqrt(np.sum([terms[name] ** 2 for name in ("noise", "ramp", "start", "boundary")], axis=0))
    status[doubt > known] = TOO_SLOW
    status[np.abs(terms["ramp"]) > known] = RAMP_OR_LAG
    status[~found.sound] = "not covered by readings"
    for begin, end in lost:
        seen = np.minimum(end, stop) - np.maximum(begin, start)
        status[seen > UNSEEN * (stop - start)] = "a gap in the readings"
    refused = source.refused(start, stop)
    return np.where(refused == OK, status, refused)
