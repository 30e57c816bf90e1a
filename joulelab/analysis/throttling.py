"""Series whose device slowed down or sped up on the way: found in the order of their trials, and left out with that."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pandas as pd

from joulelab.analysis.dataset import SUBJECT, Phases
from joulelab.analysis.modelling.losses import Fit
from joulelab.analysis.modelling.work import decode_pairs, passes
from joulelab.calibration.integrals import Floats

WINDOW = 9
"""Trials whose median is looked at: a stray trial or four do not move it."""
LEAST = 12
"""Trials that a series needs to be looked at."""
SHIFT = 0.07
"""Such a median is off by at least this share where a device throttles. Below it lie what a linear form misses and what
devices do at rest: under 6 % in the clean series of edge-llm-bench, while its throttled ones begin at 8 %.
"""
SIGMAS = 5.0
"""And by so many standard deviations of a median of as many trials."""
CAUSE = "throttled: its rate drifts by {:.0f} % in the order of its trials"
MAD = 1.4826
"""The standard deviation of normal noise over its median absolute value."""
MEDIAN = 1.2533
"""The standard deviation of a median of normal values over that of their mean."""


def without_throttled(phases: Phases) -> Phases:
    """The same, where series that throttled have neither time nor energy: their status says so, and a note.

    A series is the decodes of one subject in one run, in the order of their trials. It may not show where contexts grow
    with the trials whether its device throttled, or the work costs that much more from some context on.
    """
    table, notes = phases.table.copy(), list(phases.notes)
    for name, rows, cause in _throttled(table):
        table.loc[rows, ["duration_s", "energy_j", "energy_u_j"]] = np.nan
        table.loc[rows, "status"] = cause
        table.loc[rows, "throttled"] = True
        notes.append(f"{name}: {len(rows)} rows are left out, {cause}")
    return replace(phases, table=table, notes=notes)


def _throttled(table: pd.DataFrame) -> Iterator[tuple[str, pd.Index[int], str]]:
    """Each throttled series: what it is of, its rows of all phases, and the cause."""
    for _, rows in table.groupby(["run", *SUBJECT], dropna=False, sort=False):
        decodes = rows[(rows["phase"] == "decode") & rows["duration_s"].notna() & (rows["output"] > 1)]
        decodes = decodes.drop_duplicates("inference").sort_values("inference")
        repeated = decodes.duplicated(["history", "prompt", "output"]).any()  # else rows may be sorted by anything
        if repeated and len(decodes) >= LEAST and (shift := drift(decodes)):
            first = rows.iloc[0]
            named = "/".join(str(first[name]) for name in ("device", "model", "quant") if pd.notna(first[name]))
            yield named, rows.index, CAUSE.format(100 * abs(shift))


def drift(decodes: pd.DataFrame) -> float | None:
    """How far the time a pass strays, as a share, from what the work explains, for most of `WINDOW` trials in a row.

    `decodes`, in the order of their trials, have `history`, `prompt`, `output` and `duration_s`. None where that is
    within what single trials scatter by. The work is explained by a fit of least absolute relative errors, which a
    minority of throttled trials does not bend; the noise is the median step between neighbours, which no slow drift
    enters.
    """
    h, p, o, seconds = (decodes[name].to_numpy(np.float64) for name in ("history", "prompt", "output", "duration_s"))
    X = np.stack([passes(o), decode_pairs(h, p, o)], axis=1)
    off = np.log(seconds / (X @ Fit(np.zeros(2, np.bool_), "quantile")(X, seconds)))
    medians = np.median(np.lib.stride_tricks.sliding_window_view(off, WINDOW), axis=1)
    strayed = medians[np.abs(medians).argmax()]
    return float(np.expm1(strayed)) if abs(strayed) > max(SHIFT, SIGMAS * _noise(off)) else None


def _noise(off: Floats) -> float:
    """The standard deviation of a median of `WINDOW` trials."""
    single = MAD * np.median(np.abs(np.diff(off))) / np.sqrt(2)
    return float(MEDIAN * single / np.sqrt(WINDOW))
