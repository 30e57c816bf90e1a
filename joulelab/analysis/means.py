"""Mean energies of configurations, each with one budget of its uncertainty (GUM, JCGM 100:2008)."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import sparse, stats

from joulelab.analysis.budget import TERMS
from joulelab.analysis.dataset import SUBJECT, SYSTEMATIC, Phases, together
from joulelab.analysis.modelling.intervals import LEVEL
from joulelab.calibration.integrals import Floats

CONFIGURATION = ["session", *SUBJECT, "channel", "scope", "origin", "phase", "history", "prompt", "output"]
FIXED = (*SYSTEMATIC, "resolution")
"""What errs alike in every repeat and so does not average out; a steady signal is rounded alike (GUM F.2.2.1)."""
RANDOM = ("sampling", "boundary")
"""What errs anew in every repeat. So does the noise, but for what rows share of it."""


class Means(NamedTuple):
    """`table` has a row a mean: `CONFIGURATION` (a prefill does not know its output), `runs`, `duration_s`, `energy_j`
    with its standard uncertainty `energy_u_j`, effective degrees of freedom `energy_dof` and coverage factor for 95 %
    `energy_k`; the same of what lies above idle: `dynamic_j`, `dynamic_u_j`, `dynamic_dof`, `dynamic_k`.

    `budget` and `dynamic` have what those uncertainties consist of, a column [J] a cause. Unknown is NaN: one run does
    not tell its repetition, nor one idle step its baseline.
    """

    table: pd.DataFrame
    budget: pd.DataFrame
    dynamic: pd.DataFrame


def means(phases: Phases) -> Means:
    """The mean energy of every configuration on every channel, over those repeats that have one."""
    known = phases.table["energy_j"].notna().to_numpy()
    rows = _with_idle(phases)[known].reset_index(drop=True)
    group = rows.groupby(CONFIGURATION, dropna=False, sort=False).ngroup().to_numpy()
    runs = np.bincount(group)
    average = sparse.csr_array((1 / runs[group], (group, np.arange(len(rows)))), (len(runs), len(rows)))

    energy, above = rows["energy_j"].to_numpy(), (rows["energy_j"] - rows["idle_j"]).to_numpy()
    scatter = average @ (energy - (average @ energy)[group]) ** 2 / _spare(runs)
    budget = _budget(_loads(phases)[known], _shared(phases)[known], average, scatter)
    repetition_doubt = np.where(budget["repetition"] > 0, scatter**2 / _spare(runs), 0.0)

    baseline = average @ (rows["idle_u_w"] * rows["duration_s"]).to_numpy()
    baseline_doubt = baseline**4 / _spare(average @ rows["steps"].to_numpy())
    # An offset is in the idle power too, and a gain errs by its share of the difference.
    gain = np.abs(average @ (rows["gain_u_rel"].to_numpy() * above))
    dynamic = budget.assign(gain=gain, offset=0.0, baseline=baseline)

    table = rows.loc[~rows.duplicated(CONFIGURATION), CONFIGURATION].reset_index(drop=True)
    return Means(
        table.assign(
            runs=runs,
            duration_s=average @ rows["duration_s"].to_numpy(),
            energy_j=average @ energy,
            **_expanded("energy", budget, repetition_doubt),
            dynamic_j=average @ above,
            **_expanded("dynamic", dynamic, repetition_doubt + baseline_doubt),
        ),
        budget,
        dynamic,
    )


def _with_idle(phases: Phases) -> pd.DataFrame:
    """The table with the spread of the idle power, and over how many steps, beside each row."""
    table = phases.table.assign(output=phases.table["output"].where(phases.table["phase"] != "prefill"))
    idle = phases.idle[["run", "channel", "idle_u_w", "steps"]].drop_duplicates(["run", "channel"])
    rows = table.merge(idle, "left", ["run", "channel"])
    return rows.astype(dict.fromkeys(("duration_s", "energy_j", "idle_j", "gain_u_rel", "idle_u_w", "steps"), float))


def _loads(phases: Phases) -> pd.DataFrame:
    """The budget with every term: unknown where there is no budget, 0 where it is older than a term."""
    if phases.budget is None:
        return pd.DataFrame(np.nan, phases.table.index, list(TERMS))
    return phases.budget.reindex(columns=list(TERMS), fill_value=0.0)


def _shared(phases: Phases) -> sparse.csr_array:
    return sparse.csr_array((len(phases.table), 0)) if phases.shared is None else phases.shared


def _spare(runs: NDArray[Any]) -> Floats:
    """The degrees of freedom of what so many show the spread of."""
    return np.where(runs > 1, runs - 1.0, np.nan)


def _budget(loads: pd.DataFrame, shared: sparse.csr_array, average: sparse.csr_array, scatter: Floats) -> pd.DataFrame:
    """The terms of the means [J]; `scatter` is the variance [J^2] of the means that their repeats show.

    repetition: what repeats differ by more than their noise explains. Those that were estimated together were drawn
    towards one another: they differ by less than what they stand for, and what the noise says they differ by lacks.
    """
    runs, squared = np.diff(average.indptr), average.power(2)
    joint, noise = together(shared), loads["noise"].to_numpy() ** 2
    alone, random = np.where(joint, 0.0, noise), sum(loads[term].to_numpy() ** 2 for term in RANDOM)
    common = (average @ shared).power(2).sum(axis=1)
    apart = (squared @ np.where(joint, noise, 0.0) - common / runs) * runs / _spare(runs)
    missing = apart - squared @ (alone + random)
    return pd.DataFrame(
        {
            **{term: np.abs(average @ loads[term].to_numpy()) for term in FIXED},
            **{term: np.sqrt(squared @ loads[term].to_numpy() ** 2) for term in RANDOM},
            "noise": np.sqrt(squared @ alone + common),
            "repetition": np.sqrt(np.maximum(scatter + missing, 0.0)),
        }
    )


def _expanded(name: str, budget: pd.DataFrame, doubt: Floats) -> dict[str, Floats]:
    """The combined uncertainty and what to multiply it with for a level of 95 %; `doubt` is the sum over the estimated
    terms of variance squared over degrees of freedom [J^4] (Welch-Satterthwaite, GUM G.4.1).
    """
    variance = (budget**2).sum(axis=1, skipna=False).to_numpy()
    with np.errstate(divide="ignore", invalid="ignore"):
        dof = np.where(doubt > 0, variance**2 / doubt, np.where(np.isnan(doubt), np.nan, np.inf))
    return {f"{name}_u_j": np.sqrt(variance), f"{name}_dof": dof, f"{name}_k": stats.t.ppf((1 + LEVEL) / 2, dof)}
