"""What is modelled: the rows of one subject, for its energy on one power channel, with every row left out listed."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from scipy import sparse

from joulelab.analysis.attribution import OK
from joulelab.analysis.dataset import SUBJECT, SYSTEMATIC, Phases, together
from joulelab.calibration.integrals import Floats
from joulelab.errors import DataInvalid
from joulelab.quantities import Channel, Origin

PHASES = ("prefill", "decode", "total")
KEYS = {
    "prefill": ["history", "prompt"],
    "decode": ["history", "prompt", "output"],
    "total": ["history", "prompt", "output"],
}
"""What a configuration of a phase is: the prefill does not know how many tokens will follow."""
RESOLVED = ("deconvolve", "steady")
"""Methods that do not need a phase to be longer than the sensor's period."""
LOADS = [f"{term}_load" for term in SYSTEMATIC]


@dataclass(frozen=True)
class Case:
    """One target of one subject, for energy on one channel.

    `rows`, under their numbers in the phases table, have `run`, `phase`, `history`, `prompt`, `output`, `y` [s or J],
    the systematic loads [J], `hidden` (the variance [J^2] that values estimated together lack) and `short` (of a
    configuration whose phase is shorter than the sensor resolves well); `dropped` have `phase`, `run`, `inference`,
    `history`, `prompt`, `output` and `cause`, the short ones included. `shared` is that of the phases.
    """

    subject: dict[str, Any]
    label: str
    sessions: tuple[str, ...]
    target: str
    channel: str | None
    scope: str | None
    origin: str
    rows: pd.DataFrame
    dropped: pd.DataFrame
    shared: sparse.csr_array | None

    @property
    def phases(self) -> list[str]:
        seen = {*self.rows["phase"], *self.dropped["phase"]}
        return [phase for phase in PHASES if phase in seen]

    def points(self, phase: str, rows: pd.DataFrame | None = None, *, short: bool = False) -> pd.DataFrame:
        """One row a configuration of `phase`: means over its repeats, their number `runs` and variation `cv`.

        Of `rows`, otherwise of all; with the short ones only where asked for.
        """
        grouped = self._repeats(phase, self.rows if rows is None else rows, short)
        points: pd.DataFrame = grouped[["y", *LOADS, "hidden", "short"]].mean()
        points["runs"] = grouped.size()
        points["cv"] = np.sqrt(grouped["y"].var() + points["hidden"]) / points["y"]
        return points.reset_index()

    def correlated(self, phase: str) -> Floats:
        """The covariance [points, points] in J^2 that the points of `phase` have because of what their rows share."""
        repeats = self._repeats(phase, self.rows, short=False)
        point, runs = repeats.ngroup(), repeats["y"].transform("size")
        if self.shared is None:
            return np.zeros((repeats.ngroups, repeats.ngroups))
        average = sparse.csr_array((1 / runs, (point, runs.index)), (repeats.ngroups, self.shared.shape[0]))
        factors = average @ self.shared
        return np.asarray((factors @ factors.T).toarray())

    def _repeats(self, phase: str, rows: pd.DataFrame, short: bool) -> Any:
        """The rows of each configuration of `phase`."""
        found = rows[(rows["phase"] == phase) & (short | ~rows["short"])]
        found = found.assign(output=1) if phase == "prefill" else found
        return found.groupby(["history", "prompt", "output"], sort=True)

    def lost(self, phase: str) -> pd.DataFrame:
        return self.dropped[self.dropped["phase"] == phase]

    def lost_share(self, phase: str) -> float:
        """The share of the rows of `phase` that was dropped."""
        lost = len(self.lost(phase))
        kept = ((self.rows["phase"] == phase) & ~self.rows["short"]).sum()
        return float(lost / (lost + kept))

    def check(self, phase: str) -> None:
        """DataInvalid where `phase` has no rows left, or rows of several sessions: they shift more than models err."""
        if len(self.sessions) > 1:
            raise DataInvalid(f"{' and '.join(self.sessions)} are never pooled: name the runs of one session")
        if self.lost_share(phase) == 1:
            raise DataInvalid(f"every row was dropped, most of them as {self.lost(phase)['cause'].mode()[0]}")


def cases(phases: Phases, min_periods: float) -> Iterator[Case]:
    """Every subject's time, and its energy on every channel; under `min_periods` sensor periods a phase is short."""
    everything = phases.table.join(_systematic(phases)).assign(hidden=_hidden(phases))
    for values, table in everything.groupby(list(SUBJECT), dropna=False, sort=False):
        known = pd.Series(values, SUBJECT, object).notna()
        subject = {name: x if known[name] else None for name, x in zip(SUBJECT, values, strict=True)}
        sessions = tuple(sorted(table["session"].dropna().unique()))
        about = {"subject": subject, "label": _label(subject, everything), "sessions": sessions}
        yield _time(about, table.drop_duplicates(["session", "run", "inference", "phase"]))
        for name, part in table.groupby("channel", sort=False):
            yield _energy(about | {"shared": phases.shared}, part, phases.channels[str(name)], str(name), min_periods)


def _label(subject: dict[str, Any], table: pd.DataFrame) -> str:
    """The device, and what else it takes to tell its subjects apart."""
    own = table[table["device"] == subject["device"]]
    return "/".join(str(subject[n]) for n in SUBJECT if n == "device" or own[n].nunique(dropna=False) > 1)


def _systematic(phases: Phases) -> pd.DataFrame:
    """The systematic loads [J] of all rows; where there is no budget, the gain's at least."""
    budget = pd.DataFrame(index=phases.table.index) if phases.budget is None else phases.budget
    loads = budget.reindex(columns=list(SYSTEMATIC))
    loads["gain"] = loads["gain"].fillna(phases.table["gain_u_rel"] * phases.table["energy_j"])
    return loads.fillna(0.0).set_axis(LOADS, axis=1)


def _hidden(phases: Phases) -> Floats | float:
    """The variance [J^2] of the noise of values that were estimated together, and so drawn towards one another."""
    if phases.budget is None or phases.shared is None:
        return 0.0
    return np.where(together(phases.shared), phases.budget["noise"].fillna(0.0) ** 2, 0.0)


def _time(about: dict[str, Any], table: pd.DataFrame) -> Case:
    origins = set(table["origin"])
    origin = next((o for o in (Origin.SIMULATED, Origin.IMPORTED) if o in origins), Origin.MEASURED)
    rows = table.assign(y=table["duration_s"], short=False, **dict.fromkeys(LOADS, 0.0), hidden=0.0)
    named = {"target": "time", "channel": None, "scope": None, "origin": origin, "shared": None}
    return _case(about | named, rows, "")


def _energy(about: dict[str, Any], table: pd.DataFrame, channel: Channel, name: str, min_periods: float) -> Case:
    least_s = min_periods * max(channel.sensor.period_s or 0.0, channel.sensor.window_s)
    kept = table.assign(y=table["energy_j"], short=False)
    for phase, keys in KEYS.items():
        # The mean of a configuration decides: to leave out its short repeats alone would keep the slow ones.
        own = kept[kept["phase"] == phase]
        mean = own.groupby(keys)["duration_s"].transform("mean")
        kept.loc[own.index, "short"] = (mean < least_s) & ~own["method"].isin(RESOLVED)
    cause = f"shorter than {min_periods:g} sensor periods ({least_s:g} s)"
    origin = str(table["origin"].iloc[0])
    return _case(about | {"target": "energy", "channel": name, "scope": channel.scope, "origin": origin}, kept, cause)


def _case(about: dict[str, Any], table: pd.DataFrame, short: str) -> Case:
    """Sort the rows of a case into those to fit, which have a `y`, and those to drop, each with its cause."""
    target = about["target"]
    status = table["status"].where(table["status"] != OK).fillna(f"no {target}")
    cause = status.where(table["y"].isna(), f"{target} is not positive").where(~(table["y"] > 0))
    known = cause.isna()
    cause = cause.where(~known | ~table["short"], short)
    listed = table.assign(cause=cause)[["phase", "run", "inference", "history", "prompt", "output", "cause"]]
    rows = table.loc[known, ["run", "phase", "history", "prompt", "output", "y", "short", "hidden", *LOADS]]
    rows = rows.astype(dict.fromkeys(("history", "prompt", "output"), np.float64))
    dropped = listed[cause.notna()].reset_index(drop=True)
    return Case(**about, rows=rows, dropped=dropped)
