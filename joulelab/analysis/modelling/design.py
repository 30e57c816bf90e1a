"""Design of experiments: which configurations to measure next, so that predictions become surer soonest.

Predicted costs are linear in their coefficients, so how sure they will be follows from where is measured, not from what
will be read there. The exchange is Fedorov's (Theory of Optimal Experiments, 1972), under a budget of measuring time:
a start that gains most a second, then swaps as long as they gain.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import stats

from joulelab.analysis.modelling.intervals import LEVEL
from joulelab.calibration.integrals import Floats, Ints

Criterion = Literal["I", "D", "G"]
"""What becomes small: the mean variance of the predictions (I), the determinant of the coefficients' covariance (D), or
the largest variance of a prediction (G), which is flat far from the optimum, so that D makes its start.
"""
SWEEPS = 3
"""Rounds of swaps; later ones gain next to nothing."""
BETTER = 1e-6
"""Less than this share is no gain."""


class Part(NamedTuple):
    """One phase of one model at n candidates.

    `rows` [n, k] are work counts over predicted cost, the first `terms` of them the form's own, the others what it may
    lack; `prior` [k] is their precision. `share` [n] is the phase's part of the total that `target` is about. `key` [n]
    numbers the phase's configurations, since a prefill does not know its output, and `runs` [keys] is how often each
    was measured. `misfit` is what the form misses in one, `noise` [keys] what its repeats vary by, relative.
    """

    target: str
    rows: Floats
    terms: int
    prior: Floats
    share: Floats
    key: Ints
    runs: Ints
    misfit: float
    noise: Floats

    def information(self, runs: Ints) -> Floats:
        """Of configurations measured so often: repeats average out, what the form misses does not."""
        return np.asarray(runs / (runs * self.misfit**2 + self.noise**2))

    def after(self, chosen: Sequence[int], repeats: int) -> Ints:
        """The runs [keys] when each of the chosen candidates was measured so often again."""
        return np.asarray(self.runs + repeats * np.bincount(self.key[list(chosen)], minlength=len(self.runs)))

    def covariance(self, runs: Ints) -> Floats:
        """Of the coefficients [k, k]."""
        own = self.rows[np.unique(self.key, return_index=True)[1]]
        precision = np.diag(self.prior) + own.T @ (self.information(runs)[:, None] * own)
        return np.asarray(np.linalg.inv(precision), np.float64)


@dataclass(frozen=True)
class Problem:
    """Candidates with columns `history`, `prompt`, `output`, the seconds [n] that each takes with all its repeats, and
    what is known. `limits` by target say how much an uncertainty counts.
    """

    candidates: pd.DataFrame
    seconds: Floats
    repeats: int
    parts: tuple[Part, ...]
    limits: dict[str, float]

    def half_widths(self, target: str, chosen: Sequence[int] = ()) -> Floats:
        """Half the 95 % prediction intervals [n] of the totals, relative, once the chosen ones are measured; without
        what a meter's gain errs by, which no design shrinks.
        """
        variance, spare = np.zeros(len(self.candidates)), [np.inf]
        for part in (part for part in self.parts if part.target == target):
            runs = part.after(chosen, self.repeats)
            spare.append(float(np.count_nonzero(runs) - part.terms))
            variance += part.share**2 * (_variances(part.rows, part.covariance(runs)) + part.misfit**2)
        return np.asarray(stats.t.ppf((1 + LEVEL) / 2, max(min(spare), 1.0)) * np.sqrt(variance))

    def determinant(self, chosen: Sequence[int]) -> tuple[float, Floats]:
        """The logarithm of the determinant of the coefficients' covariance, now and with each candidate added [n]."""
        now, gain = 0.0, np.zeros(len(self.candidates))
        for part in self.parts:
            runs = part.after(chosen, self.repeats)
            covariance = part.covariance(runs)
            now += float(np.linalg.slogdet(covariance)[1])
            gain += np.log1p(self._added(part, runs) * _variances(part.rows, covariance))
        return now, now - gain

    def mean(self, chosen: Sequence[int]) -> tuple[float, Floats]:
        """The mean variance over its limit, added up over the targets, now and with each candidate added [n]."""
        now, less = 0.0, np.zeros(len(self.candidates))
        for part in self.parts:
            runs = part.after(chosen, self.repeats)
            covariance = part.covariance(runs)
            weight = (part.share / self.limits[part.target]) ** 2 / len(part.share)
            moments = part.rows.T @ (weight[:, None] * part.rows)
            added, own = self._added(part, runs), _variances(part.rows, covariance)
            now += float(np.sum(covariance * moments))
            less += added / (1 + added * own) * _variances(part.rows, covariance @ moments @ covariance)
        return now, now - less

    def widest(self, chosen: Sequence[int]) -> tuple[float, Floats]:
        """The largest variance over its limit, now and with each candidate added [n]."""
        found: dict[str, tuple[Floats, Floats]] = {}
        n = len(self.candidates)
        for part in self.parts:
            runs = part.after(chosen, self.repeats)
            projected = part.rows @ part.covariance(runs)
            own = np.sum(projected * part.rows, axis=1)
            weight = (part.share / self.limits[part.target]) ** 2
            added = self._added(part, runs)
            less = (projected @ part.rows.T) ** 2 * (weight[:, None] * (added / (1 + added * own)))
            before, fewer = found.get(part.target, (np.zeros(n), np.zeros((n, n))))
            found[part.target] = before + weight * own, fewer + less
        now = max(float(before.max()) for before, _ in found.values())
        return now, np.max([(before[:, None] - less).max(axis=0) for before, less in found.values()], axis=0)

    def _added(self, part: Part, runs: Ints) -> Floats:
        """The information [n] that each candidate would add."""
        return (part.information(runs + self.repeats) - part.information(runs))[part.key]


def _variances(rows: Floats, covariance: Floats) -> Floats:
    return np.asarray(np.einsum("nk,kl,nl->n", rows, covariance, rows))


def choose(problem: Problem, budget_s: float, criterion: Criterion = "I") -> list[int]:
    """The candidates to measure within the budget, by number; none where not even the cheapest fits."""
    start, goal = {
        "I": (problem.mean, problem.mean),
        "D": (problem.determinant, problem.determinant),
        "G": (problem.determinant, problem.widest),
    }[criterion]
    chosen = _fill(problem, start, [], budget_s)
    for _ in range(SWEEPS):
        before = list(chosen)
        for old in before:
            chosen = _swap(problem, goal, chosen, old, budget_s)
        chosen = _fill(problem, start, chosen, budget_s)
        if chosen == before:
            break
    return chosen


Score = Callable[[Sequence[int]], tuple[float, Floats]]
"""What becomes small, with the chosen candidates and with each other one added to them [n]."""


def _affordable(problem: Problem, chosen: Sequence[int], budget_s: float) -> NDArray[np.bool_]:
    """Which candidates [n] may join the chosen ones."""
    fits = problem.seconds <= budget_s - problem.seconds[list(chosen)].sum()
    fits[list(chosen)] = False
    return np.asarray(fits)


def _fill(problem: Problem, score: Score, chosen: list[int], budget_s: float) -> list[int]:
    """Add what gains most a second, as long as something fits."""
    while (fits := _affordable(problem, chosen, budget_s)).any():
        now, after = score(chosen)
        chosen = [*chosen, int(np.where(fits, (now - after) / problem.seconds, -np.inf).argmax())]
    return chosen


def _swap(problem: Problem, score: Score, chosen: list[int], old: int, budget_s: float) -> list[int]:
    """Another candidate instead of `old`, where that gains."""
    rest = [number for number in chosen if number != old]
    now, after = score(rest)
    best = int(np.where(_affordable(problem, rest, budget_s), after, np.inf).argmin())
    return [*rest, best] if after[old] - after[best] > BETTER * abs(now) else chosen


def space_filling(candidates: pd.DataFrame, n: int) -> list[int]:
    """`n` candidates far from each other in the logarithms of their tokens, the middle one first: what to begin with
    while no model says better (maximin distance; Johnson, Moore and Ylvisaker, J. Stat. Planning Inference 26, 1990).
    """
    place = np.log2(candidates[["history", "prompt", "output"]].to_numpy(np.float64) + 16)
    place = (place - place.min(axis=0)) / np.maximum(np.ptp(place, axis=0), BETTER)
    chosen = [int(np.sum((place - 0.5) ** 2, axis=1).argmin())]
    distance = np.full(len(place), np.inf)
    while len(chosen) < min(n, len(place)):
        distance = np.minimum(distance, np.sum((place - place[chosen[-1]]) ** 2, axis=1))
        distance[chosen] = -1.0
        chosen.append(int(distance.argmax()))
    return chosen
