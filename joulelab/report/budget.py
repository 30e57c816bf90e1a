"""Where the uncertainty of the energies comes from, largest cause first."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

import numpy as np
import pandas as pd

from joulelab.analysis.dataset import Phases
from joulelab.analysis.means import Means
from joulelab.analysis.modelling.cases import PHASES
from joulelab.report.numbers import number, percent
from joulelab.report.words import CAUSES

COMBINED, COVERAGE = "combined", "coverage factor for 95 %"
ONE, MEAN, ABOVE = "one inference", "mean of its repeats", "mean, above idle"


@dataclass(frozen=True)
class Budget:
    """The standard uncertainties (coverage factor 1) of one channel's energies, of a single inference and of means.

    `terms` has a row a cause, the last one `combined`, and columns [what of, phase]: the median relative uncertainty
    [%]. `coverage` has the median factor for 95 % in the same columns; a single inference has none of its own.
    """

    channel: str
    origin: str
    terms: pd.DataFrame
    coverage: pd.Series[float]

    @property
    def columns(self) -> list[tuple[str, str]]:
        """What each column is of, and its phase."""
        return [(str(of), str(phase)) for of, phase in self.terms.columns.to_frame().itertuples(index=False)]

    @property
    def groups(self) -> Counter[str]:
        """What the columns are of, and how many there are of it."""
        return Counter(of for of, _ in self.columns)

    @property
    def rows(self) -> list[tuple[str, list[str], str]]:
        """Cause, figures, and what the cause is in a few words."""
        said = [(str(cause), [*map(percent, row)], CAUSES.get(str(cause), "")) for cause, row in self.terms.iterrows()]
        return [*said, (COVERAGE, [*map(number, self.coverage)], "")]


def budgets(phases: Phases, found: Means) -> list[Budget]:
    """A budget for each channel that has energies; none for a dataset that came without."""
    if phases.budget is None:
        return []
    rows = phases.table.reset_index(drop=True)
    known = {
        ONE: (rows, phases.budget, "energy"),
        MEAN: (found.table, found.budget, "energy"),
        ABOVE: (found.table, found.dynamic, "dynamic"),
    }
    return [_budget(str(name), known) for name in rows.loc[rows["energy_j"] > 0, "channel"].unique()]


def _budget(channel: str, known: dict[str, tuple[pd.DataFrame, pd.DataFrame, str]]) -> Budget:
    here = {of: (rows[rows["channel"] == channel], loads, what) for of, (rows, loads, what) in known.items()}
    terms = pd.concat({of: _relative(*parts) for of, parts in here.items()}, axis=1)
    causes = terms.drop(COMBINED).loc[lambda found: (found > 0).any(axis=1)]
    order = causes.max(axis=1).sort_values(ascending=False).index
    coverage = pd.concat({of: _coverage(*parts) for of, parts in here.items()})
    return Budget(
        channel,
        str(here[ONE][0]["origin"].iloc[0]),
        pd.concat([causes.loc[order], terms.loc[[COMBINED]]]),
        coverage.reindex(terms.columns),
    )


def _relative(rows: pd.DataFrame, loads: pd.DataFrame, what: str) -> pd.DataFrame:
    """The medians over the rows with energy, in percent of it: a row a cause, a column a phase."""
    rows = rows[rows[f"{what}_j"] > 0]
    absolute = loads.iloc[rows.index].abs().assign(**{COMBINED: rows[f"{what}_u_j"]})
    terms = (100 * absolute.div(rows[f"{what}_j"], axis=0)).groupby(rows["phase"]).median().T
    return terms[[phase for phase in PHASES if phase in terms]]


def _coverage(rows: pd.DataFrame, _loads: pd.DataFrame, what: str) -> pd.Series[float]:
    factor = rows[f"{what}_k"] if f"{what}_k" in rows else pd.Series(np.nan, rows.index)
    return factor.groupby(rows["phase"]).median()
