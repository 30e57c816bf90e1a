"""What is modelled: the rows of one subject, for its energy on one power channel, with every row left out listed."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, Self

import numpy as np
import pandas as pd
from scipy import sparse

from joulelab.analysis.attribution import OK
from joulelab.analysis.dataset import SKIPPED, SUBJECT, SYSTEMATIC, Phases, name_of, together
from joulelab.analysis.modelling.sessions import Gain, Gains, estimate
from joulelab.analysis.modelling.valid import Bound, outside
from joulelab.calibration.integrals import Floats, Ints
from joulelab.errors import DataInvalid
from joulelab.quantities import Channel, Origin

INFERENCE = ("prefill", "decode", "total")
PHASES = (*INFERENCE, "load", "transfer")
KEYS = {
    "prefill": ["history", "prompt"],
    "decode": ["history", "prompt", "output"],
    "total": ["history", "prompt", "output"],
    "load": ["history"],
    "transfer": ["history"],
}
"""What a configuration of a phase is: the prefill does not know how many tokens will follow, and a load, which is of
none, has one configuration.
"""
RESOLVED = ("deconvolve", "steady")
"""Methods that do not need a phase to be longer than the sensor's period."""
MOST = 0.5
FEW = "most repeats of this configuration could not be resolved: those that could came out high"
LOADS = [f"{term}_load" for term in SYSTEMATIC]
CONFIGURATION = ["history", "prompt", "output"]
AVERAGED = ["y", *LOADS, "hidden"]
LISTED = ["phase", "run", "inference", *CONFIGURATION]


@dataclass(frozen=True)
class Case:
    """One target of one subject, for energy on one channel.

    `rows`, under their numbers in the phases table, have `session`, `run`, `inference`, `phase`, `history`, `prompt`,
    `output`, `configuration` (its number), `y` [s or J], the systematic loads [J], `hidden` (the variance [J^2] that
    values estimated together lack), `short` (of a configuration whose phase is shorter than the sensor resolves well),
    `outside` (of the range that was declared valid) and `unfit` (one of these: predicted and shown, but no model is
    fitted to it); `dropped` have `phase`, `run`, `inference`, `history`, `prompt`, `output`, `cause` and `outside`, the
    short ones included. `shared` is that of the phases. `timed`, beside an energy, is the time of the same inferences.
    `valid` are the bounds of the declared range; `gains` were taken out of the rows. `refusal` says why no model can be
    made of any phase.
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
    timed: Case | None = None
    valid: tuple[Bound, ...] = ()
    gains: Gains | None = None
    refusal: str | None = None

    def subset(self, keep: Callable[[pd.DataFrame], pd.Series[bool]]) -> Self:
        """The same with those rows alone that `keep` is true of; so the time beside it."""
        return replace(self, rows=self.rows[keep(self.rows)], timed=self.timed and self.timed.subset(keep))

    def pooled(self, by: Gain) -> Self:
        """The same with one gain a session, day or run taken out; DataInvalid where they share no configuration.

        That the next session has a gain, too, errs alike in all rows: it adds to the load of the channel's gain.
        """
        gains = estimate(self.rows, by)
        rows, gain = self.rows.copy(), gains.of(self.rows)
        rows[["y", *LOADS]] = rows[["y", *LOADS]].div(gain, axis=0)
        rows["hidden"] /= gain**2
        rows["gain_load"] = np.hypot(rows["gain_load"], gains.spread_u_rel * rows["y"])
        timed = self.timed and self.timed.pooled(by)
        return replace(self, rows=rows, gains=gains, timed=timed, shared=_scaled(self.shared, rows.index, 1 / gain))

    @property
    def phases(self) -> list[str]:
        seen = {*self.rows["phase"].unique(), *self.dropped["phase"].unique()}
        return [phase for phase in PHASES if phase in seen]

    @property
    def judged(self) -> list[str]:
        """The phases that have verdicts: of loads there is nothing to hold out."""
        return [phase for phase in self.phases if phase != "load"]

    def points(self, phase: str, rows: pd.DataFrame | None = None, *, unfit: bool = False) -> pd.DataFrame:
        """One row a configuration of `phase`: means over its repeats, their number `runs` and variation `cv`.

        Of `rows`, otherwise of all; with those that no model is fitted to only where asked for.
        """
        found, point = self.repeats(phase, self.rows if rows is None else rows, unfit=unfit)
        runs = np.bincount(point)
        average = sparse.csr_array((1 / runs[point], (point, np.arange(len(point)))), (len(runs), len(point)))
        first = np.unique(point, return_index=True)[1]
        alike = {name: found[name].to_numpy()[first] for name in (*CONFIGURATION, "short", "outside")}
        if phase == "prefill":
            alike["output"] = np.ones(len(first))
        means = dict(zip(AVERAGED, (average @ found[AVERAGED].to_numpy(np.float64)).T, strict=True))
        apart = average @ (found["y"].to_numpy() - means["y"][point]) ** 2
        variance = apart * np.where(runs > 1, runs / np.maximum(runs - 1, 1), np.nan)
        return pd.DataFrame(alike | means | {"runs": runs, "cv": np.sqrt(variance + means["hidden"]) / means["y"]})

    def correlated(self, phase: str) -> sparse.csr_array:
        """What the points of `phase` have in common [points, factors] in J, because of what their rows share: the
        product with the transpose is their covariance.
        """
        found, point = self.repeats(phase, self.rows)
        runs = np.bincount(point)
        if self.shared is None:
            return sparse.csr_array((len(runs), 0))
        average = sparse.csr_array((1 / runs[point], (point, found.index)), (len(runs), self.shared.shape[0]))
        return sparse.csr_array(average @ self.shared)

    @staticmethod
    def repeats(phase: str, rows: pd.DataFrame, *, unfit: bool = False) -> tuple[pd.DataFrame, Ints]:
        """Those of the rows that `points` averages, and the number of the point that each goes into."""
        found = rows[(rows["phase"] == phase) & (unfit | ~rows["unfit"])]
        return found, np.unique(found["configuration"], return_inverse=True)[1]

    def lost(self, phase: str) -> pd.DataFrame:
        return self.dropped[self.dropped["phase"] == phase]

    def lost_share(self, phase: str) -> float:
        """The share of the rows of `phase` within the valid range that was dropped, but for what cannot run at all: of
        that there is nothing to predict.
        """
        found = self.lost(phase)
        lost = (~found["outside"] & ~found["cause"].str.startswith(SKIPPED)).sum()
        kept = ((self.rows["phase"] == phase) & ~self.rows["unfit"]).sum()
        return float(lost / max(lost + kept, 1))

    def check(self, phase: str, *, by_day: bool = False) -> None:
        """DataInvalid where `phase` has no rows left, or all of one configuration, or rows of several sessions: they
        shift more than models err, so they are kept apart `by_day` or not used at all.
        """
        if self.refusal:
            raise DataInvalid(self.refusal)
        if len(self.sessions) > 1 and not (self.gains or by_day):
            names = " and ".join(self.sessions)
            raise DataInvalid(f"{names} are never pooled: name the runs of one session, or use --gain session")
        if self.lost_share(phase) == 1 or (self.rows["phase"] != phase).all():
            raise DataInvalid(f"every row was dropped, most of them as {self.lost(phase)['cause'].mode()[0]}")
        self._check_points(phase)

    def _check_points(self, phase: str) -> None:
        points = self.points(phase)
        if points.empty:
            raise DataInvalid("no row lies within the range that was declared valid")
        if len(points) == 1:
            where = ", ".join(f"{name} {points[name].iloc[0]:g}" for name in KEYS[phase])
            raise DataInvalid(f"all rows repeat one configuration ({where}): vary it")


def cases(phases: Phases, min_periods: float, valid: Sequence[Bound] = (), gain: Gain | None = None) -> Iterator[Case]:
    """Every subject's time, and its energy on every channel; under `min_periods` sensor periods a phase is short.

    `valid` bounds the range that is fitted and judged. With `gain`, sessions are pooled: each, or each day or run of
    theirs, gets a gain of its own.
    """
    for case in _cases(phases, min_periods, valid):
        if gain is None:
            yield case
            continue
        try:
            yield case.pooled(gain)
        except DataInvalid as unconnected:
            yield replace(case, refusal=str(unconnected))


def _cases(phases: Phases, min_periods: float, valid: Sequence[Bound]) -> Iterator[Case]:
    everything = phases.table.join(_systematic(phases)).assign(hidden=_hidden(phases))
    for values, table in everything.groupby(list(SUBJECT), dropna=False, sort=False):
        known = pd.Series(values, SUBJECT, object).notna()
        subject = {name: x if known[name] else None for name, x in zip(SUBJECT, values, strict=True)}
        sessions = tuple(sorted(table["session"].dropna().unique()))
        about = {"subject": subject, "label": _label(subject, everything), "sessions": sessions, "valid": tuple(valid)}
        yield (time := _time(about, table.drop_duplicates(["session", "run", "inference", "phase"])))
        beside = about | {"shared": phases.shared, "timed": time}
        for name, part in table.groupby("channel", sort=False):
            yield _energy(beside, part, phases.channels[str(name)], str(name), min_periods)


def _label(subject: dict[str, Any], table: pd.DataFrame) -> str:
    """The device, and what else it takes to tell its subjects apart."""
    own = table[table["device"] == subject["device"]]
    return name_of(subject, [n for n in SUBJECT if own[n].nunique(dropna=False) > 1])


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
        # Nor to keep the few repeats that a slow sensor does resolve: they are those that came out high.
        unresolved = (own["method"].isin(RESOLVED) & own["y"].isna()).groupby([own[key] for key in keys])
        few = own.index[(unresolved.transform("mean") > MOST) & own["y"].notna()]
        kept.loc[few, ["y", "status"]] = np.nan, FEW
    cause = f"shorter than {min_periods:g} sensor periods ({least_s:g} s)"
    named = {"target": "energy", "channel": name, "scope": channel.scope, "origin": str(table["origin"].iloc[0])}
    if len(scopes := sorted(table["scope"].dropna().unique())) > 1:
        named["refusal"] = (
            f"{name} has rows of scope {' and '.join(scopes)}: what measures differently is another channel"
        )
    return _case(about | named, kept, cause)


def _case(about: dict[str, Any], table: pd.DataFrame, short: str) -> Case:
    """Sort the rows of a case into those to fit, which have a `y`, and those to drop, each with its cause."""
    target = about["target"]
    status = table["status"].where(table["status"] != OK).fillna(f"no {target}")
    cause = status.where(table["y"].isna(), f"{target} is not positive").where(~(table["y"] > 0))
    known, beyond = cause.isna(), _outside(table, about["valid"])
    cause = cause.where(~known | beyond | ~table["short"], short)
    table = table.assign(cause=cause, outside=beyond, unfit=beyond | table["short"])
    rows = table.loc[known, [*LISTED, "session", "y", "short", "outside", "unfit", "hidden", *LOADS]]
    rows = rows.astype(dict.fromkeys(CONFIGURATION, np.float64))
    rows["configuration"] = _configurations(rows)
    dropped = table.loc[cause.notna(), [*LISTED, "cause", "outside"]].reset_index(drop=True)
    return Case(**about, rows=rows, dropped=dropped)


def _configurations(rows: pd.DataFrame) -> Ints:
    """The number of each row's configuration among those of its phase, in order. Each load counts as one: they have
    nothing else to differ in, and their scatter is the error of a prediction.
    """
    output = rows["output"].where(rows["phase"] != "prefill", 1.0)
    number = rows.assign(output=output).groupby(["phase", *CONFIGURATION]).ngroup()
    loads = rows["phase"] == "load"
    number[loads] = len(rows) + np.arange(loads.sum())
    return np.asarray(number, np.int64)


def _outside(table: pd.DataFrame, valid: Sequence[Bound]) -> pd.Series[bool]:
    """Which rows lie outside the range that was declared valid, for what their phase depends on."""
    found = pd.Series(False, table.index)
    for phase, keys in KEYS.items():
        found |= (table["phase"] == phase) & outside(table, [bound for bound in valid if bound.column in keys])
    return found


def _scaled(shared: sparse.csr_array | None, rows: pd.Index[int], factor: Floats) -> sparse.csr_array | None:
    """`shared` with `rows` multiplied."""
    if shared is None:
        return None
    factors = np.ones(shared.shape[0])
    factors[rows] = factor
    return sparse.csr_array(sparse.diags_array(factors) @ shared)
