"""Held-out predictions: each configuration is predicted by models that have not seen it, their forms included."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import pandas as pd

from joulelab.analysis.cases import KEYS, Case
from joulelab.analysis.fitting import Fitted, fit_phase, folds

Split = Literal["configuration", "prompt"]
FOLDS = 10
POINTS = ["history", "prompt", "output", "observed", "predicted", "ape_percent", "runs", "cv", "short", "fold"]


@dataclass(frozen=True)
class HeldOut:
    """`points`, a row a configuration: `history`, `prompt`, `output`, `observed`, `predicted`, `ape_percent`, `runs`,
    `cv`, `short`, `fold`; `rows`, a row a run: `y`, `predicted`, `short`; `forms`: how often each form was chosen.
    """

    points: pd.DataFrame
    rows: pd.DataFrame
    forms: Counter[str]

    @classmethod
    def nothing(cls) -> HeldOut:
        return cls(pd.DataFrame(columns=POINTS), pd.DataFrame(columns=["y", "predicted", "short"]), Counter())

    @property
    def long(self) -> pd.DataFrame:
        """The points that count: all but the short ones."""
        return self.points[~self.points["short"].astype(bool)]

    def errors(self) -> dict[str, float | None]:
        """The errors in percent, None where nothing was predicted."""
        long, rows = self.long, self.rows[~self.rows["short"].astype(bool)]
        found: dict[str, Any] = {
            "mape_percent": long["ape_percent"].mean(),
            "median_ape_percent": long["ape_percent"].median(),
            "p95_ape_percent": long["ape_percent"].quantile(0.95),
            "bias_percent": (long["predicted"] / long["observed"] - 1).mean() * 100,
            "single_run_mape_percent": (rows["predicted"] / rows["y"] - 1).abs().mean() * 100,
            "mape_all_percent": self.points["ape_percent"].mean(),
        }
        return {name: None if np.isnan(error) else float(error) for name, error in found.items()}


def hold_out(case: Case, phase: str, parts: Sequence[str], split: Split, seed: int) -> HeldOut:
    """Predict `phase` as the sum of models of `parts`.

    A fold is a tenth of the configurations, or one prompt length; it is held out of all the parts. Short
    configurations are predicted like the others, but no model is fitted to them. DataInvalid where a fold leaves too
    little.
    """
    points = case.points(phase, short=True).rename(columns={"y": "observed"})
    points["fold"] = _fold(points, split, seed)
    keys = ["prompt"] if split == "prompt" else KEYS[phase]
    rows = case.rows.merge(points[[*keys, "fold"]].drop_duplicates(), on=keys, how="left")
    forms = Counter[str]()
    for fold, held in points.groupby("fold"):
        models = [_fit(case, part, rows[rows["fold"] != fold]) for part in parts]
        points.loc[held.index, "predicted"] = np.sum([model.predict(held) for model in models], axis=0)
        forms.update(str(model.form) for model in models)
    points["ape_percent"] = (points["predicted"] / points["observed"] - 1).abs() * 100
    own = rows[rows["phase"] == phase].merge(points[[*KEYS[phase], "predicted"]], on=KEYS[phase])
    return HeldOut(points[POINTS], own[["y", "predicted", "short"]], forms)


def _fit(case: Case, part: str, rows: pd.DataFrame) -> Fitted:
    return fit_phase(case.target, part, case.points(part, rows))


def _fold(points: pd.DataFrame, split: Split, seed: int) -> pd.Series[int]:
    if split == "prompt":
        return points["prompt"].rank(method="dense").astype(int)
    return pd.Series(folds(len(points), min(FOLDS, len(points)), seed), points.index)
