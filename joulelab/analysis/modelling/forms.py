"""The model forms: sums of work counts, and the candidates that the data choose among.

Prefill is compute-bound and its matrix multiplications come in tiles; decode is memory-bound, so a pass costs the
reading of the weights and of the cache. An energy may be chained to the time that its time model predicts; no observed
time explains an energy.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import pandas as pd

from joulelab.analysis.modelling.terms import CHAINED, ONSETS, Term, Work
from joulelab.calibration.integrals import Floats

UNITS = {"time": "s", "energy": "J"}
START, TOKEN, PAIR = Term("start"), Term("token"), Term("pair")
ONSET, PASS, CONTEXT = Term("onset"), Term("pass"), Term("context")
SECONDS = Term("seconds")


@dataclass(frozen=True)
class Form:
    """A sum of terms, each times its coefficient."""

    target: str
    terms: tuple[Term, ...]

    @property
    def names(self) -> list[str]:
        return [f"{self.target[0]}_{term.name}" for term in self.terms]

    @property
    def units(self) -> list[str]:
        """A power is a joule a second."""
        units = [f"{UNITS[self.target]}/{term.unit}".rstrip("/") for term in self.terms]
        return ["W" if unit == "J/s" else unit for unit in units]

    @property
    def fitted(self) -> int:
        """How many numbers a fit of this form seeks: parameters, too, but one that terms share only once."""
        sought = {(x, term.at[:k].count(x)) for term in self.terms for k, x in enumerate(term.at)}
        return len(self.terms) + sum(x not in {0.0, 1.0, math.inf} for x, _ in sought)

    @property
    def signed(self) -> list[bool]:
        """Which coefficients may be negative: beside the seconds, a pass is what it draws less than they do."""
        either = ONSETS | ({PASS.kind} if SECONDS in self.terms else set())
        return [self.target == "energy" and term.kind in either for term in self.terms]

    @property
    def chained(self) -> tuple[str, ...]:
        """Which predicted times it needs, by column: the `seconds` of its phase, those of the one `before`."""
        return tuple(dict.fromkeys(CHAINED[term.kind] for term in self.terms if term.kind in CHAINED))

    def __str__(self) -> str:
        return " + ".join(f"{name} {term.symbol}".strip() for name, term in zip(self.names, self.terms, strict=True))

    def design(self, points: pd.DataFrame) -> Floats:
        """The work counts [points, terms] of points with columns `history`, `prompt`, `output`, and those that the form
        is chained to.
        """
        work = workload(points)
        return np.stack([term.count(work) for term in self.terms], axis=1)


def workload(points: pd.DataFrame) -> Work:
    """What points with columns `history`, `prompt`, `output` and perhaps predicted times ask for."""
    known = [name for name in ("seconds", "before") if name in points]
    h, p, o, *times = (points[name].to_numpy(np.float64) for name in ("history", "prompt", "output", *known))
    return Work(h, p, o, **dict(zip(known, times, strict=True)))


def timed_by(phase: str) -> dict[str, str]:
    """The phases whose predicted times an energy of `phase` may be chained to, by column."""
    return {"seconds": phase, "before": "prefill"} if phase == "decode" else {"seconds": phase}


class Predicts(Protocol):
    """A model of a time."""

    def predict(self, points: pd.DataFrame, /) -> Floats: ...


def with_times(points: pd.DataFrame, timed: Mapping[str, Predicts]) -> pd.DataFrame:
    """The points with the times [s] that models predict, by column."""
    return points.assign(**{name: model.predict(points) for name, model in timed.items()})
