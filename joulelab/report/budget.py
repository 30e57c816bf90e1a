"""The uncertainty budget of a dataset's energies, largest cause first, and its idle power."""

from __future__ import annotations

from dataclasses import dataclass

import pandas as pd

from joulelab.analysis.cases import PHASES
from joulelab.analysis.dataset import Phases
from joulelab.report.numbers import percent, quantity

COMBINED = "combined"


@dataclass(frozen=True)
class Budget:
    """The standard uncertainties (coverage factor 1) of one channel's energies.

    `terms` has a row a cause, the last one `combined`, and a column a phase: the median relative uncertainty [%].
    """

    channel: str
    origin: str
    terms: pd.DataFrame

    @property
    def rows(self) -> list[dict[str, str]]:
        cells = ((str(cause), row) for cause, row in self.terms.iterrows())
        return [{"cause": cause} | {str(phase): percent(value) for phase, value in row.items()} for cause, row in cells]


def budgets(phases: Phases) -> list[Budget]:
    """A budget for each channel that has energies; none for a dataset that came without."""
    if phases.budget is None:
        return []
    table = phases.table.reset_index(drop=True)
    known = table[table["energy_j"] > 0]
    return [_budget(str(name), rows, phases.budget) for name, rows in known.groupby("channel", sort=False)]


def _budget(channel: str, rows: pd.DataFrame, loads: pd.DataFrame) -> Budget:
    absolute = loads.iloc[rows.index].abs().assign(**{COMBINED: rows["energy_u_j"]})
    terms = (100 * absolute.div(rows["energy_j"], axis=0)).groupby(rows["phase"]).median().T
    terms = terms[[phase for phase in PHASES if phase in terms]]
    causes = terms.drop(COMBINED).loc[lambda found: (found > 0).any(axis=1)]
    ordered = causes.sort_values(causes.columns[-1], ascending=False)
    return Budget(channel, str(rows["origin"].iloc[0]), pd.concat([ordered, terms.loc[[COMBINED]]]))


def idle_power(phases: Phases) -> list[dict[str, str]]:
    """Idle power by channel; the spread is a standard deviation over the idle steps."""
    return [
        {
            "channel": str(row["channel"]),
            "origin": str(phases.channels[row["channel"]].origin),
            "power": quantity(row["idle_w"], "W"),
            "spread": quantity(row["idle_u_w"], "W"),
            "idle steps": str(row["steps"]),
        }
        for row in phases.idle.to_dict("records")
    ]
