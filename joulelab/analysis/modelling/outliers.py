"""Gross outliers: rows that no model is fitted to or judged by, found by the same rule everywhere and always listed."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace

import numpy as np
import pandas as pd
from scipy import stats
from scipy.optimize import least_squares

from joulelab.analysis.modelling.cases import KEYS, LISTED, Case
from joulelab.analysis.modelling.work import decode_pairs, passes, prefill_pairs
from joulelab.calibration.integrals import Floats

DEVIATIONS = 10.0
"""Robust standard deviations that an outlier is away by."""
FACTOR = 1.5
"""And the factor. Both are far beyond what noise or a missing term explain: what is only unusual stays in."""
MIN_REPEATS = 3
SAMPLE = 2000
_AWAY = f"outlier: by a factor over {FACTOR:g} and {DEVIATIONS:g} robust standard deviations away from"
AMONG_REPEATS, BY_FIT = f"{_AWAY} its repeats", f"{_AWAY} a robust fit"


def cleaned(cases: Iterable[Case]) -> Iterator[Case]:
    """The cases without their outliers, which are listed as dropped; so the time beside an energy."""
    times: dict[str, Case] = {}
    for case in cases:
        found = _cleaned(case)
        if case.target == "time":
            times[case.label] = found
        yield replace(found, timed=times[case.label] if case.timed else None)


def _cleaned(case: Case) -> Case:
    causes = pd.concat([_causes(case.rows[case.rows["phase"] == phase], phase) for phase in case.phases])
    if causes.empty:
        return case
    lost = case.rows.loc[causes.index, [*LISTED, "outside"]].assign(cause=causes)
    dropped = pd.concat([case.dropped, lost], ignore_index=True)
    return replace(case, rows=case.rows.drop(causes.index), dropped=dropped)


def _causes(rows: pd.DataFrame, phase: str) -> pd.Series[str]:
    """The outliers among the rows of one phase, each with its cause.

    A row is compared with the median of its configuration, where that has three repeats or more; the others with a fit
    that gross errors do not move.
    """
    rows = rows[~rows["unfit"]]
    cost = np.log(rows["y"])
    grouped = cost.groupby([rows[name] for name in KEYS[phase]])
    repeated = grouped.transform("size") >= MIN_REPEATS
    alone = rows[~repeated]
    found = {AMONG_REPEATS: (cost - grouped.transform("median"))[repeated], BY_FIT: cost[~repeated] - _fitted(alone)}
    return pd.concat([pd.Series(cause, _beyond(away)) for cause, away in found.items()])


def _beyond(away: pd.Series[float]) -> pd.Index[int]:
    """The rows whose logarithmic deviations are outliers."""
    spread = away.abs().median() / stats.norm.ppf(0.75)
    found: pd.Index[int] = away.index[away.abs() > max(np.log(FACTOR), DEVIATIONS * spread)]
    return found


def _fitted(rows: pd.DataFrame) -> Floats:
    """The logarithm of what a sum of work counts with positive coefficients says of each row.

    Errors are logarithmic with Cauchy's loss, so that one that is 20 times too small moves it as little as one that is
    20 times too large (Huber and Ronchetti, Robust Statistics, 7).
    """
    h, p, o = (rows[name].to_numpy(np.float64) for name in ("history", "prompt", "output"))
    counts = _counts(str(rows["phase"].iloc[0]) if len(rows) else "", h, p, o)
    y: Floats = np.log(rows["y"].to_numpy(np.float64))
    if len(rows) <= counts.shape[1]:
        return y
    some = slice(None, None, max(len(rows) // SAMPLE, 1))
    start = [np.log(np.median(np.exp(y[c > 0]) / c[c > 0]) / counts.shape[1]) for c in counts.T]

    def errors(log_b: Floats) -> Floats:
        return np.asarray(np.log(counts[some] @ np.exp(log_b)) - y[some])

    def slopes(log_b: Floats) -> Floats:
        parts = counts[some] * np.exp(log_b)
        return np.asarray(parts / parts.sum(axis=1, keepdims=True))

    found = least_squares(errors, start, jac=slopes, loss="cauchy", f_scale=0.1)
    return np.asarray(np.log(counts @ np.exp(found.x)))


def _counts(phase: str, h: Floats, p: Floats, o: Floats) -> Floats:
    """The work counts [rows, terms] that some row has."""
    decode = [passes(o), decode_pairs(h, p, o)] if phase in {"decode", "total"} else []
    prefill = [p, prefill_pairs(h, p)] if phase in {"prefill", "total"} else []
    moved = [h] if phase == "transfer" else []
    counts = np.stack([np.ones_like(p), *prefill, *decode, *moved], axis=1)
    return np.asarray(counts[:, (counts > 0).any(axis=0)])
