"""What shifts between sessions, days or runs: one gain each, estimated from the configurations that they share."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

import numpy as np
import pandas as pd
from scipy import sparse, stats
from scipy.sparse.csgraph import connected_components

from joulelab.analysis.modelling.intervals import LEVEL
from joulelab.calibration.integrals import Floats
from joulelab.errors import DataInvalid

Gain = Literal["session", "day", "run"]
_CELL = ["phase", "history", "prompt", "output"]
_DATE = re.compile(r"(\d{4})-?(\d{2})-?(\d{2})(?!\d)")


@dataclass(frozen=True)
class Gains:
    """One factor a group, of geometric mean 1.

    `table` has a row a group: `group`, `gain`, and its 95 % interval `low`, `high` (NaN where nothing tells it).
    `anchors` is the number of configurations that several groups have. `spread_u_rel`: the relative standard
    uncertainty of a cost in a group that was never measured, from the spread of the gains; twice it is a 95 % interval,
    which few groups make wide (Student's t).
    """

    by: Gain
    table: pd.DataFrame
    anchors: int
    spread_u_rel: float

    def of(self, rows: pd.DataFrame) -> Floats:
        """The gain of each row."""
        return groups(rows, self.by).map(self.table.set_index("group")["gain"]).to_numpy(np.float64)


def groups(rows: pd.DataFrame, by: Gain) -> pd.Series[str]:
    """The session, day or run that each row belongs to."""
    session = rows["session"].fillna("")
    if by == "run":
        return session + "/" + rows["run"]
    return session.map(day) if by == "day" else session


def day(session: str) -> str:
    """The day of a session whose name begins with a date, as an ISO date; else the name."""
    found = _DATE.match(session)
    return "-".join(found.groups()) if found else session


def measured(sessions: Iterable[str]) -> tuple[str, str] | None:
    """The first and the last day of sessions, as ISO dates; None where one does not tell its date."""
    if not all(_DATE.match(session) for session in sessions):
        return None
    days = sorted(map(day, sessions))
    return (days[0], days[-1]) if days else None


def estimate(rows: pd.DataFrame, by: Gain) -> Gains:
    """The gains of `rows`, from those of their totals where there are totals.

    A cell is a configuration in a group. The logarithms of the cells' means are a configuration's cost and a group's
    gain, by least squares (two-way layout without interaction; Scheffe, The Analysis of Variance, 4.1); what the cells
    scatter by beyond that, or where too few are left the repeats, gives the intervals. DataInvalid, with the reason,
    where the groups are not connected by configurations that they share.
    """
    totals = rows[(rows["phase"] == "total") & ~rows["unfit"]]
    used = rows[~rows["unfit"]] if totals.empty else totals
    cells = np.log(used["y"]).groupby([*(used[name] for name in _CELL), groups(used, by).rename("group")])
    table = pd.DataFrame({"mean": cells.mean(), "variance": cells.var() / cells.size(), "spare": cells.size() - 1})
    table["cell"] = table.groupby(_CELL).ngroup()
    table = table.reset_index("group")
    names = sorted(table["group"].unique())
    _connected(table, names, by)
    anchors = table[table["cell"].duplicated(keep=False)]
    effect, half = _two_way(anchors, names)
    ends = {"gain": np.exp(effect), "low": np.exp(effect - half), "high": np.exp(effect + half)}
    n, level = len(names), (1 + LEVEL) / 2
    spread = np.std(effect, ddof=1) * np.sqrt(1 + 1 / n) * stats.t.ppf(level, n - 1) / stats.norm.ppf(level)
    return Gains(by, pd.DataFrame({"group": names, **ends}), int(anchors["cell"].nunique()), float(spread))


def _connected(table: pd.DataFrame, names: list[str], by: Gain) -> None:
    group, cell = pd.Categorical(table["group"], names).codes, table["cell"].to_numpy() + len(names)
    edges = sparse.coo_array((np.ones(len(cell)), (group, cell)), (cell.max() + 1,) * 2)
    part = connected_components(edges, directed=False)[1][: len(names)]
    if apart := [name for name, its in zip(names, part, strict=True) if its != part[0]]:
        raise DataInvalid(
            f"{names[0]} and {apart[0]} share no configuration that tells a gain a {by}: measure one in both"
        )


def _two_way(anchors: pd.DataFrame, names: list[str]) -> tuple[Floats, Floats]:
    """The effects of the groups, which add up to 0, and half their 95 % intervals (NaN without any scatter)."""
    contrast = np.vstack([np.eye(len(names) - 1), -np.ones(len(names) - 1)])
    member = pd.DataFrame(contrast[pd.Categorical(anchors["group"], names).codes]).assign(y=anchors["mean"].to_numpy())
    within = (member - member.groupby(anchors["cell"].to_numpy()).transform("mean")).to_numpy()
    X, y = within[:, :-1], within[:, -1]
    effect = np.linalg.lstsq(X, y, rcond=None)[0]
    dof, variance = len(y) - anchors["cell"].nunique() - len(effect), np.sum((y - X @ effect) ** 2)
    if dof == 0:
        dof = int(anchors["spare"].sum())
        variance = anchors["variance"].mean() * dof
    u = np.sqrt(np.diag(contrast @ np.linalg.inv(X.T @ X) @ contrast.T) * variance / dof) if dof else np.nan
    return contrast @ effect, np.asarray(stats.t.ppf((1 + LEVEL) / 2, dof) * u) if dof else np.full(len(names), np.nan)
