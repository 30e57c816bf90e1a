"""Held-out predictions: each configuration is predicted by models that have not seen it, their forms included."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
import pandas as pd

from joulelab.analysis.modelling.cases import KEYS, Case
from joulelab.analysis.modelling.choice import folds
from joulelab.analysis.modelling.fitting import Fitted, fit_case
from joulelab.analysis.modelling.sessions import Gain, day, groups
from joulelab.errors import DataInvalid

Split = Literal["configuration", "prompt", "decode", "corner", "day"]
FOLDS = 10
LENGTH = {"prompt": "prompt", "decode": "output"}
"""The lengths that a fold may hold out."""
JUDGED = ["history", "prompt", "output", "observed", "predicted", "ape_percent"]
POINTS = [*JUDGED, "runs", "cv", "short", "outside", "fold"]
ROWS = ["y", "predicted", "short", "outside"]

Division = Callable[[pd.DataFrame], Any]
"""The number of the fold that each row is held out with; NaN or one that is not judged: always seen."""


@dataclass(frozen=True)
class HeldOut:
    """`points`, a row a configuration: `history`, `prompt`, `output`, `observed`, `predicted`, `ape_percent`, `runs`,
    `cv`, `short`, `outside`, `fold`; `rows`, a row a run: `y`, `predicted`, `short`, `outside`; `forms`: how often each
    form was chosen.
    """

    points: pd.DataFrame
    rows: pd.DataFrame
    forms: Counter[str]

    @classmethod
    def nothing(cls) -> HeldOut:
        return cls(pd.DataFrame(columns=POINTS), pd.DataFrame(columns=ROWS), Counter())

    @property
    def judged(self) -> pd.DataFrame:
        """The points that count: neither short nor outside the valid range."""
        return counting(self.points)

    def errors(self) -> dict[str, float | None]:
        """The errors in percent, None where nothing was predicted."""
        judged, rows = self.judged, counting(self.rows)
        inside = self.points[~self.points["outside"].astype(bool)]
        predicted, observed = (judged[name].to_numpy(np.float64) for name in ("predicted", "observed"))
        ratio = predicted / observed
        found: dict[str, Any] = {
            "mape_percent": judged["ape_percent"].mean(),
            "median_ape_percent": judged["ape_percent"].median(),
            "p95_ape_percent": judged["ape_percent"].quantile(0.95),
            "bias_percent": pd.Series(ratio - 1).mean() * 100,
            "log_ratio_percent": pd.Series(np.abs(np.log(ratio))).mean() * 100 if (ratio > 0).all() else np.nan,
            "weighted_percent": np.abs(predicted - observed).sum() / observed.sum() * 100 if len(observed) else np.nan,
            "single_run_mape_percent": (rows["predicted"] / rows["y"] - 1).abs().mean() * 100,
            "mape_all_percent": inside["ape_percent"].mean(),
            "outside_mape_percent": self.points["ape_percent"][self.points["outside"].astype(bool)].mean(),
        }
        return {name: None if np.isnan(error) else float(error) for name, error in found.items()}


def counting(rows: pd.DataFrame) -> pd.DataFrame:
    """Those of points or rows that are judged."""
    return rows[~(rows["short"] | rows["outside"]).astype(bool)]


def hold_out(case: Case, phase: str, parts: Sequence[str], split: Split, seed: int) -> HeldOut:
    """Predict `phase` as the sum of models of `parts`.

    A fold is a tenth of the configurations, one prompt or decode length, or a day (a session, where they are all of one
    day), whose gain nobody has seen; `corner` is the one fold of what is longer than half of the longest. It is held
    out of all the parts. Short configurations and those outside the valid range are predicted like the others, but no
    model is fitted to them. DataInvalid where a fold leaves too little.
    """
    case, found = _marked(case, _divide(case, phase, split, seed)), []
    fold = case.rows["fold"]
    for k in np.unique(fold[(case.rows["phase"] == phase) & (fold > 0)]):
        seen = _apart(case.subset(_not_in(k)), split)
        if split in ("decode", "corner"):
            _tells_onset(seen, parts)
        models = _models(seen, parts)
        found.append(_predict(case, phase, models, case.rows[fold == k], k))
    if not found:
        raise DataInvalid(f"nothing is left to hold out by {split}")
    return HeldOut(
        pd.concat([each.points for each in found], ignore_index=True),
        pd.concat([each.rows for each in found], ignore_index=True),
        sum((each.forms for each in found), Counter[str]()),
    )


def in_sample(case: Case, phase: str, parts: Sequence[str]) -> HeldOut:
    """The same of models that have seen everything: how well the forms fit, not how well they predict."""
    return _predict(case, phase, _models(case, parts), case.rows, 0)


def _tells_onset(seen: Case, parts: Sequence[str]) -> None:
    lengths = seen.rows.loc[seen.rows["output"] > 1, "output"].nunique()
    if seen.target == "energy" and lengths == 1 and set(parts) != {"prefill"}:
        raise DataInvalid(
            "what is left to learn from has one decode length, which hides an energy's onset: measure more"
        )


def _models(seen: Case, parts: Sequence[str]) -> list[Fitted]:
    return [fit_case(seen, part) for part in parts]


def _predict(case: Case, phase: str, models: Sequence[Fitted], rows: pd.DataFrame, fold: int) -> HeldOut:
    points = case.points(phase, rows, unfit=True).rename(columns={"y": "observed"})
    points["predicted"] = np.sum([model.predict(points) for model in models], axis=0)
    points["ape_percent"] = (points["predicted"] / points["observed"] - 1).abs() * 100
    own, point = case.repeats(phase, rows, unfit=True)
    own = own.assign(predicted=points["predicted"].to_numpy()[point])
    return HeldOut(points.assign(fold=fold)[POINTS], own[ROWS], Counter(str(model.form) for model in models))


def _marked(case: Case, division: Division) -> Case:
    """The case with the `fold` of each row."""
    rows = case.rows.assign(fold=division(case.rows))
    return replace(case, rows=rows, timed=case.timed and _marked(case.timed, division))


def _not_in(fold: int) -> Callable[[pd.DataFrame], pd.Series[bool]]:
    return lambda rows: rows["fold"] != fold


def _apart(seen: Case, split: Split) -> Case:
    """What was seen of several days or sessions, each with a gain of its own: they are never just pooled."""
    by = _days(seen.rows)
    return seen.pooled(by) if split == "day" and groups(seen.rows, by).nunique() > 1 else seen


def _days(rows: pd.DataFrame) -> Gain:
    return "day" if rows["session"].fillna("").map(day).nunique() > 1 else "session"


def _divide(case: Case, phase: str, split: Split, seed: int) -> Division:
    """The folds, counted from 1; 0 is never held out."""
    points = case.points(phase, unfit=True)
    if split == "day":
        return _by_day(case)
    if split == "corner":
        return _by_corner(case.points(phase), KEYS[phase])
    if split == "configuration":
        keys = KEYS[phase]
        configurations = pd.MultiIndex.from_frame(points[keys])
        number = pd.Series(folds(len(points), min(FOLDS, len(points)), seed) + 1, configurations)
        return lambda rows: number.reindex(pd.MultiIndex.from_frame(rows[keys])).to_numpy()
    length = LENGTH[split]
    if length not in KEYS[phase]:
        raise DataInvalid(f"a {phase} has no {split} length to hold out")
    rank = {tokens: number for number, tokens in enumerate(sorted(points[length].unique()), start=1)}
    return lambda rows: rows[length].map(rank).to_numpy()


def _by_day(case: Case) -> Division:
    by = _days(case.rows)
    names = sorted(groups(case.rows, by).unique())
    if len(names) < 2:
        raise DataInvalid("there is one session alone: measure another day to hold out")
    return lambda rows: groups(rows, by).map(names.index).to_numpy() + 1


def _by_corner(points: pd.DataFrame, keys: Sequence[str]) -> Division:
    """A history is not held out where nothing but an empty one is left to learn from."""
    half = points[list(keys)].max() / 2
    if not (points["history"].between(0, half["history"], inclusive="right")).any():
        half["history"] = np.inf
    return lambda rows: (rows[list(keys)] > half).any(axis=1).to_numpy().astype(int)
