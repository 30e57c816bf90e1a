"""The coefficients of an energy model straight from readings, without energies of single phases in between."""

from __future__ import annotations

from dataclasses import replace
from typing import NamedTuple

import numpy as np
from scipy import sparse

from joulelab.analysis.deconvolution import layout, solve_layout
from joulelab.analysis.edges import Edges, Source
from joulelab.calibration.integrals import NS, Floats
from joulelab.errors import DataInvalid


class Coefficients(NamedTuple):
    """Coefficients [k] and their covariance [k, k]: of the noise, the timing and how much inferences differ."""

    beta: Floats
    covariance: Floats


def coefficients(source: Source, edges: Edges, design: Floats) -> Coefficients:
    """`beta` where the energy of each phase is `design` [phases, k] @ beta, from the readings of one channel.

    What drew power beside these phases keeps powers of its own. For sensors that are slow beside the phases: no phase
    is cut into pieces. DataInvalid where nothing says what the device did.
    """
    if edges.timeline is None:
        raise DataInvalid(f"{source.name}: coefficients need a timeline of all that drew power")
    found, timeline = source.readings(), edges.timeline
    whole = layout(found, timeline)
    stretch = np.searchsorted(timeline.edges_ns, edges.start_ns) + 1
    duration_s = (edges.stop_ns - edges.start_ns) * NS
    rows, k = np.arange(len(stretch)), design.shape[1]
    shape = (len(timeline.label), len(stretch))
    place = sparse.csr_array((1 / duration_s, (stretch, rows)), shape)
    own = place @ sparse.csr_array(design)
    others = sparse.diags_array(~np.isin(np.arange(shape[0]), stretch) * 1.0) @ whole.level
    others = others[:, np.flatnonzero(others.sum(axis=0))]
    modelled = replace(whole, level=sparse.csr_array(sparse.hstack([own, others])))
    solved = solve_layout(source.channel, found, modelled, source.lost(found), certified=source.certified)
    return Coefficients(solved.fit.levels[:k], solved.fit.covariance[:k, :k])
